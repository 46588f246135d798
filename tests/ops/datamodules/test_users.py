"""Users of a heterogeneous graph as a run gets them: what is hidden stays hidden, whatever it says."""

from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from experiments import experiment_of
from hetero_world import write_graph

from ops.api import Experiment
from ops.config.settings import LaunchSettings
from ops.data.hetero_load import load_hetero
from ops.data.splits import split
from ops.datamodules import user_rows as user_rows_module
from ops.datamodules.user_rows import user_rows
from ops.datamodules.users import UserData
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError, SettingsError
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from trainers import hgt

users = UserData()
SPEC = "planted:users=120,notes=70,clusters=4,mean_edges=12"


@pytest.fixture(scope="module")
def planted():
    graph, groups = load_hetero(SPEC)
    return graph, groups


def loaded(folder, graph, groups, **words):
    """What `users.load` gives for the graph as tables."""
    home = folder / f"{len(list(folder.glob('*')))}"
    write_graph(graph, home / "graph", 1, groups)
    launch = LaunchSettings(dataset=str(home / "graph"), out=str(home / "runs"))
    return users.load(launch, hgt.Settings(n_clusters=4, **words))


def test_hidden_pairs_are_those_of_the_split_in_the_numbers_of_the_parts(planted, tmp_path):
    graph, groups = planted
    data, _, kept = loaded(tmp_path, graph, groups, parts=3)
    hidden = split(graph)
    client = data.connect()
    names = [client.ids(kind) for kind in ("user", "note")]
    for pairs, rows in ((kept.valid, hidden.valid), (kept.test, hidden.test)):
        here = {(names[0][u], names[1][n]) for u, n in pairs.T}
        assert here == {(graph.nodes["user"].ids[u], graph.nodes["note"].ids[n]) for u, n in rows}
    by_id = dict(zip(graph.nodes["user"].ids, groups["user"], strict=True))
    assert np.array_equal(kept.labels, [by_id[i] for i in data.ids])
    rows = user_rows(data, kept, ProcessGroup())
    assert np.array_equal(rows.x, users.features(data))
    trained = {(names[0][u], names[1][n]) for u, n in np.argwhere(rows.train.toarray() > 0)}
    assert len(trained) == rows.train.nnz == hidden.counts["train pairs"]
    assert {tuple(pair) for pair in np.stack(rows.test).T} == {tuple(pair) for pair in kept.test.T}
    assert not trained & {(names[0][u], names[1][n]) for u, n in np.hstack([kept.valid, kept.test]).T}


def test_the_fixed_space_is_users_and_users_at_two_steps_whatever_fits_the_memory(planted, tmp_path, monkeypatch):
    data, _, kept = loaded(tmp_path, *planted, parts=2)
    rows = user_rows(data, kept, ProcessGroup())
    b = rows.train.toarray()
    of_user, of_note = (1 / np.sqrt(np.maximum(b.sum(axis), 1)) for axis in (1, 0))
    step = of_user[:, None] * b * of_note
    assert np.allclose(rows.space, (rows.x + step @ step.T @ rows.x) / 2, atol=1e-5)
    monkeypatch.setattr(user_rows_module, "SUMS", 8 * 3 * b.shape[1])  # three features at once
    again = user_rows(data, kept, ProcessGroup())
    assert again.x.shape[1] > 3
    assert np.array_equal(again.space, rows.space)


@pytest.mark.parametrize("empty", [("valid",), ("test",), ("valid", "test")])
def test_where_nobody_has_hidden_notes_nothing_is_trained(planted, tmp_path, monkeypatch, empty):
    nobody = dict.fromkeys(empty, np.empty((0, 2), np.int64))
    monkeypatch.setattr("ops.datamodules.users.split", lambda *args, **words: replace(split(*args, **words), **nobody))
    what = {"valid": "validation", "test": "test"}[empty[0]]
    with pytest.raises(DataError, match=f"no user has both training and hidden notes for the {what}"):
        loaded(tmp_path, *planted)


def rewired(graph, cut, rng):
    """The graph whose pairs from `cut` on lead to other notes, which the user has no edge to."""
    taken = {pair for e in graph.edges.values() for pair in zip(e.src.tolist(), e.dst.tolist(), strict=True)}
    edges = {}
    for relation, local in graph.edges.items():
        dst = local.dst.copy()
        for i in np.flatnonzero(local.time >= cut):
            free = [n for n in rng.permutation(70).tolist() if (int(local.src[i]), n) not in taken]
            dst[i] = free[0]
            taken.add((int(local.src[i]), free[0]))
        order = np.lexsort((dst, local.src))
        edges[relation] = replace(local, dst=dst).take(order)
    return replace(graph, edges=edges)


def test_what_is_hidden_does_not_reach_what_a_method_gets(planted, tmp_path):
    graph, groups = planted
    cut = split(graph).cuts[0]
    one, other = (rewired(graph, cut, np.random.default_rng(seed)) for seed in (1, 2))
    result = [loaded(tmp_path, g, groups, parts=2) for g in (one, other)]
    assert one.digest() != other.digest()
    assert split(one).cuts == split(other).cuts
    assert not np.array_equal(result[0][2].test, result[1][2].test)
    assert result[0][0].digest() == result[1][0].digest()


def test_groups_alone_change_nothing_at_all(planted, tmp_path):
    graph, groups = planted
    shuffled = {kind: np.random.default_rng(1).permutation(local) for kind, local in groups.items()}
    result = [loaded(tmp_path, graph, local)[0].digest() for local in (groups, shuffled, None)]
    assert len(set(result)) == 1


def test_another_cut_into_parts_is_another_run(planted, tmp_path):
    graph, groups = planted
    result = [loaded(tmp_path, graph, groups, **w)[0].digest()
             for w in ({"parts": 1}, {"parts": 2}, {"parts": 2, "partition": "hash"})]  # fmt: skip
    assert len(set(result)) == 3


def of_parts(folder, graph, parts, **words):
    """What `users.load` gives for the graph partitioned before, by the ids of its nodes: edges by relation, hidden."""
    place = folder / f"before-{parts}"
    if not (place / "manifest.json").is_file():
        partition_in_memory(graph, place, PartitionRequest(parts, "hash"))
    data, _, hidden = users.load(LaunchSettings(dataset=str(place), out=str(folder / "runs")),
                                     hgt.Settings(n_clusters=4, **words))  # fmt: skip
    client = data.connect()
    ids = {kind: client.ids(kind) for kind in data.manifest.nodes}
    edges = {}
    for r in data.manifest.edges:
        csrs = [client.call("edges", {part: (r,)})[part] for part in range(parts)]
        rows = np.repeat(np.arange(len(ids[r[2]])), np.concatenate([np.diff(first) for first, _ in csrs]))
        edges[r] = set(zip(ids[r[0]][np.concatenate([to for _, to in csrs])], ids[r[2]][rows], strict=True))
    assert hidden is None or hidden.labels is None
    pairs = () if hidden is None else (hidden.valid, hidden.test)
    return data, edges, [set(zip(ids["user"][p[0]], ids["note"][p[1]], strict=True)) for p in pairs]


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("how", ["time", "user"])
def test_of_a_graph_partitioned_before_the_same_is_hidden_whatever_the_number_of_parts(planted, tmp_path, how, timed):
    graph = planted[0] if timed else replace(
        planted[0], edges={r: replace(e, time=None) for r, e in planted[0].edges.items()}
    )  # fmt: skip
    every = [of_parts(tmp_path, graph, parts, holdout=how) for parts in (1, 3)]
    assert every[0][1:] == every[1][1:]
    data, edges, pairs = every[1]
    assert {len(p) > 20 for p in pairs} == {True}
    assert not pairs[0] & pairs[1]
    for r, existing in edges.items():
        assert (r[0] != "user") or not existing & (pairs[0] | pairs[1])
        assert {(b, a) for a, b in existing} == edges[data.manifest.reverse(r)]
    ids = {kind: nodes.ids for kind, nodes in graph.nodes.items()}
    hidden = split(graph, how)
    if timed:  # else another order of the pairs is drawn
        for local, of_tables in zip(pairs, (hidden.valid, hidden.test), strict=True):
            assert local == set(zip(ids["user"][of_tables[:, 0]], ids["note"][of_tables[:, 1]], strict=True))
        for r, e in hidden.train.edges.items():
            assert edges[r] == set(zip(ids[r[0]][e.src], ids[r[2]][e.dst], strict=True))
    assert len(pairs[1]) == pytest.approx(hidden.counts["test pairs"], rel=0.05)
    assert f"hidden {hidden.hidden}: {len(pairs[0]):,} pairs for validation" in data.notes[-2]
    assert data.manifest.partitioner["method"] == "hash"


def test_nothing_is_hidden_of_a_graph_partitioned_before_where_none_is_asked_for(planted, tmp_path):
    data, edges, pairs = of_parts(tmp_path, planted[0], 2, holdout="none")
    assert pairs == []
    assert sum(len(edges[r]) for r in data.manifest.forward) == sum(e.count for e in planted[0].edges.values())
    assert "partitioned before and --holdout is none: nothing is hidden, recall cannot be told" in data.notes[-1]
    judge = users.judge(Mock(Experiment, hidden=None, k=4, data=data), ProcessGroup())
    clusters, rows = np.arange(data.n_rows) % 4, {"embedding": np.eye(data.n_rows, 5, dtype=np.float32)}
    assert {*judge(clusters, {})} < {*judge(clusters, rows)}, "what seeds agree on has no embedding"
    with pytest.raises(SettingsError, match="--holdout none: is for a graph that was partitioned before"):
        loaded(tmp_path, *planted, holdout="none")


def test_parts_are_made_once_and_a_damaged_one_is_named_before_it_trains(planted, tmp_path):
    graph, groups = planted
    write_graph(graph, tmp_path / "graph", 1, groups)
    launch = LaunchSettings(dataset=str(tmp_path / "graph"), out=str(tmp_path / "runs"))
    _, _, kept = users.load(launch, hgt.Settings(n_clusters=4, parts=3))
    path = next((tmp_path / "runs" / "partitions").glob("*/part-00001/user__follow_note__note.indices.npy"))
    home = path.stat().st_mtime_ns
    again, _, kept_again = users.load(launch, hgt.Settings(n_clusters=4, parts=3))
    assert path.stat().st_mtime_ns == home
    assert np.array_equal(kept.labels, kept_again.labels)
    assert np.array_equal(kept.test, kept_again.test)
    experiment = experiment_of(hgt.METHOD, hgt.Settings(n_clusters=4), again)
    with users.serve(experiment, None) as served:
        assert served is again
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"part-00001/user__follow_note__note\.indices\.npy: is damaged \(its checksum"):
        users.serve(experiment, None)


def test_what_cannot_be_is_one_line(planted, tmp_path):
    with pytest.raises(SettingsError, match="likes: no such relation; the graph has: comment_note, follow_note"):
        loaded(tmp_path, *planted, label_relations="likes")
    with pytest.raises(DataError, match="--parts 500: the graph has 190 nodes; parts must be <= nodes"):
        loaded(tmp_path, *planted, parts=500)
    with pytest.raises(SettingsError, match="--n-clusters auto: is for attributed graphs"):
        users.choose_k(loaded(tmp_path, *planted)[0])
