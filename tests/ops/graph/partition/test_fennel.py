"""Fennel: planted groups are found, loads stay within their capacity, the same seed gives the same parts."""

import numpy as np
import pytest
import scipy.sparse as sp

from ops.data.synthetic.planted_partition import planted_graph
from ops.graph.partition.assign import hash_parts
from ops.graph.partition.fennel import SLACK, fennel_stream, fennel_waves, part_dtype, place_block, weigh


def graph(n=3000, groups=8):
    planted, _ = planted_graph(n, groups, 4, seed=1)
    a = sp.csr_array((np.ones(planted.edge_index.shape[1], dtype=np.int8), tuple(planted.edge_index)), shape=(n, n))
    return a.indptr.astype(np.int64), a.indices.astype(np.int32)


def cut(part, indptr, indices):
    return float(np.mean(np.repeat(part, np.diff(indptr)) != part[indices]))


def stream(indptr, indices, parts, seed=0, ends=None):
    ends = np.array([indptr.size - 1]) if ends is None else ends
    return fennel_stream(indptr, indices, ends, parts, seed)


def waves(indptr, indices, parts, seed=0, start=None, turn=0, kept=lambda turn, part: None, blocks=16):
    n = indptr.size - 1
    bounds, ends = np.arange(blocks + 1) * n // blocks, np.array([n])

    def place(now, wave, part, load, rooms, mean):
        placed = []
        for b, room in zip(wave, rooms, strict=True):
            a, e = bounds[b], bounds[b + 1]
            rows, links = indptr[a : e + 1] - indptr[a], indices[indptr[a] : indptr[e]]
            placed.append(place_block(rows, links, int(a), part.copy(), ends, load, room, mean, seed, now))
        return placed

    first = hash_parts([n], parts, seed).astype(part_dtype(parts)) if start is None else start
    return fennel_waves(first, turn, np.diff(indptr), bounds, ends, parts, place, kept)


@pytest.mark.parametrize("form", [stream, waves])
def test_few_edges_are_cut_and_parts_are_even(form):
    indptr, indices = graph()
    part = form(indptr, indices, 4)
    assert cut(part, indptr, indices) < 0.6 * cut(hash_parts([3000], 4, 0), indptr, indices)
    load = np.bincount(part, weights=np.diff(indptr) + 1.0, minlength=4)
    assert load.max() <= SLACK * load.mean() + np.diff(indptr).max() + 1
    assert np.array_equal(part, form(indptr, indices, 4))
    assert not np.array_equal(part, form(indptr, indices, 4, seed=1))


def test_every_node_type_is_even():
    indptr, indices = graph()
    part = stream(indptr, indices, 4, ends=np.array([1000, 3000]))
    for rows_of_type in (slice(0, 1000), slice(1000, 3000)):
        load = np.bincount(part[rows_of_type], weights=np.diff(indptr)[rows_of_type] + 1.0, minlength=4)
        assert load.max() <= SLACK * load.mean() + np.diff(indptr).max() + 1


def test_waves_that_go_on_from_a_kept_round_end_alike():
    indptr, indices = graph(1500)
    rounds = {}
    whole = waves(indptr, indices, 3, kept=lambda turn, part: rounds.update({turn: part.copy()}))
    assert len(rounds) > 2
    for turn in (1, max(rounds)):
        assert np.array_equal(whole, waves(indptr, indices, 3, start=rounds[turn], turn=turn))


def test_a_hub_that_fits_nowhere_is_placed_all_the_same():
    n = 30
    rows = np.r_[np.zeros(n - 1, dtype=int), np.arange(1, n)]
    a = sp.csr_array((np.ones(2 * n - 2), (rows, rows[::-1])), shape=(n, n))
    part = stream(a.indptr.astype(np.int64), a.indices.astype(np.int32), 10)
    assert part.min() >= 0
    assert part.max() < 10


def test_loads_count_degrees_and_nodes_by_type():
    loads = weigh(np.array([0, 1, 1, -1]), np.array([3, 2, 0, 9]), np.array([2, 4]), 2)
    assert loads.tolist() == [[4, 3], [0, 1]]


@pytest.mark.parametrize(("sizes", "parts"), [([10, 3], 4), ([2, 2, 2], 6), ([7], 7)])
def test_hash_parts_are_as_even_as_can_be(sizes, parts):
    part = hash_parts(sizes, parts, 0)
    assert np.ptp(np.bincount(part, minlength=parts)) <= 1
    assert np.ptp(np.bincount(part[: sizes[0]], minlength=parts)) <= 1
