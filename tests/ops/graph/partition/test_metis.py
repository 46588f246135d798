"""Parts of a graph: every node in one, none empty, the same for a seed, and METIS cuts less than the hash."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, SettingsError
from ops.graph.partition.metis import cut_share, partition

NO_EDGES = np.empty((2, 0), dtype=np.int64)


def symmetric(rng, n, e):
    """Random edges [2, 2e] in both directions, self loops and repeats among them."""
    edges = rng.integers(0, n, (2, e))
    return np.concatenate([edges, edges[::-1]], axis=1)


@st.composite
def graphs(draw, most=40):
    n = draw(st.integers(1, most))
    edges = symmetric(np.random.default_rng(draw(st.integers(0, 999))), n, draw(st.integers(0, 3 * n)))
    return edges, n, draw(st.integers(1, n))


@given(graph=graphs(), method=st.sampled_from(["metis", "hash"]), seed=st.integers(0, 2**31))
def test_every_node_has_a_part_and_every_part_a_node(graph, method, seed):
    edges, n, parts = graph
    part = partition(edges, n, parts, method, seed)
    assert part.dtype == np.int64
    assert part.shape == (n,)
    assert np.array_equal(np.unique(part), np.arange(parts))
    assert np.array_equal(part, partition(edges, n, parts, method, seed))


@given(graph=graphs(), method=st.sampled_from(["metis", "hash"]), seed=st.integers(0, 99))
def test_order_repeats_and_self_loops_of_edges_change_nothing(graph, method, seed):
    edges, n, parts = graph
    rng = np.random.default_rng(seed)
    other = np.concatenate([edges, edges[:, ::2], edges[::-1, ::2], [[0], [0]]], axis=1)
    other = other[:, rng.permutation(other.shape[1])]
    assert np.array_equal(partition(edges, n, parts, method, seed), partition(other, n, parts, method, seed))


@pytest.mark.parametrize("method", ["metis", "hash"])
def test_another_seed_gives_other_parts(method):
    edges = symmetric(np.random.default_rng(0), 300, 900)
    first, second = (partition(edges, 300, 6, method, seed) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_hash_does_not_follow_a_period_of_the_ids():
    """`id % 4` would put every class of period 4 into a part of its own."""
    part = partition(NO_EDGES, 400, 4, "hash", 0)
    together = np.zeros((4, 4))
    np.add.at(together, (part, np.arange(400) % 4), 1)
    assert together.max() < 50  # 25 on average, 100 if it did


@pytest.mark.parametrize("parts", [4, 20])
def test_metis_cuts_far_less_than_the_hash_and_stays_balanced(parts):
    graph, _ = planted_graph(2000, 20, 4, degree=10, mixing=0.1, seed=0)
    metis, hashed = (partition(graph.edge_index, 2000, parts, m, 0) for m in ("metis", "hash"))
    assert cut_share(graph.edge_index, metis) < 0.3
    assert cut_share(graph.edge_index, hashed) == pytest.approx(1 - 1 / parts, abs=0.03)
    assert np.bincount(metis).max() <= 1.05 * 2000 / parts + 1


def test_cut_share_counts_undirected_edges_without_loops():
    part = np.array([0, 0, 1])
    both = np.array([[0, 1, 1, 2, 0, 2, 2], [1, 0, 2, 1, 0, 2, 2]])
    assert cut_share(both, part) == 0.5
    assert cut_share(np.array([[0, 1], [1, 2]]), part) == 0.5  # one direction each
    assert cut_share(NO_EDGES, part) == 0
    assert cut_share(np.array([[2], [2]]), part) == 0


def test_wrong_requests():
    with pytest.raises(SettingsError, match=r"^--parts: parts=0 must be >= 1$"):
        partition(NO_EDGES, 3, 0, "metis", 0)
    with pytest.raises(DataError, match=r"^--parts: parts=4 must be <= n_nodes=3$"):
        partition(NO_EDGES, 3, 4, "hash", 0)


def test_edges_of_one_direction_never_reach_metis():
    with pytest.raises(ValueError, match="both directions of every edge"):
        partition(np.array([[0, 1], [1, 2]]), 3, 2, "metis", 0)
