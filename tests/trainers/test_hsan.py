"""HSAN against an independent dense implementation in float64, on planted clusters, and its averaged encoders."""

import math

import numpy as np
import pytest
import torch
from small import Recorder, of
from test_infonce import dense_loss, dense_weights
from torch.nn.functional import normalize

from ops.api import PlainRun
from ops.clustering.kmeans import kmeans
from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation.labelled import scores
from trainers.hsan import predict, train
from trainers.hsan.model import Encoders
from trainers.hsan.training import HsanTrainer

settings_of, small_graph, trained = of("hsan")


def dense_rows(p, x, a, activation="identity"):
    """Z and E of both views by the paper's equations, on plain tensors."""
    z = x @ p["attribute_weight"] + p["attribute_bias"]
    z = z.sigmoid() if activation == "sigmoid" else z
    e = a @ p["structure_weight"] + p["structure_bias"]
    return normalize(z.flatten(0, 1)), normalize(e.flatten(0, 1))


def dense_step(p, x, a, w, settings):
    """(loss, gradients by name) of one step in float64."""
    p = {k: v.double().clone().requires_grad_() for k, v in p.items()}
    loss = dense_loss(*dense_rows(p, x, a, settings.activation), p["alpha"], w, settings.temperature)
    loss.backward()
    return float(loss.detach()), {k: v.grad for k, v in p.items()}


def dense_inputs(data):
    n = data.n_nodes
    a = torch.zeros(n, n, dtype=torch.float64)
    a[data.edge_index[0], data.edge_index[1]] = 1
    plain = a.clone().fill_diagonal_(1)
    scale = plain.sum(1).rsqrt()
    step = scale[:, None] * plain * scale
    return torch.linalg.matrix_power(step, 2) @ torch.from_numpy(data.x).double(), a


def of(state, part):
    return {k.removeprefix(part): v for k, v in state.shared.items() if k.startswith(part)}


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
@pytest.mark.parametrize("storage", ["float", "recompute"])
def test_two_epochs_equal_a_dense_implementation(activation, storage):
    """Epoch 0 has weights of 1; epoch 1 those of k-means and H after the first step. Gradients are summed (state)."""
    data, _ = small_graph()
    settings = settings_of(
        activation=activation, gradients="accumulate", pair_storage=storage, temperature=0.5, beta=2.5,
        update_every=1, epochs=2, low_pass_order=2,
    )  # fmt: skip
    run = Recorder()
    train(settings, data, run)
    x, a = dense_inputs(data)
    m = 2 * data.n_nodes
    start = {k: v.detach() for k, v in Encoders(data.n_nodes, data.n_features, settings, 0).named_parameters()}
    loss0, grad0 = dense_step(start, x, a, torch.ones(m, m, dtype=torch.float64), settings)
    first = of(run.states[0], "model.")
    z, e = dense_rows({k: v.double() for k, v in first.items()}, x, a, activation)
    labels = torch.from_numpy(run.assignments[0])
    fused = (z[: m // 2] + z[m // 2 :]) / 2
    centres = kmeans(fused.float(), 3, (0, 1)).centres.double()
    value = torch.cdist(fused, centres).square().softmax(1).amin(1)
    trusted = value <= value.sort(descending=True).values[math.floor(data.n_nodes * (1 - 0.6)) - 1]
    w = dense_weights(z, e, float(first["alpha"]), labels, trusted, 2.5)
    loss1, grad1 = dense_step(first, x, a, w, settings)
    assert [r["train/loss"] for r in run.history] == pytest.approx([loss0, loss1], rel=1e-5)
    inside = trusted.repeat(2)[:, None] & trusted.repeat(2)
    base = dense_weights(z, e, float(first["alpha"]), labels, trusted, 1)
    assert run.history[0]["hard/fraction"] == pytest.approx(float((base[inside] > 0.5).double().mean()), abs=1e-3)
    for name, g in grad0.items():
        for ours, theirs in ((run.states[0], g), (run.states[1], g + grad1[name])):
            actual = of(ours, "gradient.")[name].double()
            assert (actual - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name


def test_a_leak_stands_between_cleared_and_accumulated_gradients():
    """Sums after the second step, whose own gradient all three share: the first step's is in them by its share."""
    runs = {gradients: Recorder() for gradients in ("accumulate", 0.75, 0.25)}
    for gradients, run in runs.items():
        train(settings_of(gradients=gradients, epochs=2, lr=1e-12), small_graph()[0], run)
    first = of(runs[0.25].states[0], "gradient.")
    sums = {gradients: of(run.states[1], "gradient.") for gradients, run in runs.items()}
    for name, gradient in first.items():
        scale = 1e-4 * gradient.abs().max()
        assert (sums["accumulate"][name] - sums[0.75][name] - 0.25 * gradient).abs().max() <= scale, name
        assert (sums[0.75][name] - sums[0.25][name] - 0.5 * gradient).abs().max() <= scale, name
    with pytest.raises(ValueError, match=r"--gradients 1.5: allowed are standard \(0\), accumulate \(1\) or a number"):
        settings_of(gradients=1.5)


def test_the_learning_rate_falls_by_a_cosine_and_stays_without_one():
    trainer = HsanTrainer(settings_of(epochs=4, lr=0.1, lr_decay="cosine"), small_graph()[0], PlainRun())
    rates = []
    for epoch in range(4):
        trainer.epoch(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)
    assert settings_of(lr=0.1).lr_at(3) == 0.1


def test_recovers_planted_clusters_where_the_features_alone_do_not():
    data, labels = planted_graph(300, 4, 16, degree=12, mixing=0.1, separation=1.5, seed=1)
    plain = scores(labels, kmeans(torch.from_numpy(data.x), 4, (0, 0)).labels.numpy())["acc"]
    result, run = trained(data, n_clusters=4, embedding_dim=32, epochs=41, update_every=10, tile_rows=512)
    assert scores(labels, result.assignment)["acc"] > 0.95 > 0.85 > plain
    assert np.array_equal(run.assignments[40], result.assignment)
    assert run.history[-1]["train/loss"] < run.history[0]["train/loss"]


def test_clusters_come_from_the_averaged_encoders_and_training_from_the_present_ones():
    """Mean after epoch 0 = the encoders, then ema mean + (1 - ema) encoders; resume keeps it to the bit."""
    data, _ = small_graph()
    plain, averaged = Recorder(), Recorder()
    train(settings_of(epochs=4), data, plain)
    actual = train(settings_of(epochs=4, ema=0.7), data, averaged)
    assert [r["train/loss"] for r in averaged.history] == [r["train/loss"] for r in plain.history]
    encoders = [s.shared["model.attribute_weight"].double() for s in averaged.states]
    mean = encoders[0]
    for each in encoders[1:]:
        mean = 0.7 * mean + 0.3 * each
    assert torch.allclose(actual.model["attribute_weight"].double(), mean, atol=1e-6)
    assert not torch.allclose(actual.model["attribute_weight"].double(), encoders[-1], atol=1e-6)
    labels, confidence = predict(actual.model, settings_of(ema=0.7).model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, actual.assignment)
    assert np.allclose(confidence, actual.confidence, atol=1e-5)
    for state in averaged.states:
        again = train(settings_of(epochs=4, ema=0.7), data, PlainRun(0, start=state))
        assert all(torch.equal(again.model[k], actual.model[k]) for k in actual.model)
