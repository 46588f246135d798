"""A small planted graph, short trainings of NS4GC on it, and what each worker of a gloo group computes."""

from typing import Any

import numpy as np
import torch
from hsan_small import Recorder
from numpy.typing import NDArray

from ops.api import PlainRun, Result
from ops.data.synthetic.planted_partition import planted_graph
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from ops.losses.link_bce import links_of
from trainers.ns4gc import Settings, train
from trainers.ns4gc.loss import similarity_loss
from trainers.ns4gc.training import Ns4gcTrainer

SMALL = {
    "n_clusters": 3,
    "hidden": 12,
    "embedding_dim": 6,
    "epochs": 5,
    "evaluate_every": 2,
    "tile_rows": 16,
    "lr": 0.01,
}
VARIANTS: list[dict[str, Any]] = [{}, {"parts": 4, "blocks": 2}, {"neighbours": 0.5, "apart": 3.0, "drop_edges": 0.0}]


def small_graph() -> tuple[AttributedGraph, NDArray[np.int64]]:
    return planted_graph(50, 3, 10, degree=6, seed=0, separation=2.0)


def settings_of(**values: Any) -> Settings:
    return Settings.model_validate(SMALL | values)


def trained(data: AttributedGraph | None = None, run: PlainRun | None = None, **values: Any) -> tuple[Result, Any]:
    run = run or Recorder()
    return train(settings_of(**values), data or small_graph()[0], run), run


class Worker(PlainRun):
    """A plain run of one of several workers."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__(0)
        self.rank, self.world = rank, world


def step(rank, world, words):
    """(metrics, gradients) of the third epoch's last step."""
    trainer = Ns4gcTrainer(settings_of(**words), small_graph()[0], Worker(rank, world))
    metrics = [trainer.epoch(epoch) for epoch in range(3)][-1]
    return metrics, {name: p.grad.numpy() for name, p in trainer.network.named_parameters()}


def training(rank, world, words):
    """Losses, clusters and embedding of a whole training."""
    result, run = trained(run=Worker(rank, world), **words)
    return [record["train/loss"] for record in run.history], result.assignment, result.embedding


def loss_of_doubles(rank, world, z1, z2):
    """Loss and this worker's gradients in float64."""
    group, views = ProcessGroup(rank, world), [torch.from_numpy(z).requires_grad_() for z in (z1, z2)]
    a = adjacency(small_graph()[0].edge_index, len(z1), self_loops=False)
    loss = similarity_loss(*views, links_of(a, group), settings_of(), group)
    return float(loss.detach()), [g.numpy() for g in torch.autograd.grad(loss, views)]


def many(rank, world, calls):
    """Several of the functions above in one group: starting processes is what takes the time."""
    return [globals()[name](rank, world, *arguments) for name, arguments in calls]
