"""HSAN from an earlier model: which weights go on, which PCA is used, whose ids the clusters have, exact resume."""

import numpy as np
import pytest
import torch
from small import Recorder, of

from ops.api import PlainRun, Warm
from ops.data.io.validate import make_graph
from ops.data.types.graph import AttributedGraph
from trainers.hsan import predict, train
from trainers.hsan.model import Encoders, prepare
from trainers.hsan.warm import begin_warm, prepare_warm

settings_of, small_graph, trained = of("hsan")
NEW = 6


@pytest.fixture(scope="module")
def data() -> AttributedGraph:
    return small_graph()[0]


@pytest.fixture(scope="module")
def grown(data) -> AttributedGraph:
    """The nodes in another order, the first one gone, six new ones linked to known ones."""
    order = np.random.default_rng(0).permutation(np.arange(1, data.n_nodes))
    place = np.full(data.n_nodes, -1)
    place[order] = np.arange(len(order))
    edges = place[data.edge_index]
    edges = edges[:, (edges >= 0).all(axis=0)]
    new = len(order) + np.arange(NEW)
    x = np.concatenate([data.x[order], data.x[order[:NEW]] + 0.1])
    return make_graph(
        "grown", x, np.concatenate([edges, [new, np.arange(NEW)]], axis=1), ids=np.append(order, new + 100)
    )


def warm_of(data, grown, **values) -> Warm:
    result, _ = trained(data, seed=1, **values)
    rows = np.where(grown.ids < data.n_nodes, grown.ids, -1)
    return Warm("runs/a", result.model, rows, result.assignment, "digest")


def test_known_nodes_go_on_and_new_ones_start_as_always(data, grown):
    warm, settings = warm_of(data, grown), settings_of()
    usual, model = (Encoders(grown.n_nodes, grown.n_features, settings, seed=0) for _ in range(2))
    begin_warm(model, warm)
    repeated = grown.ids < data.n_nodes
    assert (repeated.sum(), (~repeated).sum()) == (data.n_nodes - 1, NEW)
    rows = model.structure_weight.detach()
    torch.testing.assert_close(
        rows[:, repeated], warm.model["structure_weight"][:, grown.ids[repeated]], rtol=0, atol=0
    )
    torch.testing.assert_close(rows[:, ~repeated], usual.structure_weight.detach()[:, ~repeated], rtol=0, atol=0)
    for name in ("attribute_weight", "attribute_bias", "structure_bias", "alpha"):
        torch.testing.assert_close(model.get_parameter(name).detach(), warm.model[name], rtol=0, atol=0)
    begin_warm(usual, None)
    assert torch.equal(usual.structure_weight[:, ~repeated], model.structure_weight[:, ~repeated])


def test_the_pca_is_the_earlier_one(data, grown):
    settings = settings_of(pca_dim=4)
    warm = warm_of(data, grown, pca_dim=4)
    _, projection = prepare_warm(settings, grown, warm)
    assert torch.equal(torch.from_numpy(projection.components), warm.model["pca.components"])
    assert not np.allclose(projection.components, prepare(settings, grown)[1].components)
    result = train(settings, grown, PlainRun(warm=warm))
    assert torch.equal(result.model["pca.components"], warm.model["pca.components"])


def test_clusters_have_the_earlier_ids_and_predict_agrees(data, grown):
    warm = warm_of(data, grown)
    result = train(settings_of(), grown, PlainRun(warm=warm))
    assert warm.kept(result.assignment) > 0.8
    turned = Warm("b", warm.model, warm.rows, (warm.clusters + 1) % 3, "other")
    other = train(settings_of(), grown, PlainRun(warm=turned))
    assert np.array_equal(other.assignment, (result.assignment + 1) % 3)
    assert np.array_equal(other.confidence, result.confidence)
    for each in (result, other):
        placed, _ = predict(each.model, settings_of().model_dump(), grown.x, grown.edge_index)
        assert np.array_equal(placed, each.assignment)


def test_a_warm_training_resumed_from_any_epoch_ends_to_the_bit(data, grown):
    warm = warm_of(data, grown)
    run = Recorder(warm=warm)
    whole = train(settings_of(), grown, run)
    assert len(run.states) == 5
    for state in run.states:
        again = train(settings_of(), grown, PlainRun(start=state, warm=warm))
        assert np.array_equal(again.assignment, whole.assignment)
        assert all(torch.equal(again.model[name], tensor) for name, tensor in whole.model.items())
