"""HSAN against an independent dense implementation in float64, on planted clusters, and resumed anywhere."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hsan_small import Recorder, made, small_graph, trained
from test_infonce import dense_loss, dense_weights
from torch.nn.functional import normalize

from ops.api import PlainRun
from ops.clustering.kmeans import kmeans
from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation.labelled import scores
from trainers.hsan import predict, train
from trainers.hsan.model import Encoders

GOLDEN = Path(__file__).with_name("hsan_golden.json")
# a high learning rate and few trusted rows, so that H moves and the modes differ far beyond the bar in five epochs
MOVING = {"temperature": 0.5, "beta": 2, "lr": 0.05, "update_every": 1, "confidence": 0.3}


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
    settings = made(
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
            found = of(ours, "gradient.")[name].double()
            assert (found - theirs).abs().max() <= 1e-4 * theirs.abs().max(), name


def test_the_first_step_is_adams():
    """The first Adam step moves every parameter by lr against the sign of its gradient."""
    data, _ = small_graph()
    run = Recorder()
    train(made(gradients="accumulate", epochs=1, lr=0.01), data, run)
    start = Encoders(data.n_nodes, data.n_features, made(), 0)
    for name, p in start.named_parameters():
        g = of(run.states[0], "gradient.")[name]
        large = g.abs() > 1e-5
        moved = (of(run.states[0], "model.")[name] - p.detach())[large]
        assert torch.allclose(moved, -0.01 * g.sign()[large], rtol=0.01)


@pytest.mark.parametrize(("gradients", "weights"), [("standard", "paper"), ("accumulate", "stale")])
def test_golden_losses(gradients, weights):
    """No change of the mathematics by accident: losses of five epochs, written down by an earlier version."""
    _, run = trained(gradients=gradients, weights=weights, **MOVING)
    assert [r["train/loss"] for r in run.history] == pytest.approx(
        json.loads(GOLDEN.read_text())[f"{gradients}/{weights}"], rel=1e-4
    )


def test_every_pair_of_modes_trains_differently():
    """Else a golden loss or a resumed run could not tell that a mode is ignored."""
    ends = [
        trained(gradients=g, weights=w, **MOVING)[1].history[-1]["train/loss"]
        for g in ("standard", "accumulate") for w in ("paper", "stale")
    ]  # fmt: skip
    assert all(abs(a - b) > 2e-3 * a for i, a in enumerate(ends) for b in ends[:i])


def test_recovers_planted_clusters_where_the_features_alone_do_not():
    data, labels = planted_graph(300, 4, 16, degree=12, mixing=0.1, separation=1.5, seed=1)
    plain = scores(labels, kmeans(torch.from_numpy(data.x), 4, (0, 0)).labels.numpy())["acc"]
    result, run = trained(data, n_clusters=4, embedding_dim=32, epochs=41, update_every=10, tile_rows=512)
    assert scores(labels, result.assignment)["acc"] > 0.95 > 0.85 > plain
    assert np.array_equal(run.assignments[40], result.assignment)
    assert run.history[-1]["train/loss"] < run.history[0]["train/loss"]


def test_what_a_run_hears_and_what_is_left():
    result, run = trained(epochs=6, update_every=2)
    assert [r["epoch"] for r in run.history] == list(range(6))
    assert sorted(run.assignments) == [0, 2, 4, 5]  # the updates and the last epoch
    assert [("hard/fraction" in r) for r in run.history] == [True, False] * 3
    assert all({"train/loss", "train/alpha"} <= set(r) for r in run.history)
    assert np.array_equal(result.assignment, run.assignments[5])
    assert result.assignment.dtype == np.int64
    assert result.confidence.dtype == result.embedding.dtype == np.float32
    assert result.embedding.shape == (48, 12)
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


def test_a_seed_gives_the_same_bits_and_another_seed_other_ones():
    (first, _), (again, _), (other, _) = trained(seed=1), trained(seed=1), trained(seed=2)
    assert np.array_equal(first.embedding, again.embedding)
    assert np.array_equal(first.assignment, again.assignment)
    assert not np.array_equal(first.embedding, other.embedding)


@pytest.mark.parametrize("gradients", ["standard", "accumulate"])
@pytest.mark.parametrize(
    ("weights", "storage"),
    [("paper", "float"), ("paper", "uint16"), ("paper", "recompute"), ("stale", "float"), ("stale", "uint16")],
)
def test_resuming_anywhere_ends_bit_identical(gradients, weights, storage):
    modes = {"gradients": gradients, "weights": weights, "pair_storage": storage}
    data, settings = small_graph()[0], made(**(MOVING | modes | {"epochs": 6, "update_every": 2}))
    whole = Recorder()
    expected = train(settings, data, whole)
    assert [s.epoch for s in whole.states] == list(range(6))
    for state in whole.states if storage == "float" else whole.states[1:4:2]:
        run = PlainRun(0, start=state)
        found = train(settings, data, run)
        assert np.array_equal(found.assignment, expected.assignment)
        assert np.array_equal(found.confidence, expected.confidence)
        assert set(found.model) == set(expected.model)
        assert all(torch.equal(found.model[k], expected.model[k]) for k in expected.model)
        tail = [r for r in whole.history if r["epoch"] > state.epoch]
        assert run.history == tail  # the same losses to the bit, and no epoch trained twice


def test_clusters_come_from_the_averaged_encoders_and_training_from_the_present_ones():
    """Mean after epoch 0 = the encoders, then ema mean + (1 - ema) encoders; resume keeps it to the bit."""
    data, _ = small_graph()
    plain, averaged = Recorder(), Recorder()
    train(made(epochs=4), data, plain)
    found = train(made(epochs=4, ema=0.7), data, averaged)
    assert [r["train/loss"] for r in averaged.history] == [r["train/loss"] for r in plain.history]
    encoders = [s.shared["model.attribute_weight"].double() for s in averaged.states]
    mean = encoders[0]
    for each in encoders[1:]:
        mean = 0.7 * mean + 0.3 * each
    assert torch.allclose(found.model["attribute_weight"].double(), mean, atol=1e-6)
    assert not torch.allclose(found.model["attribute_weight"].double(), encoders[-1], atol=1e-6)
    labels, confidence = predict(found.model, made(ema=0.7).model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, found.assignment)
    assert np.allclose(confidence, found.confidence, atol=1e-5)
    for state in averaged.states:
        again = train(made(epochs=4, ema=0.7), data, PlainRun(0, start=state))
        assert all(torch.equal(again.model[k], found.model[k]) for k in found.model)


@pytest.mark.slow
def test_the_stored_model_predicts_through_mlflow(tmp_path):
    """What a run stores is what MLflow's model loads: in a process of its own, as MLflow does."""
    import subprocess
    import sys

    import numpy as np

    from ops.data.synthetic.planted_partition import planted_graph
    from ops.results.model_store import save_model
    from trainers.hsan import HSAN

    graph, _ = planted_graph(60, 3, 8)
    model = HSAN(3, epochs=2, embedding_dim=8).fit(graph.x, graph.edge_index)
    save_model(tmp_path, model.model_, {"method": "hsan", "dataset": "toy", **model.settings.model_dump()})
    np.save(tmp_path / "x.npy", graph.x)
    script = f"""
import types, numpy as np, pandas as pd
from ops.inference.mlflow_pyfunc import ClusterModel
model = ClusterModel()
model.load_context(types.SimpleNamespace(artifacts={{"model": {str(tmp_path)!r}}}))
print(*model.predict(None, pd.DataFrame(np.load({str(tmp_path / "x.npy")!r})))["cluster"])
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert [int(word) for word in found.stdout.split()] == model.predict(graph.x).tolist()
