"""Users of a heterogeneous graph as a run gets them: what is hidden stays hidden, whatever it says."""

from dataclasses import replace

import numpy as np
import pytest
from experiments import experiment_of
from hetero_world import write_graph

from ops.config.settings import LaunchSettings
from ops.data.hetero_load import load_hetero
from ops.data.splits import split
from ops.datamodules.user_rows import user_rows
from ops.datamodules.users import UserData
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError, SettingsError
from trainers import hgt

users = UserData()
SPEC = "planted:users=120,notes=70,clusters=4,mean_edges=12"


@pytest.fixture(scope="module")
def planted():
    graph, groups = load_hetero(SPEC)
    return graph, groups


def loaded(folder, graph, groups, **words):
    """What `users.load` gives for the graph as tables."""
    made = folder / f"{len(list(folder.glob('*')))}"
    write_graph(graph, made / "graph", 1, groups)
    launch = LaunchSettings(dataset=str(made / "graph"), out=str(made / "runs"))
    return users.load(launch, hgt.Settings(n_clusters=4, **words))


def test_hidden_pairs_are_those_of_the_split_in_the_numbers_of_the_parts(planted, tmp_path):
    graph, groups = planted
    data, truth, held = loaded(tmp_path, graph, groups, parts=3)
    hidden = split(graph)
    client = data.connect()
    names = [client.ids(kind) for kind in ("user", "note")]
    for pairs, rows in ((held.valid, hidden.valid), (held.test, hidden.test)):
        here = {(names[0][u], names[1][n]) for u, n in pairs.T}
        assert here == {(graph.nodes["user"].ids[u], graph.nodes["note"].ids[n]) for u, n in rows}
    by_id = dict(zip(graph.nodes["user"].ids, groups["user"], strict=True))
    assert np.array_equal(truth, [by_id[i] for i in data.ids])
    rows = user_rows(data, held, ProcessGroup())
    assert np.array_equal(rows.x, users.features(data))
    trained = {(names[0][u], names[1][n]) for u, n in np.argwhere(rows.train.toarray() > 0)}
    assert len(trained) == rows.train.nnz == hidden.counts["train pairs"]
    assert {tuple(pair) for pair in np.stack(rows.test).T} == {tuple(pair) for pair in held.test.T}
    assert not trained & {(names[0][u], names[1][n]) for u, n in np.hstack([held.valid, held.test]).T}


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
    for relation, own in graph.edges.items():
        dst = own.dst.copy()
        for i in np.flatnonzero(own.time >= cut):
            free = [n for n in rng.permutation(70).tolist() if (int(own.src[i]), n) not in taken]
            dst[i] = free[0]
            taken.add((int(own.src[i]), free[0]))
        order = np.lexsort((dst, own.src))
        edges[relation] = replace(own, dst=dst).take(order)
    return replace(graph, edges=edges)


def test_what_is_hidden_does_not_reach_what_a_method_gets(planted, tmp_path):
    graph, groups = planted
    cut = split(graph).cuts[0]
    one, other = (rewired(graph, cut, np.random.default_rng(seed)) for seed in (1, 2))
    found = [loaded(tmp_path, g, groups, parts=2) for g in (one, other)]
    assert one.digest() != other.digest()
    assert split(one).cuts == split(other).cuts
    assert not np.array_equal(found[0][2].test, found[1][2].test)
    assert found[0][0].digest() == found[1][0].digest()


def test_groups_alone_change_nothing_at_all(planted, tmp_path):
    graph, groups = planted
    shuffled = {kind: np.random.default_rng(1).permutation(own) for kind, own in groups.items()}
    found = [loaded(tmp_path, graph, own)[0].digest() for own in (groups, shuffled, None)]
    assert len(set(found)) == 1


def test_another_cut_into_parts_is_another_run(planted, tmp_path):
    graph, groups = planted
    found = [loaded(tmp_path, graph, groups, **w)[0].digest()
             for w in ({"parts": 1}, {"parts": 2}, {"parts": 2, "partition": "hash"})]  # fmt: skip
    assert len(set(found)) == 3


def test_a_folder_of_parts_is_taken_as_it_is(planted, tmp_path):
    data, _, _ = loaded(tmp_path, *planted, parts=2)
    again, truth, held = users.load(LaunchSettings(dataset=data.place), hgt.Settings(n_clusters=4))
    assert (truth, held) == (None, None)
    assert again.manifest.digest == data.manifest.digest
    assert again.labels == data.labels
    assert "the graph was partitioned before: nothing is hidden, recall cannot be told" in again.notes


def test_parts_are_made_once_and_a_damaged_one_is_named_before_it_trains(planted, tmp_path):
    graph, groups = planted
    write_graph(graph, tmp_path / "graph", 1, groups)
    launch = LaunchSettings(dataset=str(tmp_path / "graph"), out=str(tmp_path / "runs"))
    _, truth, held = users.load(launch, hgt.Settings(n_clusters=4, parts=3))
    path = next((tmp_path / "runs" / "partitions").glob("*/part-00001/user__follow_note__note.indices.npy"))
    made = path.stat().st_mtime_ns
    again, truth_again, held_again = users.load(launch, hgt.Settings(n_clusters=4, parts=3))
    assert path.stat().st_mtime_ns == made
    assert np.array_equal(truth, truth_again)
    assert np.array_equal(held.test, held_again.test)
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
