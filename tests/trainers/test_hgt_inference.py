"""Users placed by a stored HGT: known ones as training placed them, new ones by their edges, others by features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gloo import run_in_processes
from small_hetero import small_parts
from users_small import METHODS, Worker, again, parts_in, settings_of

from ops.api import PlainRun
from ops.data.hetero_load import load_hetero
from ops.data.io.inductive_batch import Links, NewRows, links, pack_ids, unpack_ids, ways
from ops.graph.partition.manifest import read_manifest
from ops.graph.sampling.dataset import PartitionedGraph
from trainers import hgt
from trainers.hgt.inference import draw, embed

ALL = "40,40"  # more than any node has


def one(x, numbers, relation, *, rows=None):
    """Users [n F] that each have the same edges."""
    n = len(x)
    pairs = np.repeat(np.arange(n), len(numbers)), np.tile(numbers, n)
    return NewRows("user", np.full(n, -1) if rows is None else rows, x, {relation: links(*pairs, n)})


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Parts, settings and the result of a short training over whole neighbourhoods."""
    data = parts_in(tmp_path_factory.mktemp("hgt"))
    settings = settings_of("hgt", fan_out=ALL, epochs=2, batch=256)
    return data, settings, hgt.train(settings, data, PlainRun(3))


def test_known_users_are_placed_as_in_training(world):
    data, settings, result = world
    placed = hgt.predict(result.model, settings.model_dump(), again(data, np.arange(data.n_rows)))
    np.testing.assert_allclose(placed.vector, result.embedding, atol=1e-5)
    np.testing.assert_array_equal(placed.cluster, result.assignment)
    np.testing.assert_allclose(placed.confidence, result.confidence, atol=1e-4)
    assert placed.evidence.all()


@pytest.mark.parametrize(
    "more",
    [
        {"fan_out": "40", "cluster": "som", "som_rows": 3, "som_columns": 3, "norm": "layer"},
        {"fan_out": "40,40,40", "id_buckets": 40, "kmeans": "euclidean"},
    ],
)
def test_other_networks_and_clusters_agree_with_training_too(tmp_path, more):
    data = parts_in(tmp_path, 2)
    settings = settings_of("hgt", epochs=1, batch=512, **more)
    result = hgt.train(settings, data, PlainRun(1))
    rows = np.arange(0, data.n_rows, 3)
    placed = hgt.predict(result.model, settings.model_dump(), again(data, rows))
    np.testing.assert_allclose(placed.vector, result.embedding[rows], atol=1e-5)
    np.testing.assert_array_equal(placed.cluster, result.assignment[rows])


def test_nodes_of_one_type_agree_with_training_too(tmp_path):
    graph, _ = load_hetero("planted:nodes=60,clusters=3")
    place = tmp_path / "parts-2"
    small_parts(tmp_path, 2, graph)
    data = PartitionedGraph("planted", str(place), read_manifest(place), tuple(graph.edges))
    settings = settings_of("hgt", epochs=1, batch=512, fan_out=ALL, n_clusters=3)
    result = hgt.train(settings, data, PlainRun(1))
    placed = hgt.predict(result.model, settings.model_dump(), again(data, np.arange(60)))
    np.testing.assert_allclose(placed.vector, result.embedding, atol=1e-5)
    np.testing.assert_array_equal(result.more["others"], result.embedding)


def test_pieces_of_the_rows_are_placed_alike(world):
    data, settings, result = world
    new = again(data, np.arange(40))
    whole = hgt.predict(result.model, settings.model_dump(), new)
    piece = hgt.predict(result.model, settings.model_dump(), new.take(17, 30))
    np.testing.assert_allclose(piece.vector, whole.vector[17:30], atol=1e-6)
    np.testing.assert_array_equal(piece.edges, whole.edges[17:30])


def test_without_edges_features_tell_and_without_both_nothing_does(tmp_path):
    data = parts_in(tmp_path, 2)
    x = np.ones((3, data.n_features), np.float32)
    settings = settings_of("hgt", epochs=1, batch=512)
    model = hgt.train(settings, data, PlainRun(0)).model
    relation = ("note", "rev_follow_note", "user")
    placed = hgt.predict(model, settings.model_dump(), one(x, np.empty(0, np.int64), relation))
    assert placed.evidence.all()
    assert (placed.confidence > 0).all()
    bare = {k: v for k, v in model.items() if k != "input.user.weight"}
    nothing = hgt.predict(bare, settings.model_dump(), one(x, np.empty(0, np.int64), relation))
    assert not nothing.evidence.any()
    assert (nothing.confidence == 0).all()


def test_states_can_be_left_out(tmp_path):
    data = parts_in(tmp_path, 2)
    settings = settings_of("hgt", epochs=1, batch=512, store_states=False)
    model = hgt.train(settings, data, PlainRun(0)).model
    assert not [name for name in model if name.startswith(("states.", "ids."))]
    with pytest.raises(ValueError, match="keeps no states of type note"):
        embed(model, settings, again(data, np.arange(3)))


def test_many_neighbours_are_drawn_distinct_and_alike_in_any_piece():
    given = links(np.repeat([0, 1, 2], [100, 3, 90]), np.r_[0:100, 5:8, 0:90], 4)
    ids, mask = draw(given, ("note", "r", "user"), 0, 10)
    assert ids.shape == (4, 10)
    assert mask.sum(1).tolist() == [10, 3, 10, 0]
    assert all(len(set(row[seen])) == seen.sum() for row, seen in zip(ids, mask, strict=True))
    assert set(ids[1][mask[1]]) == {5, 6, 7}
    piece = NewRows("user", np.full(4, -1), None, {("note", "r", "user"): given}).take(2, 4)
    again_ids, _ = draw(piece.edges["note", "r", "user"], ("note", "r", "user"), piece.first, 10)
    np.testing.assert_array_equal(again_ids[0], ids[2])


def test_ids_survive_the_way_into_a_model():
    for ids in (np.array([5, -3, 2**40]), np.array(["a", "grün", "日本語", ""])):
        packed = torch.from_numpy(pack_ids(ids))
        assert unpack_ids(packed.numpy()).tolist() == ids.tolist()


def test_links_count_an_edge_once_and_ways_know_reverse_and_symmetric_relations():
    made_links = links(np.array([2, 0, 2, 2]), np.array([7, 1, 3, 7]), 3)
    assert made_links.indptr.tolist() == [0, 1, 1, 3]
    assert made_links.numbers.tolist() == [1, 3, 7]
    assert isinstance(made_links, Links)
    follow, back = ("user", "follow", "note"), ("note", "rev_follow", "user")
    assert ways(follow, "user", [follow, back]) == [(back, True)]
    assert ways(("a", "b", "a"), "a", [("a", "b", "a"), ("a", "rev_b", "a")]) == [
        (("a", "rev_b", "a"), True), (("a", "b", "a"), False),
    ]  # fmt: skip
    assert ways(("a", "b", "a"), "a", [("a", "b", "a")]) == [(("a", "b", "a"), True), (("a", "b", "a"), False)]


def kept_models(rank, world, folder):
    """The models of both methods as a worker has them."""
    placed = [
        METHODS[m].train(settings_of(m, epochs=1), parts_in(Path(folder)), Worker(rank, world)).model for m in METHODS
    ]
    return [{name: values.numpy() for name, values in model.items()} for model in placed]


@pytest.mark.slow
def test_workers_keep_what_one_keeps(tmp_path):
    parts_in(tmp_path)
    alone = kept_models(0, 1, str(tmp_path))
    for placed in run_in_processes(2, kept_models, str(tmp_path)):
        for one, other in zip(alone, placed, strict=True):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)
