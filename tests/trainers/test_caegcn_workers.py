"""W workers compute what one process computes: attention, structure loss, a step, pre-training, a whole training."""

import os
from contextlib import suppress

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from caegcn_small import SDCN
from gloo import run_in_processes
from safetensors.torch import load_file, save_file
from small import Worker, many, of
from small import whole as trained_whole

from ops.distributed.process_group import ProcessGroup
from ops.errors import Interrupted
from ops.evaluation.labelled import scores
from ops.losses.link_bce import links_of, structure_loss
from ops.losses.tiled_attention import attend
from trainers import caegcn
from trainers.caegcn.model import Content
from trainers.caegcn.pretrain import pretrain
from trainers.caegcn.training import CaegcnTrainer

pytestmark = pytest.mark.slow
settings_of, small_graph, _ = of("caegcn")
VARIANTS = [
    {},
    {"structure_from": "last", "attention_at": "all", "depth": "full", "pos_weight": "balanced", "residual": False},
    SDCN,
    {"parts": 5, "blocks": 2},
]


def first_gradients(rank, world, words, cache, start):
    """(metrics, gradients) of a step from the parameters in the file `start`, which one process alone writes.

    The rounding of pre-training would differ, and Adam enlarge it. Attention's output is moved off zero.
    """
    os.environ["TESSERA_CACHE"] = cache
    training = CaegcnTrainer(settings_of(**words), small_graph()[0], Worker(rank, world))
    if world == 1:
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in training.model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=g))
        save_file({n: p.detach() for n, p in training.model.named_parameters()}, start)
    training.model.load_state_dict(load_file(start))
    metrics = training.epoch(0)
    return metrics, {n: p.grad.numpy() for n, p in training.model.named_parameters()}


class Stopping(Worker):
    """A worker that is interrupted at the report of one epoch, as all are together."""

    def __init__(self, rank, world, at):
        super().__init__(rank, world)
        self.at = at

    def report(self, epoch, *rest):
        super().report(epoch, *rest)
        if epoch == self.at:
            raise Interrupted("stopped")


def pretrained(rank, world, cache, at=None):
    """(history, parameters) of a pre-training whose best epoch is not its last; interrupted at an epoch before."""
    os.environ["TESSERA_CACHE"] = cache
    data, settings = small_graph()[0], settings_of(pretrain_epochs=40, pretrain_lr=0.003)
    runs = [Worker(rank, world)] if at is None else [Stopping(rank, world, at), Worker(rank, world)]
    for run in runs:
        run.seed = 0  # whose best epoch is not the last
        content = Content(data.n_features, settings, run.seed)
        with suppress(Interrupted):
            pretrain(content, settings, data, run, ProcessGroup(rank, world))
    return runs[-1].history, {name: p.detach().numpy() for name, p in content.named_parameters()}


def structure_of_doubles(rank, world, codes, linked, weight):
    """The structure loss and this worker's gradient in float64."""
    group = ProcessGroup(rank, world)
    c = torch.from_numpy(codes).requires_grad_()
    loss = structure_loss(c, links_of(sp.csr_array(linked), group), weight, group=group, tile_rows=16)
    loss.backward()
    return float(loss.detach()), c.grad.numpy()


def attended(rank, world, rows, heads):
    """Attention of this worker's rows and the gradients that come home, for a sum that all workers make together."""
    group = ProcessGroup(rank, world)
    local = group.shard(rows.shape[1])
    q, k, v = (torch.from_numpy(np.ascontiguousarray(x[local])).requires_grad_() for x in rows)
    out = attend(q, k, v, heads, rows.shape[1], scale=0.5, group=group)
    weight = torch.arange(1.0, rows.shape[1] + 1, dtype=torch.float64)[local, None]
    (out.square() * weight).sum().backward()
    return out.detach().numpy(), [x.grad.numpy() for x in (q, k, v)]


def trained(rank, world, words, cache):
    """A whole training with a cache of its own."""
    os.environ["TESSERA_CACHE"] = cache
    return trained_whole(rank, world, "caegcn", words)


def doubles(*shape):
    return np.random.default_rng(5).standard_normal(shape)


DRAWN = np.random.default_rng(1).random((45, 45)) < 0.1
LINKED = (DRAWN | DRAWN.T).astype(np.float32)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What one process and what each of two found, call by call; every call pre-trains anew."""

    starts = tmp_path_factory.mktemp("starts")

    def calls(world):
        cache = lambda i: str(tmp_path_factory.mktemp(f"cache-{world}-{i}"))  # noqa: E731
        return [
            *((first_gradients, (words, cache(i), str(starts / f"{i}"))) for i, words in enumerate(VARIANTS)),
            *((trained, (words, cache(10 + i))) for i, words in enumerate(VARIANTS)),
            *((pretrained, (cache(20 + i), at)) for i, at in enumerate((None, -9))),
            *((structure_of_doubles, (doubles(45, 3), LINKED, w)) for w in (1.0, 6.5)),
            *((attended, (doubles(3, n, 6), 2)) for n in (1, 2, 13)),
        ]

    return calls(1), many(0, 1, calls(1)), run_in_processes(2, many, calls(2))


def places(calls, function):
    return [i for i, call in enumerate(calls) if call[0] is function]


def close(a, b, bar):
    assert np.abs(a - b).max() <= bar * max(np.abs(b).max(), 1e-12)


def test_loss_and_gradients_of_a_step_equal_those_of_one_process(both):
    calls, one, several = both
    for i in places(calls, first_gradients):
        for rank in range(2):
            metrics = {k: v for k, v in several[rank][i][0].items() if k != "sys/sent_bytes"}
            # a divergence near 0 is a difference of float32 logarithms near 1: it is held to the loss as a whole
            assert metrics == pytest.approx(one[i][0], rel=1e-5, abs=1e-5 * one[i][0]["train/loss"])
            for name, gradient in several[rank][i][1].items():
                close(gradient, one[i][1][name], 1e-5)


def test_all_workers_take_the_epoch_that_the_first_has_kept_after_an_interruption_too(both):
    calls, one, several = both
    whole, resumed = places(calls, pretrained)
    kept = one[whole][0][-1]["train/kept_pretraining"]
    assert kept < 39
    for i in (whole, resumed):
        assert several[0][i][0] == several[0][whole][0]
        assert several[0][i][0][-1]["train/kept_pretraining"] == kept
        for name, parameter in several[0][whole][1].items():
            assert np.array_equal(several[0][i][1][name], parameter)
            assert np.array_equal(several[1][i][1][name], parameter)
            close(parameter, one[i][1][name], 1e-2)  # Adam has enlarged the rounding over dozens of epochs


def test_in_float64_the_shares_sum_to_the_whole(both):
    calls, one, several = both
    for i in places(calls, structure_of_doubles):
        assert [several[rank][i][0] for rank in range(2)] == pytest.approx([one[i][0]] * 2, rel=1e-12)
        close(several[0][i][1] + several[1][i][1], one[i][1], 1e-12)


def test_attention_and_its_gradients_come_home(both):
    calls, one, several = both
    for i in places(calls, attended):
        n = calls[i][1][0].shape[1]
        for rank in range(2):
            local = ProcessGroup(rank, 2).shard(n)
            result, gradients = several[rank][i]
            assert np.allclose(result, one[i][0][local], atol=1e-12)
            for ours, theirs in zip(gradients, one[i][1], strict=True):
                assert np.allclose(ours, theirs[local], rtol=1e-10, atol=1e-10)


def test_both_end_with_the_same_bits_and_one_process_finds_the_same_clusters(both):
    calls, one, several = both
    for i in places(calls, trained):
        history, assignments, last, embedding = several[0][i]
        assert np.array_equal(several[1][i][2], last)
        assert np.array_equal(several[1][i][3], embedding)
        assert [r["epoch"] for r in history] == [r["epoch"] for r in one[i][0]]
        before = [r["train/loss_pretraining"] for r in history if r["epoch"] < 0]
        assert before == pytest.approx([r["train/loss_pretraining"] for r in one[i][0] if r["epoch"] < 0], rel=1e-5)
        assert assignments.keys() == one[i][1].keys()
        assert scores(one[i][2], last)["acc"] > 0.9
        close(embedding, one[i][3], 1e-2)


def test_what_a_step_sends_is_what_the_plan_says(both):
    calls, _, several = both
    data, _ = small_graph()
    for i in places(calls, first_gradients)[:3]:
        planned = caegcn.exchanged(settings_of(**calls[i][1][0]), data, 2)
        assert {several[rank][i][0]["sys/sent_bytes"] for rank in range(2)} == {float(planned)}
