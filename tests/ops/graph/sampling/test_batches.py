"""Batches of an epoch: every node once, keyed draws, the edges that a step sees and those it does not."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import SettingsError
from ops.graph.adjacency import adjacency
from ops.graph.partition.metis import partition
from ops.graph.sampling.batches import Batch, batches_of_nodes, batches_of_parts, expected_edge_loss

NO_EDGES = np.empty((2, 0), dtype=np.int64)


def same(first, second):
    return len(first) == len(second) and all(
        np.array_equal(a.nodes, b.nodes) for a, b in zip(first, second, strict=True)
    )


def check_epoch(batches, n, inside):
    """Sorted int64 nodes, each of the n in one batch, no batch empty."""
    assert all(b.nodes.dtype == np.int64 and b.nodes.size and (np.diff(b.nodes) > 0).all() for b in batches)
    assert all(b.inside is inside for b in batches)
    assert np.array_equal(np.sort(np.concatenate([b.nodes for b in batches])), np.arange(n))


@given(n=st.integers(1, 200), size=st.integers(1, 250), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_node_batches(n, size, seed, epoch):
    batches = batches_of_nodes(n, size, seed, epoch)
    check_epoch(batches, n, inside=False)
    sizes = [b.nodes.size for b in batches]
    assert len(batches) == -(-n // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert same(batches, batches_of_nodes(n, size, seed, epoch))


@given(n=st.integers(1, 120), data=st.data(), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_part_batches(n, data, seed, epoch):
    parts = data.draw(st.integers(1, n))
    blocks = data.draw(st.integers(1, parts))
    part = partition(NO_EDGES, n, parts, "hash", seed)
    batches = batches_of_parts(part, blocks, seed, epoch)
    check_epoch(batches, n, inside=True)
    parts_of = [np.unique(part[b.nodes]) for b in batches]
    assert np.array_equal(np.sort(np.concatenate(parts_of)), np.arange(parts))  # no part is divided
    assert [p.size for p in parts_of[:-1]] == [blocks] * (len(parts_of) - 1)
    assert parts_of[-1].size == (parts % blocks or blocks)
    assert same(batches, batches_of_parts(part, blocks, seed, epoch))


def test_another_epoch_or_seed_gives_other_batches():
    part = partition(NO_EDGES, 60, 12, "hash", 0)
    for draw in (lambda *key: batches_of_nodes(60, 10, *key), lambda *key: batches_of_parts(part, 3, *key)):
        assert not same(draw(0, 0), draw(0, 1))
        assert not same(draw(0, 0), draw(1, 0))


def test_every_pair_of_nodes_meets_equally_often():
    """50 nodes in batches of 10: a pair shares a batch with the probability 9 / 49."""
    met = np.zeros((50, 50))
    for epoch in range(2000):
        for batch in batches_of_nodes(50, 10, 0, epoch):
            met[np.ix_(batch.nodes, batch.nodes)] += 1
    apart = met[~np.eye(50, dtype=bool)] / 2000
    assert apart.mean() == pytest.approx(9 / 49)
    assert abs(apart - 9 / 49).max() < 5 * np.sqrt(9 / 49 * 40 / 49 / 2000)


@pytest.mark.parametrize(("parts", "blocks"), [(5, 1), (6, 2), (8, 5), (5, 5), (1, 1)])
def test_expected_edge_loss_is_the_mean_over_the_draws(parts, blocks):
    graph, _ = planted_graph(200, 4, 2, degree=8, seed=1)
    source, target = graph.edge_index
    part = partition(graph.edge_index, 200, parts, "metis", 0)
    lost = []
    for epoch in range(3000):
        group = np.empty(200, dtype=np.int64)
        for i, batch in enumerate(batches_of_parts(part, blocks, 0, epoch)):
            group[batch.nodes] = i
        lost.append(np.mean(group[source] != group[target]))
    error = 5 * np.std(lost) / np.sqrt(len(lost)) + 1e-12
    assert expected_edge_loss(graph.edge_index, part, blocks) == pytest.approx(np.mean(lost), abs=error)


@given(n=st.integers(1, 30), e=st.integers(0, 80), seed=st.integers(0, 99), data=st.data())
def test_the_adjacency_of_a_batch(n, e, seed, data):
    a = adjacency(np.random.default_rng(seed).integers(0, n, (2, e)), n, self_loops=True)
    nodes = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))), dtype=np.int64)
    dense = a.toarray()
    rows, sub = Batch(nodes, inside=False).adjacency(a), Batch(nodes, inside=True).adjacency(a)
    assert isinstance(rows, sp.csr_array)
    assert isinstance(sub, sp.csr_array)
    assert rows.dtype == sub.dtype == np.float32
    assert np.array_equal(rows.toarray(), dense[nodes])
    assert np.array_equal(sub.toarray(), dense[np.ix_(nodes, nodes)])


def test_wrong_requests():
    with pytest.raises(SettingsError, match=r"^--batch-nodes: batch_nodes=0 must be >= 1$"):
        batches_of_nodes(5, 0, 0, 0)
    part = np.array([0, 1, 2])
    for blocks in (0, 4):
        for call in (lambda q: batches_of_parts(part, q, 0, 0), lambda q: expected_edge_loss(NO_EDGES, part, q)):
            with pytest.raises(SettingsError, match=rf"^--blocks: blocks={blocks} must be in \[1, 3\]"):
                call(blocks)
