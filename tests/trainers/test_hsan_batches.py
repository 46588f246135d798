"""HSAN in batches: what a step sees, one batch of all nodes equals all pairs, recovery of clusters."""

import numpy as np
import pytest
import torch
from small import of

from ops.api import PlainRun
from ops.data.synthetic.planted_partition import planted_graph
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.labelled import scores
from ops.graph.sampling.batches import epoch_batches, part_of
from trainers import hsan
from trainers.hsan import train
from trainers.hsan.model import batch_rows, prepare, structure_matrix
from trainers.hsan.training import HsanTrainer

settings_of, small_graph, _ = of("hsan")
BATCHED = [{"batch_nodes": 20}, {"parts": 6, "blocks": 2}, {"parts": 6, "blocks": 4, "partition": "hash"}]
CPU = torch.device("cpu")


def test_one_batch_of_all_nodes_trains_its_first_epoch_as_all_pairs_do():
    """Weights are 1 in epoch 0; later ones come from the step's own rows, so only the first epoch can be equal."""
    data, _ = small_graph()
    gradients = []
    for words in ({}, {"batch_nodes": 48}, {"parts": 4, "blocks": 4}):
        training = HsanTrainer(settings_of(**words), data, PlainRun(0))
        loss = training.epoch(0)["train/loss"]
        gradients.append((loss, [p.grad for p in training.model.parameters()]))
    for loss, actual in gradients[1:]:
        assert loss == pytest.approx(gradients[0][0], rel=1e-5)
        for ours, theirs in zip(actual, gradients[0][1], strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("words", BATCHED)
def test_a_batch_holds_its_nodes_rows_and_only_the_edges_it_may_see(words):
    data, _ = small_graph()
    settings = settings_of(**words)
    (x, _), a = prepare(settings, data), structure_matrix(settings, data)
    seen = []
    for batch in epoch_batches(settings, data.n_nodes, part_of(settings, data), 0, 3):
        rows = batch_rows(x, a, batch, ProcessGroup(), CPU)
        assert torch.equal(rows.x, x[torch.from_numpy(batch.nodes)])
        full = a.toarray()[batch.nodes]
        expected = full[:, batch.nodes] if "parts" in words else full
        assert np.array_equal(rows.a.rows.to_dense().numpy(), expected)
        assert (rows.columns is not None) == ("parts" in words)
        seen.append(batch.nodes)
    assert len(seen) > 1
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(data.n_nodes))


@pytest.mark.slow
@pytest.mark.parametrize("words", [{"batch_nodes": 60}, {"parts": 8, "blocks": 2}])
def test_planted_clusters_are_recovered(words):
    data, labels = planted_graph(240, 3, 12, degree=8, seed=1, separation=2.5)
    settings = settings_of(epochs=25, update_every=5, embedding_dim=16, **words)
    run = PlainRun(0)
    result = train(settings, data, run)
    assert scores(labels, result.assignment)["acc"] > 0.95
    assert all(0 <= r["hard/fraction"] <= 1 for r in run.history[1:])


def test_the_plan_says_what_a_step_does_not_see():
    data, _ = small_graph()
    assert hsan.remarks(settings_of(), data) == []
    assert "batches of 16 nodes, 3 steps an epoch" in hsan.remarks(settings_of(batch_nodes=20), data)[0]
    whole = hsan.remarks(settings_of(parts=4, blocks=4), data)[0]
    assert "1 steps" in whole
    assert "0.0% are lost" in whole
    assert "are lost to a step" in hsan.remarks(settings_of(parts=4, blocks=1), data)[0]
