import tracemalloc

import numpy as np
import pandas as pd
import pytest

from ops.data.io.tables import TableStream
from ops.errors import DataError


def table(rows: int = 23) -> pd.DataFrame:
    x = np.random.default_rng(0).standard_normal((rows, 3)).astype(np.float32)
    frame = pd.DataFrame(x, columns=["p", "q", "r"])
    frame.insert(1, "id", [f"n{i}" for i in range(rows)])
    frame["label"] = 1
    return frame


@pytest.mark.parametrize("batch_rows", [1, 7, 23, 100])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_pieces_are_the_table(tmp_path, suffix, batch_rows):
    path = tmp_path / f"t.{suffix}"
    table().to_csv(path, index=False) if suffix == "csv" else table().to_parquet(path)
    stream = TableStream(path, batch_rows)
    assert (stream.n_rows, stream.ids.tolist()) == (23, table().id.tolist())
    pieces = list(stream.pieces())
    assert [p.first for p in pieces] == list(range(0, 23, batch_rows))
    assert {p.feature_names for p in pieces} == {("p", "q", "r")}
    np.testing.assert_allclose(np.concatenate([p.x for p in pieces]), table()[["p", "q", "r"]], rtol=1e-6)


def test_arrays_come_from_disk_piece_by_piece(tmp_path):
    x = np.ones((60_000, 16), dtype=np.float32)  # 3.8 MB
    np.save(tmp_path / "x.npy", x)
    del x
    tracemalloc.start()
    stream = TableStream(tmp_path / "x.npy", 1000)
    total = sum(float(p.x.sum()) for p in stream.pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (total, stream.ids) == (960_000, None)
    assert peak < 2e6


@pytest.mark.parametrize(("text", "words"), [
    ("id,p\n1,2\n2,3\n1,4\n", "id 1 stands twice"),
    ("id,p\n1,2\nb,3\nb,4\n", "id 'b' stands twice"),
    ("p,q\n1,2\n2,3\n3,x\n", "row 2: column 'q' holds 'x', which is no number"),
    ("p,q\n1,2\n2,3\n3,\n", "features hold 1 NaN values, the first at row 2, column 1"),
    ("p,q\n", "has no rows"),
    ("1,2\n2,3\n3,4\n", "the first line .* is data"),
])  # fmt: skip
def test_what_no_table_is(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=words):
        list(TableStream(tmp_path / "t.csv", 2).pieces())
    with pytest.raises(DataError, match="no such file"):
        TableStream(tmp_path / "none.csv", 2)
