"""A small planted graph of users and notes in parts, and what the processes of the workers' tests run on it."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
from small_hetero import small_parts

from ops.api import PlainRun
from ops.data.hetero_load import load_hetero
from ops.data.io.inductive_batch import NewRows, links
from ops.graph.sampling.dataset import PartitionedGraph
from trainers import hgt, twhin

METHODS = {"hgt": hgt, "twhin": twhin}
COMMON = {"n_clusters": 4, "epochs": 2, "batch": 64, "step_batches": 4, "prefetch": 0, "update_every": 2}
OWN = {
    "hgt": {"hidden": 16, "heads": 2, "fan_out": "5,4", "lr": 0.01, "dropout": 0.1},
    "twhin": {"embedding_dim": 16, "batch_negatives": 7, "neg_num": 16},
}


@cache
def planted() -> tuple:
    """The graph and its users' groups."""
    graph, groups = load_hetero("planted:users=160,notes=90,clusters=4,mixing=0.1,seed=3")
    return graph, groups["user"]


def parts_in(folder: Path, parts: int = 3) -> PartitionedGraph:
    """Its parts, nodes dealt round; made once a folder."""
    from ops.graph.partition.manifest import has_manifest, read_manifest

    place = folder / f"parts-{parts}"
    if not has_manifest(place):
        small_parts(folder, parts, planted()[0])
    graph = planted()[0]
    return PartitionedGraph("planted", str(place), read_manifest(place), tuple(graph.edges))


def again(data: PartitionedGraph, rows: np.ndarray) -> NewRows:
    """Training users as if they came from outside: their features, and the edges that lie in the parts."""
    client = data.connect()
    edges = {}
    for relation in (r for r in tuple(client.manifest.edges) if r[2] == data.rows):
        drawn = client.sample({data.rows: rows}, [40], (0, 0, 0, 0))
        places, mask = drawn.blocks[0][relation]
        numbers = drawn.nodes[1][relation[0]][places.numpy()]
        edges[relation] = links(np.nonzero(mask.numpy())[0], numbers[mask.numpy()], len(rows))
    return NewRows(data.rows, rows, client.features(data.rows, rows), edges)


def settings_of(method: str, **more):
    """Settings of a method."""
    return METHODS[method].Settings(**(COMMON | OWN[method] | more))


class Worker(PlainRun):
    """A plain run with the group's rank and world."""

    def __init__(self, rank: int = 0, world: int = 1, start=None) -> None:
        super().__init__(5, start)
        self.rank, self.world = rank, world
        self.states = {}

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        super().report(epoch, metrics, assignment, state)
        self.states[epoch] = copy.deepcopy(state())  # as a file would keep it


def trained(rank, world, method, folder, words, run=None):
    """A whole training: losses, assignment, confidence, embedding, and the last state's tensors."""
    run = run or Worker(rank, world)
    result = METHODS[method].train(settings_of(method, **words), parts_in(Path(folder)), run)
    last = run.states[max(run.states)]
    tensors = {k: v.numpy() for k, v in last.shared.items()}
    tensors |= {f"{part}.{k}": v.numpy() for part, local in last.parts.items() for k, v in local.items()}
    losses = [record["train/loss"] for record in run.history]
    return losses, result.assignment, result.confidence, result.embedding, tensors


def many(rank, world, calls):
    """Several trainings in one group: starting processes is what takes the time."""
    return [trained(rank, world, *call) for call in calls]
