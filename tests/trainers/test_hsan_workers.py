"""W workers compute what one process computes: gather, loss, gradients, trainings; a real gloo group of 3."""

import numpy as np
import pytest
import torch
from gloo import run_in_processes
from small import Worker, many, of, whole

from ops.distributed.process_group import ProcessGroup
from ops.evaluation.labelled import scores
from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights
from trainers import hsan
from trainers.hsan.training import HsanTrainer

pytestmark = pytest.mark.slow
settings_of, small_graph, trained = of("hsan")
VARIANTS = [
    {},
    {"pair_storage": "recompute", "beta": 2.5, "activation": "sigmoid"},
    {"weights": "stale", "pair_storage": "uint16", "gradients": "accumulate", "temperature": 0.5},
    {"protocol": "published"},
    {"ema": 0.8, "kmeans": "spherical"},
    {"batch_nodes": 20},
    {"parts": 5, "blocks": 2, "gradients": "accumulate", "beta": 2.0},
]


def first_gradients(rank, world, words, epochs):
    """(loss, gradients) of one step after `epochs` epochs trained."""
    data, _ = small_graph()
    training = HsanTrainer(settings_of(**words), data, Worker(rank, world))
    for epoch in range(epochs):
        training.epoch(epoch)
        if epoch % training.settings.update_every == 0:
            training.update(epoch)
    metrics = training.epoch(epochs)
    return metrics, {n: p.grad.numpy() for n, p in training.model.named_parameters()}


def gathered(rank, world, n, views, width):
    """A gather and the gradient of a weighted sum that differs by rank."""
    group = ProcessGroup(rank, world)
    full = torch.arange(views * n * width, dtype=torch.float64).view(views, n, width)
    local = full[:, group.shard(n)].clone().requires_grad_()
    rows = group.gather(local, n)
    (rows * (rank + 1) * torch.arange(1.0, len(rows) + 1)[:, None]).sum().backward()
    return rows.detach().numpy(), local.grad.numpy(), (group.gathered, group.sent_since())


def loss_of_doubles(rank, world, z, e, labels, trusted, alpha, options):
    """Loss and this worker's gradients in float64, with weights updated over the group."""
    group = ProcessGroup(rank, world)
    z, e = (torch.from_numpy(a).requires_grad_() for a in (z, e))
    alpha = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    weights = PairWeights(len(z), options["beta"], options["mode"], options["storage"], 16, group)
    hard = weights.update(
        z.detach(), e.detach(), float(alpha.detach()), torch.from_numpy(labels), torch.from_numpy(trusted)
    )
    loss = hard_infonce(z, e, alpha, weights, 0.7, options["cache"])
    gradients = torch.autograd.grad(loss, (z, e, alpha))
    return float(loss.detach()), [g.numpy() for g in gradients], float(hard)


def loss_case(options):
    rng = np.random.default_rng(1)
    z, e = (rng.standard_normal((70, 5)) for _ in range(2))
    z, e = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, e))
    return z, e, rng.integers(0, 3, 35), rng.random(35) < 0.7, 1.2, options


def worsening(rank, world):
    """A training whose last evaluation alone is not sound, by rank 0; the others think the contrary."""
    answers = iter(answer == (rank == 0) for answer in (True, True, False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.last_sound.LastSound._is_sound", lambda *clusters: next(answers))
        result, _ = trained(run=Worker(rank, world))
    return result.epoch, result.assignment, result.embedding


LOSSES = [
    {"beta": 2.0, "mode": "paper", "storage": "float", "cache": 0},
    {"beta": 0.7, "mode": "paper", "storage": "recompute", "cache": 5000},
]
CALLS = [
    *((first_gradients, (words, 3)) for words in VARIANTS),
    *((whole, ("hsan", words)) for words in VARIANTS),
    *((loss_of_doubles, loss_case(options)) for options in LOSSES),
    *((gathered, (n, 2, 3)) for n in (1, 2, 7, 12)),
    (worsening, ()),
]


WORLD = 3  # no divisor of the rows


@pytest.fixture(scope="module")
def both():
    """What one process and what each of W found, call by call."""
    return WORLD, many(0, 1, CALLS), run_in_processes(WORLD, many, CALLS)


def calls(function):
    return [i for i, call in enumerate(CALLS) if call[0] is function]


def close(a, b, bar):
    scale = max(np.abs(b).max(), 1e-12)
    assert np.abs(a - b).max() <= bar * scale


def test_loss_and_gradients_of_a_step_equal_those_of_one_process(both):
    world, one, several = both
    for i in calls(first_gradients):
        for rank in range(world):
            assert several[rank][i][0]["train/loss"] == pytest.approx(one[i][0]["train/loss"], rel=1e-5)
            for name, gradient in several[rank][i][1].items():
                close(gradient, one[i][1][name], 1e-5)


def test_in_float64_the_shares_sum_to_the_whole(both):
    world, one, several = both
    for i in calls(loss_of_doubles):
        loss, gradients, hard = one[i]
        for rank in range(world):
            assert several[rank][i][0] == pytest.approx(loss, rel=1e-12)
            assert several[rank][i][2] == hard
        for part, alone in enumerate(gradients):
            close(sum(several[rank][i][1][part] for rank in range(world)), alone, 1e-12)


def test_every_worker_ends_with_the_same_bits_and_one_process_finds_the_same_clusters(both):
    world, one, several = both
    for i in calls(whole):
        history, assignments, last, embedding = several[0][i]
        for rank in range(1, world):
            assert np.array_equal(several[rank][i][2], last)
            assert np.array_equal(several[rank][i][3], embedding)
            assert [r["train/loss"] for r in several[rank][i][0][1:]] == [r["train/loss"] for r in history[1:]]
        assert assignments.keys() == one[i][1].keys()
        assert scores(one[i][2], last)["acc"] > 0.95  # the last bits may number clusters otherwise
        close(embedding, one[i][3], 1e-3)


def test_the_workers_go_back_to_the_same_sound_evaluation(both):
    world, one, several = both
    (i,) = calls(worsening)
    assert [several[rank][i][0] for rank in range(world)] == [one[i][0]] * world == [2] * world
    for rank in range(world):
        assert np.array_equal(several[rank][i][1], several[0][i][1])
        close(several[rank][i][2], one[i][2], 1e-3)


def test_a_row_is_gathered_in_node_order_and_its_gradient_comes_home(both):
    world, one, several = both
    for i in calls(gathered):
        n = CALLS[i][1][0]
        total = world * (world + 1) / 2  # each rank weighs its loss by rank + 1
        for rank in range(world):
            rows, gradient, (received, sent) = several[rank][i]
            assert np.array_equal(rows, one[i][0])
            assert np.array_equal(gradient, total * one[i][1][:, ProcessGroup(rank, world).shard(n)])
            assert received == 2 * 2 * world * -(-n // world) * 3 * 8
            assert sent == received * (world - 1) // world


def test_what_a_step_sends_is_what_the_plan_says(both):
    world, _, several = both
    data, _ = small_graph()
    for i, words in zip(calls(first_gradients), VARIANTS, strict=True):
        if "parts" in words or "batch_nodes" in words:  # the plan takes the largest batch, the step its own
            continue
        planned = hsan.exchanged(settings_of(**words), data, world)
        assert planned > 0
        assert {several[rank][i][0]["sys/sent_bytes"] for rank in range(world)} == {float(planned)}


def test_a_team_of_one_needs_no_group_and_sends_nothing():
    group = ProcessGroup()
    x = torch.ones(3)
    assert group.sum_(x) is x
    assert group.maximum_(x) is x
    assert group.broadcast_(x) is x
    assert group.gather(torch.ones(2, 3, 1), 3).shape == (6, 1)
    assert (group.gathered, group.reduced) == (0, 0)
    assert hsan.exchanged(settings_of(), small_graph()[0], 1) == 0


@pytest.mark.parametrize("n", [1, 5, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_blocks_cover_every_node_once(n, world):
    owned = [i for rank in range(world) for i in range(n)[ProcessGroup(rank, world).shard(n)]]
    assert owned == list(range(n))
