"""Samples are neighbourhoods of the graph, keyed, the same for any partition, and without the edges to predict."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_hetero import FOLLOW, SHARE, small_graph, small_parts

from ops.graph.kernels.draws import renumber
from ops.graph.partition.manifest import turned
from ops.graph.partition.shards import open_shard
from ops.graph.sampling.client import prefetched

KEY = 0, 1, 2, 3
MODES = ["replace", "distinct", "padded"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def graphs(folder):
    return {parts: small_parts(folder, parts) for parts in (1, 3)}


def edges_of(graph):
    """Every stored edge as (source, destination) by relation."""
    stored = {r: set() for r in graph.manifest.edges}
    for part in range(graph.parts):
        for relation, csr in open_shard(Path(graph.place), graph.manifest, part).relations.items():
            rows = np.repeat(graph.part_rows(relation[2], part), np.diff(csr.indptr))
            stored[relation] |= set(zip(csr.indices.tolist(), rows.tolist(), strict=True))
    return stored


def drawn_edges(sample):
    """Every drawn edge as (hop, relation, source, destination), repeats kept."""
    for hop, blocks in enumerate(sample.blocks):
        for relation, (places, mask) in blocks.items():
            for row, column in zip(*np.nonzero(mask.numpy()), strict=True):
                source = sample.nodes[hop + 1][relation[0]][places[row, column]]
                yield hop, relation, int(source), int(sample.nodes[hop][relation[2]][row])


@pytest.mark.parametrize("mode", MODES)
def test_drawn_edges_are_edges_and_every_depth_begins_with_the_one_before(graphs, mode):
    client = graphs[3].connect()
    stored = edges_of(graphs[3])
    sampled = client.sample(
        {"user": np.arange(20), "note": np.arange(5, 9)}, [4, 3], KEY, mode, featured=["user", "note"]
    )
    assert all((s, d) in stored[r] for _, r, s, d in drawn_edges(sampled))
    for before, after in zip(sampled.nodes, sampled.nodes[1:], strict=False):
        for kind, ids in before.items():
            assert np.array_equal(after[kind][: len(ids)], ids)
            assert len(np.unique(after[kind])) == len(after[kind])
    assert {r for blocks in sampled.blocks for r in blocks} == {FOLLOW, SHARE, turned(FOLLOW), turned(SHARE)}
    assert sampled.features["user"].shape == (len(sampled.nodes[-1]["user"]), 5)


def test_distinct_takes_every_neighbour_where_there_are_few_and_no_one_twice(graphs):
    client = graphs[1].connect()
    stored = edges_of(graphs[1])
    everyone = {"user": np.arange(60)}
    for width in (3, 64):
        drawn = list(drawn_edges(client.sample(everyone, [width], KEY, "distinct")))
        assert len(set(drawn)) == len(drawn)
        for relation in (turned(FOLLOW), turned(SHARE)):
            for user in range(60):
                have = sum(d == user for _, d in stored[relation])
                assert sum(r == relation and d == user for _, r, _, d in drawn) == min(width, have)


def test_padded_repeats_circularly_and_leaves_no_hole_but_at_nodes_without_edges(graphs):
    client = graphs[1].connect()
    sampled = client.sample({"user": np.arange(60)}, [64], KEY, "padded")
    places, mask = sampled.blocks[0][turned(FOLLOW)]
    degree = np.array([sum(d == u for _, d in edges_of(graphs[1])[turned(FOLLOW)]) for u in range(60)])
    assert np.array_equal(mask.all(1).numpy(), degree > 0)
    assert not mask[degree == 0].any()
    for user in np.flatnonzero(degree):
        assert np.array_equal(places[user, : 64 - degree[user]], places[user, degree[user] :])


def original(graph, sample):
    """The drawn edges by original ids."""
    ids = {kind: graph.connect().ids(kind) for kind in ("user", "note")}
    return sorted((hop, r, str(ids[r[0]][s]), str(ids[r[2]][d])) for hop, r, s, d in drawn_edges(sample))


def test_the_key_decides_and_the_order_of_the_roots_does_not(graphs):
    client = graphs[3].connect()
    roots = np.arange(3, 33)
    first = sorted(drawn_edges(client.sample({"user": roots}, [3, 2], KEY, "replace")))
    assert sorted(drawn_edges(client.sample({"user": roots[::-1]}, [3, 2], KEY, "replace"))) == first
    half = sorted(e for e in first if e[0] == 0 and e[3] < 10)
    assert (
        sorted(e for e in drawn_edges(client.sample({"user": roots[:7]}, [3, 2], KEY, "replace")) if e[0] == 0) == half
    )
    for other in [(1, 1, 2, 3), (0, 0, 2, 3), (0, 1, 0, 3), (0, 1, 2, 0)]:
        assert sorted(drawn_edges(client.sample({"user": roots}, [3, 2], other, "replace"))) != first


def test_all_neighbours_are_the_same_whatever_the_partition(graphs):
    sampled = []
    for graph in graphs.values():
        rows = np.argsort(graph.connect().ids("user"))
        sampled.append(original(graph, graph.connect().sample({"user": rows[:10]}, [64, 64], KEY)))
    assert sampled[0] == sampled[1]


def test_draws_are_uniform(graphs):
    client = graphs[1].connect()
    user, near = max(
        ((u, [s for s, d in edges_of(graphs[1])[turned(FOLLOW)] if d == u]) for u in range(60)), key=lambda e: len(e[1])
    )
    for mode in ("replace", "distinct"):
        counts = dict.fromkeys(near, 0)
        for number in range(600):
            drawn = client.sample({"user": np.array([user])}, [3], (0, 0, 0, number), mode)
            for _, relation, source, _ in drawn_edges(drawn):
                if relation == turned(FOLLOW):
                    counts[source] += 1
        expected = 1800 / len(near)
        assert sum(counts.values()) == 1800
        chi = sum((c - expected) ** 2 / expected for c in counts.values())
        assert chi < len(near) + 5 * np.sqrt(2 * len(near))


@pytest.mark.parametrize("parts", [1, 3])
def test_no_edge_between_the_ends_of_a_pair_is_in_its_batch(graphs, parts):
    client = graphs[parts].connect()
    pairs = np.array(sorted(edges_of(graphs[parts])[FOLLOW]))[::7].T
    roots = {"user": np.unique(pairs[0]), "note": np.unique(pairs[1])}
    planted = {tuple(p) for p in pairs.T.tolist()}

    def leaks(sample):
        return [e for e in drawn_edges(sample) if (e[2:] if e[1][0] == "user" else e[:1:-1]) in planted]

    assert {hop for hop, *_ in leaks(client.sample(roots, [64, 64], KEY))} == {0, 1}
    assert any(e[1] in (SHARE, turned(SHARE)) for e in leaks(client.sample(roots, [64, 64], KEY)))
    clean = client.sample(roots, [64, 64], KEY, without=(FOLLOW, pairs))
    assert leaks(clean) == []
    assert clean.edges > 100


def test_seed_edges_are_every_edge_once_an_epoch_in_another_order_each(graphs):
    client = graphs[3].connect()
    orders = []
    for epoch in (0, 1):
        seen = []
        for part, sizes in enumerate(client.sizes()):
            total = sizes[FOLLOW] + sizes[SHARE]
            for number in range(-(-total // 16)):
                pairs, which = client.seed_edges((FOLLOW, SHARE), part, (5, epoch, number), 16)
                seen += [((FOLLOW, SHARE)[w], s, d) for w, (s, d) in zip(which, pairs.T.tolist(), strict=True)]
        stored = edges_of(graphs[3])
        assert sorted(seen) == sorted((r, s, d) for r in (FOLLOW, SHARE) for s, d in stored[r])
        orders.append(seen)
    assert orders[0] != orders[1]


def test_features_are_the_nodes_own(graphs):
    graph = small_graph()
    for parts in graphs.values():
        client = parts.connect()
        ids = np.array([7, 0, 7, 59])
        rows = client.ids("user")[ids] - 1000
        assert np.array_equal(client.features("user", ids), graph.nodes["user"].x[rows])


@given(st.lists(st.integers(0, 50), unique=True), st.lists(st.tuples(st.integers(0, 50), st.booleans())))
def test_renumber_lists_known_ids_first_and_new_ones_as_met(listed, asked):
    ids = np.array([i for i, _ in asked], dtype=np.int64)
    mask = np.array([m for _, m in asked], dtype=bool)
    places, new = renumber(np.array(listed, dtype=np.int64), ids, mask)
    expected = list(listed)
    for i, m in asked:
        if m and i not in expected:
            expected.append(i)
    assert [*listed, *new.tolist()] == expected
    assert all(expected[p] == i for p, (i, m) in zip(places, asked, strict=True) if m)


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_prefetched_keeps_the_order_and_passes_errors_on(ahead):
    assert list(prefetched([lambda i=i: i for i in range(7)], ahead)) == list(range(7))

    def fails():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(prefetched([fails], ahead))
