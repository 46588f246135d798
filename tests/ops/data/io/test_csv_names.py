"""Ids come back as they stand in the file, by one rule for every format: 00501 is not 501, 7.0 and uint64 are exact."""

import numpy as np
import pandas as pd
import pytest

from ops.data.io.ids import Lookup, as_keys, find_rows, joined_ids
from ops.data.io.tables import TableStream, feature_table
from ops.data.load import load, read_rows
from ops.errors import DataError


def _csv(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("written", "read"), [
    (["00501", "02134"], ["00501", "02134"]),
    (["1", "01"], ["1", "01"]),
    (["1e5", "7"], ["1e5", "7"]),
    (["1.0", "2"], ["1.0", "2"]),
    (["+1", "-0"], ["+1", "-0"]),
    (["18446744073709551615", "1"], ["18446744073709551615", "1"]),
    (["True", "NA"], ["True", "NA"]),
    (["501", "-7"], [501, -7]),
    ([" 501", "7 "], [501, 7]),
])  # fmt: skip
def test_ids_are_numbers_only_where_nothing_is_lost(tmp_path, written, read):
    path = _csv(tmp_path / "t.csv", " id,a", *(f"{value},0.5" for value in written))
    ids = feature_table(path).ids
    assert ids.tolist() == read
    assert (ids.dtype == np.int64) is isinstance(read[0], int)
    _csv(tmp_path / "edges.csv", "source,target", f"{written[0]},{written[1]}")
    path.rename(tmp_path / "features.csv")
    assert load(str(tmp_path))[0].edge_index.tolist() == [[0, 1], [1, 0]]


BIG = 1750000000000000259
KINDS = [np.int32, np.int64, ">i8", np.uint16, np.uint64, np.float32, np.float64, str, ">U9", object]


@pytest.mark.parametrize("theirs", KINDS)
@pytest.mark.parametrize("ours", KINDS)
def test_ids_of_any_kind_find_each_other(ours, theirs):
    ids, keys = np.array([1000, 7, 65000]), np.array([7, 3, 65000, 1000])
    assert find_rows(keys.astype(theirs), ids.astype(ours)).tolist() == [1, -1, 2, 0]


@pytest.mark.parametrize("big", [BIG, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("form", ["csv", "parquet", "npz"])
def test_large_numbers_are_exact_in_every_format(tmp_path, big, form):
    ids = np.array([big - 1, big, 5], dtype=np.uint64)
    ends = np.array([[big, big - 1], [5, big]], dtype=np.uint64)
    features, edges = pd.DataFrame({"id": ids, "a": [1.0, 2, 3]}), pd.DataFrame({"source": ends[0], "target": ends[1]})
    if form == "csv":
        features.to_csv(tmp_path / "features.csv", index=False)
        edges.to_csv(tmp_path / "edges.csv", index=False)
    else:
        if form == "npz":
            np.savez(tmp_path / "features.npz", x=np.eye(3), ids=ids)
        else:
            features.to_parquet(tmp_path / "features.parquet")
        edges.to_parquet(tmp_path / "edges.parquet")
    graph, _ = load(str(tmp_path))
    assert [str(i) for i in graph.ids] == [str(i) for i in ids]
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.parametrize("column", ["id", "source"])
def test_floats_that_are_not_exact_are_refused(tmp_path, column):
    ids = np.array([1, BIG])
    pd.DataFrame({"id": ids.astype(float) if column == "id" else ids, "a": [1.0, 2]}).to_parquet(
        tmp_path / "features.parquet"
    )
    pd.DataFrame({"source": ids.astype(float), "target": ids[::-1]}).to_parquet(tmp_path / "edges.parquet")
    with pytest.raises(
        DataError, match=rf"row 1: the {column} 1\.75.*e\+18 is a floating-point number of 2\^53 or more"
    ):
        load(str(tmp_path))


def test_arrays_that_are_no_row_of_ids_are_one_line(tmp_path):
    np.savez(tmp_path / "features.npz", x=np.eye(3), ids=np.array(7))
    with pytest.raises(DataError, match=r"features\.npz: 0 ids for 3 rows"):
        load(str(tmp_path), knn=1)
    assert as_keys(np.array([2**70, 1], dtype=object)).tolist() == [str(2**70), "1"]
    assert as_keys(np.array([3, 4], dtype=np.float16)).tolist() == [3, 4]


def test_single_precision_is_exact_up_to_2_to_the_24(tmp_path):
    assert as_keys(np.array([2**24 - 1, 5], np.float32)).tolist() == [2**24 - 1, 5]
    with pytest.raises(DataError, match=r"ids, row 0: the id 16777216.0 is a floating-point number of 2\^24 or more"):
        as_keys(np.array([2**24 + 1, 5], np.float32))


@pytest.mark.parametrize(("ids", "ends"), [
    ("1000,7", "1000.0,7.0"), ("1000.0,7.0", "1000,7"), ("1000,x", "1000.0,x"), ("1000.0,1.5", "1000,1.5"),
])  # fmt: skip
def test_a_column_with_points_is_no_other_column(tmp_path, ids, ends):
    first, second = ids.split(",")
    _csv(tmp_path / "features.csv", "id,a", f"{first},1", f"{second},2")
    _csv(tmp_path / "edges.csv", "source,target", ends)
    graph, _ = load(str(tmp_path))
    assert graph.edge_index.tolist() == [[0, 1], [1, 0]]
    assert [str(i) for i in graph.ids] == [first, second]


def test_one_long_id_among_short_ones_is_refused_before_it_takes_the_memory(tmp_path):
    words = [f"u{i}" for i in range(4000)]
    words[17] = "x" * 300_000
    pd.DataFrame({"id": words, "a": range(4000)}).to_csv(tmp_path / "t.csv", index=False)
    for read in (lambda: load(str(tmp_path / "t.csv"), knn=1), lambda: as_keys(np.array(words, dtype=object))):
        with pytest.raises(DataError, match="row 17: the id has 300,000 characters, most have 5: all would need 4,5"):
            read()
    with pytest.raises(DataError, match="ids of up to 300,000 characters, 4,001 in all, would need 4,578 MiB"):
        joined_ids([np.array(["x" * 300_000]), np.array([f"u{i}" for i in range(4000)])])
    assert Lookup("node", np.array(["a", "bb"])).rows(np.array(["bb", "x" * 1000])).tolist() == [1, -1]


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
