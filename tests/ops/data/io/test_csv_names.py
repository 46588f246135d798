"""What a CSV calls its rows and classes comes back as it stands in the file: 00501 is not 501."""

from __future__ import annotations

import numpy as np
import pytest

from ops.data.io.readers import read_table, read_table_by
from ops.data.io.stream import TableStream
from ops.data.load import load, read_rows
from ops.errors import DataError


def _csv(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("column", ["id", "Label", "source", "SRC", "target", "dst", " id"])
@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["00501", "02134"], ["00501", "02134"]),
        (["1", "01"], ["1", "01"]),
        (["1e5", "7"], ["1e5", "7"]),
        (["1.0", "2"], ["1.0", "2"]),
        (["+1", "-0"], ["+1", "-0"]),
        (["18446744073709551615", "1"], ["18446744073709551615", "1"]),
        (["True", "NA"], ["True", "NA"]),
        (["501", "-7"], [501, -7]),
        ([" 501", "7 "], [501, 7]),
    ],
)
def test_names_are_numbers_only_where_nothing_is_lost(tmp_path, column, written, read):
    path = _csv(tmp_path / "t.csv", f"{column},a", *(f"{value},0.5" for value in written))
    whole = read_table(path)
    assert whole[column.strip()].tolist() == read
    assert (whole[column.strip()].dtype == np.int64) is isinstance(read[0], int)
    assert whole["a"].dtype == np.float64
    (piece,) = read_table_by(path, 5)
    assert piece[column.strip()].tolist() == read


def test_ids_and_edges_with_zeros_in_front(tmp_path):
    _csv(tmp_path / "features.csv", "id,a,label", "00501,1,01", "501,2,1", "2.5,3,2", "1e5,4,2")
    _csv(tmp_path / "edges.csv", "source,target", "501,00501", "501,2.5", "501,1e5")
    graph, labels = load(str(tmp_path))
    assert graph.ids.tolist() == ["00501", "501", "2.5", "1e5"]
    assert labels.tolist() == [0, 1, 2, 2]
    assert graph.edge_index[:, graph.edge_index[0] == 1].tolist() == [[1, 1, 1], [0, 2, 3]]
    _csv(tmp_path / "edges.csv", "from,to,weight", "501,00501,0.5", "501,2.5,1.5", "501,1e5,1")
    assert np.array_equal(load(str(tmp_path))[0].edge_index, graph.edge_index)


def test_labels_of_any_name_are_not_merged(tmp_path):
    np.save(tmp_path / "features.npy", np.eye(3))
    _csv(tmp_path / "edges.csv", "a,b", "0.0,1.0", "1.0,2.0")  # row numbers may be written as pandas writes floats
    _csv(tmp_path / "labels.csv", "class", "01", "1", "2")
    graph, labels = load(str(tmp_path))
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert labels.tolist() == [0, 1, 2]
    _csv(tmp_path / "labels.csv", "id,class", "2,2", "0,01", "1,1")
    assert load(str(tmp_path))[1].tolist() == [0, 1, 2]


def test_a_stream_of_a_table_has_the_same_ids(tmp_path):
    path = _csv(tmp_path / "t.csv", "id,a", "7,1", "8,2", "007,3", "08,4")
    assert TableStream(path, 2).ids.tolist() == read_rows(str(path)).ids.tolist() == ["7", "8", "007", "08"]


def test_what_was_refused_still_is(tmp_path):
    path = _csv(tmp_path / "t.csv", "a,label", "1,0.5", "2,1")
    with pytest.raises(DataError, match=r"label 0.5 in row 0; labels are whole numbers or words"):
        load(str(path), knn=1)
    path = _csv(tmp_path / "t.csv", "id,a", "01,1", ",2")
    with pytest.raises(DataError, match=r"1 ids are missing, the first in row 1"):
        load(str(path), knn=1)
