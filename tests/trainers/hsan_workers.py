"""What the processes of `test_hsan_workers.py` run; a module of its own, as a spawned process imports it by name."""

import torch
from hsan_small import made, small_graph

from ops.api import PlainRun
from ops.distributed.process_group import ProcessGroup
from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights
from trainers.hsan import train
from trainers.hsan.training import HsanTrainer


class Worker(PlainRun):
    """A plain run with the group's rank and world."""

    def __init__(self, rank, world):
        super().__init__(3)
        self.rank, self.world = rank, world


def trained(rank, world, words):
    """A whole training: history, assignments, result."""
    data, _ = small_graph()
    run = Worker(rank, world)
    result = train(made(**words), data, run)
    return run.history, run.assignments, result.assignment, result.embedding


def first_gradients(rank, world, words, epochs):
    """(loss, gradients) of one step after `epochs` epochs trained."""
    data, _ = small_graph()
    training = HsanTrainer(made(**words), data, Worker(rank, world))
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
    own = full[:, group.shard(n)].clone().requires_grad_()
    rows = group.gather(own, n)
    (rows * (rank + 1) * torch.arange(1.0, len(rows) + 1)[:, None]).sum().backward()
    return rows.detach().numpy(), own.grad.numpy(), (group.gathered, group.sent_since())


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


def many(rank, world, calls):
    """Several of the functions above in one group: starting processes is what takes the time."""
    return [globals()[name](rank, world, *arguments) for name, arguments in calls]
