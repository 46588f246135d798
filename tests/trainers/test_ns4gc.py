"""NS4GC against its formula on dense arrays; golden losses; resume, parts, warm start, prediction; workers."""

import json
from pathlib import Path

import ns4gc_small
import numpy as np
import pytest
import torch
from gloo import run_in_processes
from ns4gc_small import VARIANTS, settings_of, small_graph, trained
from torch.nn.functional import normalize, selu

from ops.api import PlainRun, Warm
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.distributed.process_group import ProcessGroup
from ops.errors import DivergedError
from ops.evaluation.labelled import scores
from ops.graph.adjacency import adjacency, normalised
from ops.losses.link_bce import links_of
from trainers.ns4gc import NS4GC, Settings, embed, estimate, exchanged, predict, train
from trainers.ns4gc.loss import similarity_loss
from trainers.ns4gc.model import Network, smoothing, view
from trainers.shared import features_of

GOLDEN = Path(__file__).with_name("ns4gc_golden.json")
CPU = torch.device("cpu")


def unit_views(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, 5, dtype=torch.float64, generator=g)).requires_grad_() for _ in range(2)]


def dense_loss(z1, z2, edges, s):
    """The formula with N x N arrays."""
    n = len(z1)
    similarity, linked = z1 @ z2.T, torch.eye(n, dtype=torch.bool)
    linked[edges[0], edges[1]] = True
    apart = torch.sigmoid((similarity - s.threshold) / s.temperature)[~linked]
    neighbours = similarity[edges[0], edges[1]].mean()
    return -similarity.diagonal().mean() - s.neighbours * neighbours + s.apart * apart.mean()


@pytest.mark.parametrize("words", [{}, {"threshold": 0.1, "temperature": 0.5, "neighbours": 2.0, "apart": 0.3}])
@pytest.mark.parametrize("tile_rows", [16, 64])
def test_value_and_gradients_are_those_of_the_dense_formula(words, tile_rows):
    data, settings = small_graph()[0], settings_of(tile_rows=tile_rows, **words)
    z1, z2 = unit_views(data.n_nodes)
    links = links_of(adjacency(data.edge_index, data.n_nodes, self_loops=False), ProcessGroup())
    ours = similarity_loss(z1, z2, links, settings, ProcessGroup())
    dense = dense_loss(z1, z2, torch.from_numpy(data.edge_index.copy()), settings)
    assert ours.item() == pytest.approx(dense.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (z1, z2)), torch.autograd.grad(dense, (z1, z2)), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("zeros", [0.0, 0.97])
def test_the_network_is_two_graph_convolutions_on_dense_and_sparse_features(zeros):
    data, settings = small_graph()[0], settings_of()
    x = np.where(np.random.default_rng(0).random(data.x.shape) < zeros, 0, data.x).astype(np.float32)
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    network, mask = Network(x.shape[1], settings, 0), torch.tensor([1.0, 0.0] * 5)
    features = features_of(x, ProcessGroup(), CPU)
    assert isinstance(features.x, torch.Tensor) == (zeros == 0)
    ours = network(features, smoothing(a, ProcessGroup(), CPU), ProcessGroup(), mask)
    s = torch.from_numpy(normalised(a).toarray()).float()
    hidden = selu(s @ (torch.from_numpy(x) * mask) @ network.weight1 + network.bias1)
    assert torch.allclose(ours, normalize(s @ hidden @ network.weight2 + network.bias2), atol=1e-5)


def test_views_are_keyed_symmetric_and_lack_the_shares_asked_for():
    data, _ = planted_graph(400, 3, 200, degree=12, seed=0)
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    settings = settings_of(drop_edges=0.3, mask_features=0.2)
    (first, mask), (again, same), (other, _) = (view(a, 200, settings, 0, key) for key in ((1, 0), (1, 0), (1, 1)))
    assert (first != again).nnz == 0
    assert torch.equal(mask, same)
    assert (first != other).nnz > 0
    assert (first != first.T).nnz == 0
    assert first.multiply(a).nnz == first.nnz
    assert first.nnz / a.nnz == pytest.approx(0.7, abs=0.03)
    assert float(mask.mean()) == pytest.approx(0.8, abs=0.1)


def test_golden_losses():
    """No change of the mathematics by accident: losses of five epochs, written down by an earlier version."""
    golden = json.loads(GOLDEN.read_text())
    for name, words in zip(golden, VARIANTS, strict=True):
        _, run = trained(**words)
        assert [record["train/loss"] for record in run.history] == pytest.approx(golden[name], rel=1e-4), name


@pytest.mark.parametrize("words", VARIANTS[:2])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_resumed_run_ends_in_the_same_bits(words, at):
    result, run = trained(**words)
    again, resumed = trained(run=PlainRun(0, start=run.states[at]), **words)
    assert np.array_equal(again.assignment, result.assignment)
    assert np.array_equal(again.embedding, result.embedding)
    assert resumed.history == run.history[at + 1 :]
    assert all(torch.equal(again.model[name], value) for name, value in result.model.items())


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, {"parts": 8, "blocks": 2}])
def test_planted_clusters_are_recovered(words):
    data, labels = planted_graph(300, 3, 16, degree=12, mixing=0.1, separation=1.5, seed=1)
    result, _ = trained(data, epochs=40, evaluate_every=20, hidden=32, embedding_dim=16, **words)
    assert scores(labels, result.assignment)["acc"] > 0.95


def test_the_training_rows_are_predicted_as_the_run_has_them():
    data, settings = small_graph()[0], settings_of()
    result, _ = trained(data)
    labels, confidence = predict(result.model, settings.model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, result.assignment)
    assert np.allclose(confidence, result.confidence, atol=1e-4)
    assert np.allclose(embed(result.model, settings.model_dump(), data.x, data.edge_index), result.embedding, atol=1e-5)
    alone, _ = predict(result.model, settings.model_dump(), data.x[:7])
    assert alone.shape == (7,)


def test_a_warm_start_goes_on_from_the_model_and_keeps_its_cluster_ids():
    data = small_graph()[0]
    result, _ = trained(data)
    renamed = (result.assignment + 1) % 3
    warm = Warm("runs/a", result.model, np.arange(data.n_nodes), renamed, "digest")
    again = train(settings_of(epochs=1, lr=1e-9), data, PlainRun(1, warm=warm))
    assert warm.kept(again.assignment) > 0.9
    labels, _ = predict(again.model, settings_of().model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, again.assignment)


@pytest.mark.parametrize("edges", [np.array([[0], [1]]), np.stack(np.nonzero(~np.eye(9, dtype=bool)))])
def test_graphs_of_one_edge_and_of_all_edges_train(edges):
    data = make_graph("x", np.random.default_rng(0).random((9, 4)).astype(np.float32), edges)
    _, run = trained(data)
    assert np.isfinite([record["train/loss"] for record in run.history]).all()


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(DivergedError, match="epoch 1: the loss is nan; lower --lr"):
        trained(lr=1.0, weight_decay=1.0, hidden=4, **{"n_clusters": 3}, run=_Poisoned())


class _Poisoned(PlainRun):
    """Spoils the model after the first epoch."""

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        for name, tensor in state().shared.items():
            if name.startswith("model."):
                tensor.fill_(torch.nan)


def test_the_estimator_and_the_settings():
    data, labels = planted_graph(120, 3, 16, degree=12, mixing=0.1, separation=2.0, seed=1)
    model = NS4GC(3, epochs=20, hidden=16, embedding_dim=8, lr=0.01)
    assert scores(labels, model.fit_predict(data.x, data.edge_index))["acc"] > 0.9
    assert Settings().batch_nodes == 0
    with pytest.raises(ValueError, match="--blocks 3 must be at most --parts"):
        settings_of(blocks=3)


def test_the_plan_grows_with_the_data_and_shrinks_with_parts_and_workers():
    data, larger = (planted_graph(n, 3, 16, degree=12, seed=1)[0] for n in (5000, 20_000))
    whole = estimate(Settings(), data, 1)
    assert whole < estimate(Settings(), larger, 1)
    assert estimate(Settings(parts=10), data, 1) < whole > estimate(Settings(), data, 4)
    assert exchanged(Settings(), data, 1) == 0


@pytest.mark.slow
def test_two_workers_compute_what_one_does():
    data = small_graph()[0]
    views = [z.detach().numpy() for z in unit_views(data.n_nodes, seed=3)]
    calls = [*(("step", (words,)) for words in VARIANTS), ("training", (VARIANTS[1],)), ("loss_of_doubles", views)]
    one = ns4gc_small.many(0, 1, calls)
    first, second = run_in_processes(2, ns4gc_small.many, calls)
    for i, words in enumerate(VARIANTS):
        for metrics, gradients in (first[i], second[i]):
            assert metrics["train/loss"] == pytest.approx(one[i][0]["train/loss"], rel=1e-5)
            for name, gradient in gradients.items():
                assert np.abs(gradient - one[i][1][name]).max() <= 1e-5 * np.abs(one[i][1][name]).max(), name
        if "parts" not in words:  # else a step takes another number of nodes than the largest one
            assert first[i][0]["sys/sent_bytes"] == exchanged(settings_of(**words), data, 2)
    losses, assignment, embedding = one[-2]
    for others in (first[-2], second[-2]):
        assert others[0] == pytest.approx(losses, rel=1e-4)
        assert scores(assignment, others[1])["acc"] == 1.0
        assert np.abs(others[2] - embedding).max() < 1e-3
    assert np.array_equal(first[-2][2], second[-2][2])
    value, whole = one[-1]
    assert first[-1][0] == second[-1][0] == pytest.approx(value, rel=1e-12)
    for part, gradient in enumerate(whole):
        assert np.allclose(first[-1][1][part] + second[-1][1][part], gradient, rtol=0, atol=1e-14)
