import numpy as np
import pytest

from ops.data.io.builder import Raw
from ops.data.io.folder import read_folder
from ops.data.io.incremental import begins_with, grow, known_rows
from ops.data.io.validate import make_graph
from ops.errors import DataError

X = np.arange(10, dtype=np.float32).reshape(5, 2)
IDS = np.array(["a", "b", "c", "d", "e"])


@pytest.fixture
def trained():
    """a - b - c - d - e, a path."""
    return make_graph("known", X, np.array([[0, 1, 2, 3], [1, 2, 3, 4]]), ids=IDS)


def test_rows_are_matched_by_id_or_called_by_their_numbers():
    assert known_rows(np.array(["d", "x", "a"]), 3, IDS, 5).tolist() == [3, -1, 0]
    assert known_rows(np.array([4.0, 9.0]), 2, None, 5).tolist() == [4, -1]
    assert known_rows(None, 7, None, 5).tolist() == [0, 1, 2, 3, 4, -1, -1]
    assert known_rows(None, 2, IDS, 5).tolist() == [-1, -1]


def test_data_that_begins_with_the_known_rows_in_pieces():
    longer = np.concatenate([X, X])
    assert begins_with(longer[:3], X)
    assert begins_with(longer[3:8], X, 3)
    assert not begins_with(longer[3:8], X, 2)
    assert not begins_with(longer[:, :1], X)


def test_new_nodes_join_the_known_graph(trained):
    # d again (with a feature of its own), and the new node x, linked to d and to b, which is not repeated
    raw = Raw("new", "new", np.array([[7, 7], [9, 9]]), np.array([[1, 1], [0, 3]]), ids=np.array(["d", "x"]))
    x, edges, _ = grow(raw, raw.x.astype(np.float32), np.array([3, -1]), trained)
    # nodes: d, x, then a, b, c, e
    np.testing.assert_array_equal(x, [[7, 7], [9, 9], *X[[0, 1, 2, 4]]])
    names = np.array(["d", "x", "a", "b", "c", "e"])
    pairs = {"".join(sorted(pair)) for pair in names[edges].T}
    assert pairs == {"ab", "bc", "cd", "de", "dx", "bx"}


def test_rows_alone_have_no_edges_and_a_graph_of_its_own_keeps_its(trained):
    alone, edges, _ = grow(Raw("new", "new", X), X, np.full(5, -1), None)
    assert (alone is X, edges.shape) == (True, (2, 0))
    _, edges, _ = grow(Raw("new", "new", X, np.array([[0], [1]])), X, np.full(5, -1), None)
    assert edges.tolist() == [[0, 1], [1, 0]]


def test_edges_to_known_nodes_need_ids():
    with pytest.raises(
        DataError, match="row 6, but there are 5 rows; for edges to known nodes give the features an id"
    ):
        grow(Raw("new", "new.csv", X, np.array([[0], [6]])), X, np.full(5, -1), None)


def test_a_folders_edges_may_end_in_known_ids(tmp_path, trained):
    (tmp_path / "features.csv").write_text("id,f,g\nx,1,2\nc,3,4\n")
    (tmp_path / "edges.csv").write_text("source,target\nx,c\nx,e\n")
    with pytest.raises(DataError, match="row 1: target 'e' is not among the 2 node ids"):
        read_folder(tmp_path)
    (tmp_path / "edges.csv").write_text("source,target\nx,c\nx,e\na,x\n")
    raw = read_folder(tmp_path, IDS)
    assert raw.edges.tolist() == [[0, 0, 2], [1, 5, 0]]  # x, c, then a, b, d, e
    numbers = np.array([10, 20])  # words among numbers: all are compared as words
    (tmp_path / "edges.csv").write_text("source,target\nx,20\n")
    assert read_folder(tmp_path, numbers).edges.tolist() == [[0], [3]]
