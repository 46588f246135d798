"""What every method for graphs keeps: its golden losses, the bits of a resumed run, its own rows' clusters and ids."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from caegcn_small import VARIANTS
from gloo import run_in_processes
from small import SMALL, Recorder, Worker, settings_of, small_graph, trained

from ops.api import PlainRun, Warm
from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DivergedError
from ops.evaluation.labelled import scores
from tessera import NS4GC, DMoN
from trainers import METHODS
from trainers.dmon.training import DmonTrainer
from trainers.ns4gc.training import Ns4gcTrainer

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
# a high learning rate and few trusted rows, so that H moves and the modes differ far beyond the bar in five epochs
MOVING = {"temperature": 0.5, "beta": 2, "lr": 0.05, "update_every": 1, "confidence": 0.3}
PARTS = {"parts": 4, "blocks": 2}
RESUMED = [
    *(("hsan", MOVING | {"gradients": g, "weights": w, "pair_storage": s, "update_every": 2})
      for g, w, s in (
          ("standard", "paper", "float"), ("accumulate", "paper", "uint16"), ("standard", "paper", "recompute"),
          ("standard", "stale", "float"), ("accumulate", "stale", "uint16"),
      )),
    ("hsan", {"gradients": 0.5, "lr_decay": "cosine", "ema": 0.5}),
    *(("hsan", words) for words in ({"batch_nodes": 20}, PARTS, {"parts": 6, "blocks": 4, "partition": "hash"})),
    *(("caegcn", words) for words in ({"warmup_epochs": 3}, VARIANTS["text"], PARTS)),
    *((method, words) for method in ("ns4gc", "dmon") for words in ({}, PARTS)),
]  # fmt: skip
TRAINERS = {"ns4gc": Ns4gcTrainer, "dmon": DmonTrainer}
ON_WORKERS = [("ns4gc", {}), ("ns4gc", PARTS), ("ns4gc", {"neighbours": 0.5, "apart": 3.0, "drop_edges": 0.0}),
              ("dmon", {}), ("dmon", PARTS)]  # fmt: skip
every_method = pytest.mark.parametrize("method", SMALL)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path))


def same_model(one, other):
    return set(one.model) == set(other.model) and all(torch.equal(one.model[k], other.model[k]) for k in one.model)


@pytest.mark.parametrize(("method", "words"), [(method, words) for method, cases in GOLDEN.items() for words in cases])
def test_golden_losses(method, words):
    """No change of the mathematics by accident: losses of the first epochs, written down by an earlier version."""
    _, run = trained(method, **json.loads(words))
    losses = [record["train/loss"] for record in run.history if record["epoch"] >= 0]
    assert losses == pytest.approx(GOLDEN[method][words], rel=1e-4)


@pytest.mark.parametrize(("method", "words"), RESUMED)
def test_a_run_resumed_anywhere_ends_in_the_same_bits(method, words):
    expected, whole = trained(method, run=Recorder(), **words)
    assert [state.epoch for state in whole.states] == list(range(SMALL[method]["epochs"]))
    # every epoch in one case of each method: a method has one loop
    for state in whole.states if not words or {"ema", "warmup_epochs"} & set(words) else whole.states[1:4:2]:
        again, run = trained(method, run=PlainRun(start=state), **words)
        assert np.array_equal(again.assignment, expected.assignment)
        assert np.array_equal(again.confidence, expected.confidence)
        assert np.array_equal(again.embedding, expected.embedding)
        assert same_model(again, expected)
        assert run.history == [r for r in whole.history if r["epoch"] > state.epoch]  # no epoch is trained twice


@every_method
def test_a_seed_gives_the_same_bits_and_another_seed_other_ones(method):
    (first, _), (again, _), (other, _) = (trained(method, seed=seed) for seed in (1, 1, 2))
    assert same_model(first, again)
    assert np.array_equal(first.assignment, again.assignment)
    assert not np.array_equal(first.embedding, other.embedding)


@every_method
def test_what_a_run_hears_and_what_is_left(method):
    result, run = trained(method, epochs=6)
    assert [r["epoch"] for r in run.history if r["epoch"] >= 0] == list(range(6))
    assert sorted(run.assignments) == [0, 2, 4, 5]  # the updates and the last epoch
    assert np.array_equal(result.assignment, run.assignments[5])
    assert result.assignment.dtype == np.int64
    assert result.confidence.dtype == result.embedding.dtype == np.float32
    assert len(result.embedding) == len(small_graph(method)[1])
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


@every_method
def test_the_training_rows_are_predicted_as_the_run_has_them(method):
    data, settings = small_graph(method)[0], settings_of(method).model_dump()
    result, _ = trained(method)
    labels, confidence = METHODS[method].predict(result.model, settings, data.x, data.edge_index)
    assert np.array_equal(labels, result.assignment)
    assert np.allclose(confidence, result.confidence, atol=1e-4)
    rows = METHODS[method].embed(result.model, settings, data.x, data.edge_index)
    assert np.allclose(rows, result.embedding, atol=1e-5)
    assert METHODS[method].predict(result.model, settings, data.x[:7])[0].shape == (7,)


@pytest.mark.parametrize(("method", "turn"), [("ns4gc", 1), ("dmon", 0), ("caegcn", 0)])  # these have ids of their own
def test_a_warm_start_goes_on_from_the_model_and_keeps_its_cluster_ids(method, turn):
    data = small_graph(method)[0]
    result, _ = trained(method)
    warm = Warm("runs/a", result.model, np.arange(data.n_nodes), (result.assignment + turn) % 3, "digest")
    again, run = trained(method, run=PlainRun(1, warm=warm), epochs=1, lr=1e-9)
    assert [r["epoch"] for r in run.history] == [0]  # nothing is pre-trained
    assert warm.kept(again.assignment) > 0.9
    labels, _ = METHODS[method].predict(again.model, settings_of(method).model_dump(), data.x, data.edge_index)
    assert np.array_equal(labels, again.assignment)


@pytest.mark.parametrize("method", ["caegcn", "dmon"])
def test_methods_whose_weights_have_the_clusters_shape_keep_their_number_in_a_warm_start(method):
    assert "n_clusters" in METHODS[method].fixed


@every_method
@pytest.mark.parametrize("edges", [np.array([[0], [1]]), np.stack(np.nonzero(~np.eye(9, dtype=bool)))])
def test_graphs_of_one_edge_and_of_all_edges_train(method, edges):
    data = make_graph("x", np.random.default_rng(0).random((9, 4)).astype(np.float32), edges)
    _, run = trained(method, data)
    assert np.isfinite([r["train/loss"] for r in run.history if r["epoch"] >= 0]).all()


class Poisoned(PlainRun):
    """Spoils the model after the first epoch."""

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        if epoch == 0:
            for name, tensor in state().shared.items():
                if name.startswith("model."):
                    tensor.fill_(torch.nan)


@every_method
def test_a_loss_that_is_not_finite_ends_the_training_in_one_line(method):
    with pytest.raises(DivergedError, match=r"^epoch 1: the loss is nan; lower --lr") as caught:
        trained(method, run=Poisoned())
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("words", [{}, {"parts": 8, "blocks": 2}])
@pytest.mark.parametrize("estimator", [NS4GC, DMoN])
def test_the_estimator_recovers_planted_clusters(estimator, words):
    data, labels = planted_graph(300, 3, 16, degree=12, mixing=0.1, separation=1.5, seed=1)
    sizes = {"hidden": 32, "embedding_dim": 16} if estimator is NS4GC else {"embedding_dim": 32}
    model = estimator(3, epochs=40 if estimator is NS4GC else 60, evaluate_every=20, **sizes, lr=0.01, **words)
    assert scores(labels, model.fit_predict(data.x, data.edge_index))["acc"] > 0.95


@pytest.mark.parametrize("method", ["ns4gc", "dmon"])
def test_the_plan_grows_with_the_data_and_shrinks_with_parts_and_workers(method):
    small, large = (planted_graph(n, 3, 16, degree=12, seed=1)[0] for n in (5000, 20_000))
    estimate, settings = METHODS[method].estimate, METHODS[method].settings
    plain = settings(n_clusters=3)
    assert estimate(plain, small, 1) < estimate(plain, large, 1)
    assert estimate(settings(n_clusters=3, parts=10), small, 1) < estimate(plain, small, 1) > estimate(plain, small, 4)
    assert METHODS[method].exchanged(plain, small, 1) == 0


def trainings(rank, world):
    """Of every case the losses, clusters, embedding and gradients of a whole training, and the bytes of a step."""
    said = []
    for method, words in ON_WORKERS:
        trainer = TRAINERS[method](settings_of(method, **words), small_graph(method)[0], Worker(rank, world))
        records = [trainer.epoch(epoch) for epoch in range(5)]
        gradients = {name: p.grad.numpy() for name, p in trainer.network.named_parameters()}
        result = trainer.result()
        losses = [record["train/loss"] for record in records]
        said.append((losses, result.assignment, result.embedding, gradients, records[-1].get("sys/sent_bytes")))
    return said


@pytest.mark.slow
def test_two_workers_compute_what_one_does():
    alone = trainings(0, 1)
    first, second = run_in_processes(2, trainings)
    for (method, words), one, *both in zip(ON_WORKERS, alone, first, second, strict=True):
        assert np.array_equal(both[0][2], both[1][2])
        for losses, assignment, embedding, gradients, sent in both:
            assert losses == pytest.approx(one[0], rel=1e-4)
            assert scores(one[1], assignment)["acc"] == 1.0
            assert np.abs(embedding - one[2]).max() < 1e-3
            for name, gradient in gradients.items():
                assert np.abs(gradient - one[3][name]).max() <= 1e-4 * np.abs(one[3][name]).max(), name
            if "parts" not in words:  # else a step takes another number of nodes than the largest one
                assert sent == METHODS[method].exchanged(settings_of(method, **words), small_graph(method)[0], 2)
