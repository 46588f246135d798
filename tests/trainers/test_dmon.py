"""DMoN against its formula on dense arrays; golden losses; resume, parts, warm start, prediction; workers."""

import json
from pathlib import Path

import dmon_small
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dmon_small import VARIANTS, settings_of, trained
from gloo import run_in_processes
from ns4gc_small import small_graph
from torch.nn.functional import selu

from ops.api import PlainRun, Warm
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.labelled import scores
from ops.graph.adjacency import adjacency
from trainers.dmon import DMoN, Settings, embed, estimate, exchanged, predict, train
from trainers.dmon.model import Edges, Network, Whole, modularity_loss
from trainers.shared import features_of

GOLDEN = Path(__file__).with_name("dmon_golden.json")
CPU, ALONE = torch.device("cpu"), ProcessGroup()


def dense_loss(shares, a, collapse):
    """Equation 6 with N x N arrays."""
    n, k = shares.shape
    d, m2 = a.sum(1), a.sum()
    modularity = torch.trace(shares.T @ (a - torch.outer(d, d) / m2) @ shares) / m2
    return -modularity + collapse * (k**0.5 / n * shares.sum(0).norm() - 1)


@pytest.mark.parametrize("collapse", [0.0, 1.0, 3.0])
def test_value_and_gradient_are_those_of_the_dense_formula(collapse):
    data = small_graph()[0]
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    draws = torch.Generator().manual_seed(0)
    shares = torch.softmax(torch.randn(data.n_nodes, 3, generator=draws), 1).requires_grad_()
    ours = modularity_loss(shares, Edges(a, ALONE, CPU), collapse, ALONE)
    dense = dense_loss(shares, torch.from_numpy(a.toarray()), collapse)
    assert ours.item() == pytest.approx(dense.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, shares)[0] for loss in (ours, dense)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_a_step_of_all_nodes_is_the_whole_graph_and_of_a_part_moves_the_whole_sums():
    data = small_graph()[0]
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    edges, draws = Edges(a, ALONE, CPU), torch.Generator().manual_seed(0)
    before, now = (torch.softmax(torch.randn(data.n_nodes, 3, generator=draws), 1) for _ in range(2))
    whole = Whole(edges.total, data.n_nodes, edges.sums(before), edges.sums(before))
    alone = modularity_loss(now, edges, 2.0, ALONE)
    assert modularity_loss(now, edges, 2.0, ALONE, whole).item() == pytest.approx(alone.item(), abs=1e-6)
    nodes = np.arange(20)
    part = Edges(sp.csr_array(a[nodes][:, nodes]), ALONE, CPU, a.sum(1)[nodes].astype(np.float32))
    moved = Whole(edges.total, data.n_nodes, edges.sums(before), part.sums(before[:20]))
    inside = torch.from_numpy(a[nodes][:, nodes].toarray())
    sums = edges.sums(before) + data.n_nodes / 20 * (part.sums(now[:20]) - part.sums(before[:20]))
    expected = -torch.trace(now[:20].T @ inside @ now[:20]) / inside.sum() + (sums[0] / edges.total).square().sum()
    ours = modularity_loss(now[:20], part, 0.0, ALONE, moved)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_network_is_a_graph_convolution_with_a_skip_connection():
    data, settings = small_graph()[0], settings_of()
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    network = Network(data.n_features, settings, 0)
    rows, shares = network(features_of(data.x, ALONE, CPU), Edges(a, ALONE, CPU).smoothing, ALONE)
    dense, x = torch.from_numpy(a.toarray()), torch.from_numpy(data.x)
    scale = dense.sum(1).clamp(min=1).rsqrt()
    smoothed = (scale[:, None] * dense * scale) @ x
    assert torch.allclose(rows, selu(smoothed @ network.weight + x @ network.skip + network.bias), atol=1e-5)
    assert torch.allclose(shares, torch.softmax(rows @ network.head + network.head_bias, 1), atol=1e-6)


def test_golden_losses():
    """No change of the mathematics by accident: losses of five epochs, written down by an earlier version."""
    for name, losses in json.loads(GOLDEN.read_text()).items():
        _, run = trained(**json.loads(name))
        assert [record["train/loss"] for record in run.history] == pytest.approx(losses, rel=1e-4), name


@pytest.mark.parametrize("words", VARIANTS)
@pytest.mark.parametrize("at", [0, 4])
def test_a_resumed_run_ends_in_the_same_bits(words, at):
    result, run = trained(**words)
    again, resumed = trained(run=PlainRun(0, start=run.states[at]), **words)
    assert np.array_equal(again.embedding, result.embedding)
    assert resumed.history == run.history[at + 1 :]
    assert all(torch.equal(again.model[name], value) for name, value in result.model.items())


@pytest.mark.parametrize("words", [{}, {"parts": 8, "blocks": 2}])
def test_planted_clusters_are_recovered(words):
    data, labels = planted_graph(300, 3, 16, degree=12, mixing=0.1, separation=1.5, seed=1)
    result, _ = trained(data, epochs=60, evaluate_every=20, embedding_dim=32, **words)
    assert scores(labels, result.assignment)["acc"] > 0.95


def test_the_training_rows_are_predicted_as_the_run_has_them():
    data, settings = small_graph()[0], settings_of()
    result, _ = trained(data)
    labels, confidence = predict(result.model, settings.model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, result.assignment)
    assert np.allclose(confidence, result.confidence, atol=1e-5)
    assert np.allclose(embed(result.model, settings.model_dump(), data.x, data.edge_index), result.embedding, atol=1e-5)
    assert predict(result.model, settings.model_dump(), data.x[:7])[0].shape == (7,)


def test_a_warm_start_goes_on_from_the_model_and_keeps_its_cluster_ids():
    data = small_graph()[0]
    result, _ = trained(data)
    warm = Warm("runs/a", result.model, np.arange(data.n_nodes), result.assignment, "digest")
    again = train(settings_of(epochs=1, lr=1e-9), data, PlainRun(1, warm=warm))
    assert np.array_equal(again.assignment, result.assignment)


@pytest.mark.parametrize("edges", [np.array([[0], [1]]), np.stack(np.nonzero(~np.eye(9, dtype=bool)))])
def test_graphs_of_one_edge_and_of_all_edges_train(edges):
    data = make_graph("x", np.random.default_rng(0).random((9, 4)).astype(np.float32), edges)
    assert np.isfinite([record["train/loss"] for record in trained(data)[1].history]).all()


def test_the_estimator_and_the_plan():
    data, labels = planted_graph(120, 3, 16, degree=12, mixing=0.1, separation=2.0, seed=1)
    model = DMoN(3, epochs=40, embedding_dim=16, lr=0.01)
    assert scores(labels, model.fit_predict(data.x, data.edge_index))["acc"] > 0.9
    small, large = (planted_graph(n, 3, 16, degree=12, seed=1)[0] for n in (5000, 20_000))
    settings = Settings(n_clusters=3)
    whole = estimate(settings, small, 1)
    assert whole < estimate(settings, large, 1)
    assert estimate(Settings(n_clusters=3, parts=10), small, 1) < whole > estimate(settings, small, 4)


@pytest.mark.slow
def test_two_workers_compute_what_one_does():
    alone = dmon_small.trainings(0, 1)
    first, second = run_in_processes(2, dmon_small.trainings)
    for words, one, *both in zip(VARIANTS, alone, first, second, strict=True):
        for losses, assignment, embedding, gradients, sent in both:
            assert losses == pytest.approx(one[0], rel=1e-4)
            assert np.array_equal(assignment, one[1])
            assert np.abs(embedding - one[2]).max() < 1e-4
            for name, gradient in gradients.items():
                assert np.abs(gradient - one[3][name]).max() <= 1e-4 * np.abs(one[3][name]).max(), name
            if not words:  # else a step takes another number of nodes than the largest one
                assert sent == exchanged(settings_of(**words), small_graph()[0], 2)
