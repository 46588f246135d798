import tracemalloc

import numpy as np
import pytest
from refusals import one_line

from ops.data.io.ids import check_ids
from ops.data.io.labels import make_labels, unlabelled
from ops.data.io.validate import check_clusters, make_graph
from ops.errors import DataError, SettingsError

X = np.eye(4)
E = np.array([[0, 1, 2], [1, 2, 3]])


def test_edges_become_undirected_sorted_unique_and_counted():
    edges = np.array([[0, 1, 0, 2, 2, 1], [1, 0, 1, 2, 2, 3]])
    graph = make_graph("g", np.eye(6), edges)
    assert graph.edge_index.tolist() == [[0, 1, 1, 2, 3], [1, 0, 3, 2, 1]]
    assert graph.notes == (
        "2 duplicate edges merged",
        "1 edge in one direction only, symmetrised",
        "1 self loop kept",
        "3 isolated nodes",  # 4, 5, and 2 that only has itself
    )


def test_a_sound_graph_has_no_notes_and_the_types_of_the_contract():
    graph = make_graph("g", X, np.concatenate([E, E[::-1]], axis=1).astype(np.float32), feature_names=list("abcd"))
    assert graph.notes == ()
    assert (graph.x.dtype, graph.edge_index.dtype) == (np.float32, np.int64)
    assert graph.feature_names == ("a", "b", "c", "d")


def _with(value, at=(2, 1)):
    x = X.copy()
    x[at] = value
    return x


@pytest.mark.parametrize(("x", "message"), [
    (_with(np.nan), "f.npz: features hold 1 NaN values, the first at row 2, column 1 ('b'); only finite numbers"),
    (_with(-np.inf), "f.npz: features hold 1 infinite values, the first at row 2, column 1 ('b'); only finite"),
    (_with([np.nan, np.inf], (3, [0, 2])), "f.npz: features hold 1 NaN and 1 infinite values, the first at row 3,"),
    (_with(1e39), "f.npz: 1 values are beyond 1e+15, the first at row 2, column 1 ('b'); their squares do not fit"),
    (np.zeros((0, 4)), "f.npz: empty graph (0 nodes, 4 features); at least one of each is needed"),
    (np.zeros((4, 0)), "f.npz: empty graph (4 nodes, 0 features); at least one of each is needed"),
    (np.zeros(4), "f.npz: features must be a table [N, F], found shape (4,)"),
    (np.full((4, 4), "a"), "f.npz: features must be real numbers, found type <U1"),
    (X * 1j, "f.npz: features must be real numbers, found type complex128"),
])  # fmt: skip
def test_bad_features_are_one_line(x, message):
    assert one_line(DataError, make_graph, "g", x, E, feature_names=list("abcd"), origin="f.npz").startswith(message)


@pytest.mark.parametrize(("edges", "message"), [
    ([[0, 1], [1, 4]], "g: edge 1 is (1, 4): ids must be in 0..3 (N = 4)"),
    ([[1, 4], [2, 3]], "g: edge 1 is (4, 3): ids must be in 0..3 (N = 4); the ids seem to count from 1, subtract "),
    ([[0, -1], [1, 2]], "g: edge 1 is (-1, 2): ids must be in 0..3 (N = 4)"),
    ([[0, 1.5], [1, 2]], "g: edge 1 is (1.5, 2.0): ids must be whole numbers"),
    ([[np.nan, 1], [1, 2]], "g: edge 0 is (nan, 1.0): ids must be whole numbers"),
    ([[0, np.inf], [1, 2]], "g: edge 1 is (inf, 2.0): ids must be whole numbers"),
    ([["a"], ["b"]], "g: edge ids must be whole numbers, found type <U1"),
    ([[True], [False]], "g: edge ids must be whole numbers, found type bool"),
    ([[0, 1, 2]], "g: edges must have the shape [2, E], found (1, 3)"),
    ([[], []], "g: no edges; a graph needs at least one, or use a feature table with --knn 10"),
])  # fmt: skip
def test_bad_edges_name_the_first_offender(edges, message):
    assert one_line(DataError, make_graph, "g", X, np.array(edges)).startswith(message)


@pytest.mark.parametrize(("ids", "message"), [
    (np.array(["a", "b", "c"]), "g: 3 ids for 4 rows"),
    (np.array(["a", "b", "c", "b"]), "g, row 3: id 'b' stands twice; ids of one type must differ"),
    (np.array([7, 7, 1, 2]), "g, row 1: id 7 stands twice; ids of one type must differ"),
    (np.array(["a", None, "c", None], dtype=object), "g, row 1: the id is missing (2 in all); every row"),
])  # fmt: skip
def test_bad_ids_are_one_line(ids, message):
    assert one_line(DataError, check_ids, ids, 4, origin="g").startswith(message)


def test_feature_names_must_fit():
    with pytest.raises(DataError, match=r"^g: 3 feature names for 4 features$"):
        make_graph("g", X, E, feature_names=["a", "b", "c"])


@pytest.mark.parametrize(("y", "codes"), [
    ([5, -2, 5], [1, 0, 1]),
    ([2.0, 1.0, 2.0], [1, 0, 1]),
    (["b", "a", "b"], [1, 0, 1]),
    ([True, False, True], [1, 0, 1]),
    ([[5], [3], [5]], [1, 0, 1]),
    (np.array(["b", "a", "b"], dtype=object), [1, 0, 1]),
    ([-1, 1, -1], [0, 1, 0]),  # all there is: two classes
    ([-1, 4, 2], [-1, 1, 0]),
    ([np.nan, 4, 2], [-1, 1, 0]),
    (np.array([-1, 255], np.int16).repeat([1, 2]), [-1, 0, 0]),
    (["Unknown", "b", "a"], [-1, 1, 0]),
    (np.array(["a", None, ""], dtype=object), [0, -1, -1]),
    (np.array([b"a", b"", b"b"]), [0, -1, 1]),
    (["nan", "3", "-1"], [-1, 0, -1]),
])  # fmt: skip
def test_labels_become_codes(y, codes):
    labels = make_labels(np.array(y), 3)
    assert labels.dtype == np.int64
    assert labels.tolist() == codes


@pytest.mark.parametrize(("y", "message"), [
    ([0, 1], "labels: 2 labels for 3 rows; there must be one per row, in the same order"),
    ([np.nan, np.nan, -1], "labels: all labels are -1, NaN, empty or 'unknown'; label some rows, or give no label"),
    (["0.5", "", "1"], "labels: label '0.5' in row 0; labels are whole numbers or words"),
    ([0, 0.5, 1], "labels: label 0.5 in row 1; labels are whole numbers or words"),
    (np.eye(3), "labels: labels must be one value per row [N], found shape (3, 3)"),
])  # fmt: skip
def test_bad_labels_are_one_line(y, message):
    assert one_line(DataError, make_labels, np.array(y), 3).startswith(message)


def test_a_long_label_costs_its_length_once():
    words = np.array([f"c{i % 3}" for i in range(4000)], dtype=object)
    words[7] = "x" * 300_000
    tracemalloc.start()
    labels = make_labels(words, 4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.max() == 3
    assert peak < 20e6


def test_rows_without_a_label_are_counted():
    said = "2 rows of 4 without a label (-1, NaN, empty or 'unknown'): left out of K and of all scores"
    assert unlabelled(np.array([0, -1, 1, -1])) == [said]
    assert unlabelled(np.array([0, 1])) == []


def test_clusters_against_nodes():
    check_clusters(2, 8)
    check_clusters(8, 8)
    with pytest.raises(DataError, match=r"^--n-clusters 9: the data has 8 rows, and a cluster needs at least one$"):
        check_clusters(9, 8)
    with pytest.raises(SettingsError, match=r"^--n-clusters 1: give at least 2$"):
        check_clusters(1, 8)
