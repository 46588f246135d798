"""What the processes of `test_caegcn_workers.py` run; a module of its own, as a spawned process imports it by name."""

import os
from contextlib import suppress

import numpy as np
import scipy.sparse as sp
import torch
from caegcn_small import made, small_graph
from safetensors.torch import load_file, save_file

from ops.api import PlainRun
from ops.distributed.process_group import ProcessGroup
from ops.errors import Interrupted
from ops.losses.link_bce import links_of, structure_loss
from ops.losses.tiled_attention import attend
from trainers.caegcn import train
from trainers.caegcn.model import Content
from trainers.caegcn.pretrain import pretrain
from trainers.caegcn.training import CaegcnTrainer


class Worker(PlainRun):
    """A plain run with the group's rank and world."""

    def __init__(self, rank, world):
        super().__init__(3)
        self.rank, self.world = rank, world


def first_gradients(rank, world, words, cache, start):
    """(metrics, gradients) of a step from the parameters in the file `start`, which one process alone writes.

    The rounding of pre-training would differ, and Adam enlarge it. Attention's output is moved off zero.
    """
    os.environ["TESSERA_CACHE"] = cache
    training = CaegcnTrainer(made(**words), small_graph()[0], Worker(rank, world))
    if world == 1:
        g = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in training.model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=g))
        save_file({n: p.detach() for n, p in training.model.named_parameters()}, start)
    training.model.load_state_dict(load_file(start))
    metrics = training.epoch(0)
    return metrics, {n: p.grad.numpy() for n, p in training.model.named_parameters()}


def trained(rank, world, words, cache):
    """A whole training: history, assignments, result."""
    os.environ["TESSERA_CACHE"] = cache
    run = Worker(rank, world)
    result = train(made(**words), small_graph()[0], run)
    return run.history, run.assignments, result.assignment, result.embedding


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
    data, settings = small_graph()[0], made(pretrain_epochs=40, pretrain_lr=0.003)
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
    own = group.shard(rows.shape[1])
    q, k, v = (torch.from_numpy(np.ascontiguousarray(x[own])).requires_grad_() for x in rows)
    out = attend(q, k, v, heads, rows.shape[1], scale=0.5, group=group)
    weight = torch.arange(1.0, rows.shape[1] + 1, dtype=torch.float64)[own, None]
    (out.square() * weight).sum().backward()
    return out.detach().numpy(), [x.grad.numpy() for x in (q, k, v)]


def many(rank, world, calls):
    """Several of the functions above in one group: starting processes is what takes the time."""
    return [globals()[name](rank, world, *arguments) for name, arguments in calls]
