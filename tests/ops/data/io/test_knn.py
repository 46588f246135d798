import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from ops.data.io.builder import Raw, finished_graph
from ops.data.io.knn import knn_graph
from ops.errors import DataError, SettingsError


def _sklearn(x, k, metric):
    """The same graph by scikit-learn; only for data without equal distances."""
    near = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(x).kneighbors(return_distance=False)
    pairs = {(i, int(j)) for i, row in enumerate(near) for j in row}
    return np.array(sorted(pairs | {(j, i) for i, j in pairs})).T


def _naive(x, k):
    """Euclidean, ties to the lowest index: one row at a time, integers only."""
    pairs = set()
    for i, row in enumerate(x):
        distance = ((x - row) ** 2).sum(axis=1)
        order = [int(j) for j in np.argsort(distance, kind="stable") if j != i][:k]
        pairs |= {(i, j) for j in order} | {(j, i) for j in order}
    return np.array(sorted(pairs)).T


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_rows", [1, 7, 64, 4096])
def test_equals_scikit_learn(metric, block_rows):
    x = np.random.default_rng(0).standard_normal((150, 9)).astype(np.float32)
    assert np.array_equal(knn_graph(x, 5, metric, block_rows), _sklearn(x, 5, metric))


def test_far_from_the_origin_the_distances_stay_exact():
    # |x|^2 is 1e12 times the distances here: the matrix product alone loses them
    x = np.random.default_rng(1).standard_normal((80, 4)) + 1e6
    assert np.array_equal(knn_graph(x, 3), _naive(x, 3))


@pytest.mark.parametrize("block_rows", [7, 200])
def test_more_equal_distances_than_there_is_room_for(block_rows):
    # rows that are not among their own nearest, and rows whose nearest do not fit the candidates
    drawn = np.random.default_rng(4).integers(0, 50, (60, 3)).astype(np.float64)
    for x in (np.zeros((100, 3)), np.concatenate((np.ones((60, 3)), drawn))):
        assert np.array_equal(knn_graph(x, 3, block_rows=block_rows), _naive(x, 3))


def test_digits_have_many_ties_and_equal_the_integer_reference():
    x = load_digits().data[:300].astype(np.int64)
    assert np.array_equal(knn_graph(x.astype(np.float32) / 16, 10), _naive(x, 10))


@given(
    x=hnp.arrays(
        np.float32, st.tuples(st.integers(3, 60), st.integers(1, 5)), elements=st.sampled_from([0, 0.1, 0.3, 1, 7e8])
    ),
    metric=st.sampled_from(["euclidean", "cosine", "dot"]),
    block_rows=st.integers(1, 30),
    k=st.integers(1, 2),
)
def test_block_size_never_matters(x, metric, block_rows, k):
    edges = knn_graph(x, k, metric, block_rows)
    assert np.array_equal(edges, knn_graph(x, k, metric))
    assert (edges[0] != edges[1]).all()
    assert (np.bincount(edges[0], minlength=len(x)) >= k).all()
    assert edges.T.tolist() == sorted(edges[::-1].T.tolist())


def test_cosine_is_blind_to_length_and_zero_rows_are_similar_to_none():
    x = np.array([[1, 0], [1e-30, 1e-31], [1e30, 0], [0, 1], [0, 0]], dtype=np.float64)
    assert knn_graph(x, 1, "cosine").T.tolist() == [[0, 1], [0, 2], [0, 4], [1, 0], [1, 3], [2, 0], [3, 1], [4, 0]]


def test_the_heat_kernel_has_the_neighbours_of_the_distance_even_where_it_underflows():
    x = np.random.default_rng(2).standard_normal((60, 5)).astype(np.float32)
    kernel = np.exp(-0.5 * ((x[:, None].astype(np.float64) - x) ** 2).sum(2)) - 2 * np.eye(60)
    near = np.argsort(-kernel, axis=1)[:, :4]
    pairs = {(i, int(j)) for i, row in enumerate(near) for j in row}
    assert knn_graph(x, 4, "heat").T.tolist() == sorted([i, j] for i, j in pairs | {(j, i) for i, j in pairs})
    assert np.array_equal(knn_graph(1000 * x, 4, "heat"), knn_graph(x, 4))


@pytest.mark.parametrize("block_rows", [5, 64])
def test_the_product_prefers_long_rows(block_rows):
    x = np.random.default_rng(3).standard_normal((50, 6)).astype(np.float32)
    product = x.astype(np.float64) @ x.T.astype(np.float64)
    np.fill_diagonal(product, -np.inf)
    near = np.argsort(-product, axis=1)[:, :3]
    pairs = {(i, int(j)) for i, row in enumerate(near) for j in row}
    assert knn_graph(x, 3, "dot", block_rows).T.tolist() == sorted(
        [i, j] for i, j in pairs | {(j, i) for i, j in pairs}
    )


def test_bad_arguments_are_one_line():
    x = np.zeros((4, 2), dtype=np.float32)
    with pytest.raises(DataError, match=r"^--knn: n_neighbors=4 must be < n_nodes=4$"):
        knn_graph(x, 4)
    for knn, metric, said in ((-1, "dot", "--knn -1 must be >= 0"), (1, "manhattan", "--knn-metric manhattan must be")):
        with pytest.raises(SettingsError, match=f"^{said}"):
            finished_graph(Raw("x", "x", x), knn, metric)
