"""What HGT and TwHIN share: which batches a worker trains on, the clusters of the embeddings, and the result.

Axes: N clustered nodes, n of them in this worker's parts, O nodes at the other end, P pairs of a batch, D width, K
clusters, U map units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.kmeans import START_ROWS, kmeans
from ops.clustering.shards import Shard
from ops.clustering.som import Som, som
from ops.distributed.process_group import ProcessGroup
from ops.errors import DivergedError, SettingsError
from ops.graph.sampling.client import prefetched
from ops.graph.sampling.dataset import PartitionedGraph, steps_of
from ops.memory import give_back
from trainers.hgt.settings import GraphSettings
from trainers.shared import Evaluation, is_due


@dataclass(frozen=True)
class NodeClusters:
    """Clusters of this worker's nodes: labels and confidence [n], centres [K D] or the units [U D] of the `map`."""

    labels: Int64[Tensor, "n"]
    confidence: Float32[Tensor, "n"]
    centres: Float[Tensor, "_ D"]
    map: Som | None = None


class GraphTrainer(ABC):
    """The model of a method between two epochs, and the clusters of its embeddings (`trainers.shared.EpochTrainer`)."""

    def __init__(self, settings: GraphSettings, data: PartitionedGraph, run: Run) -> None:
        check_workers(settings, run.world)
        self.data, self.seed, self.device = data, run.seed, run.device
        self.group = ProcessGroup(run.rank, run.world)
        self.client = data.connect()
        self.edges = [sum(sizes[r] for r in data.labels) for sizes in self.client.sizes()]  # edges to predict, by part
        self.evaluated: tuple[NodeClusters, dict[str, Any]] | None = None  # of the last evaluation

    settings: GraphSettings

    @abstractmethod
    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; returns its metrics."""

    @abstractmethod
    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """The embeddings of this worker's nodes of a type, part after part."""

    @abstractmethod
    def state(self, epoch: int) -> State:
        """All that a resumed run needs."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the stored model; every worker has to call it."""

    def link(self) -> dict[str, NDArray[np.float32]]:
        """What the score of a link needs beside both embeddings: `shift` [D] of (s + shift) . t; {} for the cosine."""
        return {}

    def evaluate(self, epoch: int) -> Evaluation | None:
        """The clusters of this worker's nodes, and its embeddings of both ends of the label relations."""
        data, group = self.data, self.group
        if not is_due(epoch, self.settings.update_every, self.settings.epochs):
            return None
        give_back()  # embedding all nodes is the peak of memory: what the steps' threads freed is given back first
        shard = shard_of(data, data.rows, group)
        z = self.embed(data.rows)
        if not torch.isfinite(z).all():
            raise DivergedError("the embeddings are not finite any more; lower --lr")
        clusters = cluster(z, shard, self.settings, self.seed, group)
        embeddings = {"embedding": z.cpu().numpy()}
        if data.others != data.rows:
            embeddings["others"] = self.embed(data.others).cpu().numpy()
        self.evaluated = clusters, embeddings
        return Evaluation(clusters.labels.cpu().numpy(), embeddings)

    def result(self) -> Result:
        """Clusters, confidence, embeddings and model after the last epoch."""
        if self.evaluated is None:  # after a resume from the last epoch, when nothing was left to train
            self.evaluate(self.settings.epochs - 1)
        assert self.evaluated is not None
        clusters, embeddings = self.evaluated
        tensors = self.tensors() | {"centres": clusters.centres.cpu()}
        # where both ends are of one type it also stands for the others, which the scores need
        more = {"others": embeddings.get("others", embeddings["embedding"])} | self.link()
        if clusters.map is not None:
            som = clusters.map
            tensors["unit_clusters"] = som.unit_clusters.cpu()
            drawn = {"umatrix": som.umatrix, "hits": som.hits, "unit_clusters": som.unit_clusters}
            more |= {f"map_{name}": values.cpu().numpy() for name, values in drawn.items()}
            more["map_errors"] = np.array([som.quantisation, som.topographic])
        labels, confidence = (each.cpu().numpy() for each in (clusters.labels, clusters.confidence))
        return Result(labels, confidence, embeddings["embedding"], tensors, more)


def steps(
    edges: list[int], settings: GraphSettings, group: ProcessGroup, seed: int, epoch: int, prepare: Callable[..., Any]
) -> Iterator[tuple[int, list[Any]]]:
    """Each step of an epoch: how many batches it has in all, and those of this worker.

    Threads `prepare` groups of batches ahead.
    """
    all_steps = steps_of(edges, settings.batch, seed, epoch, settings.step_batches, settings.epoch_steps)
    shares = [batches[group.rank :: group.world] for batches in all_steps]
    flat = [which for share in shares for which in share]
    size = max(1, settings.prefetch // 2)  # batches whose neighbourhoods are requested together
    groups = [flat[at : at + size] for at in range(0, len(flat), size)]
    ready = chain.from_iterable(prefetched((partial(prepare, group) for group in groups), min(settings.prefetch, 2)))
    for batches, share in zip(all_steps, shares, strict=True):
        yield len(batches), [next(ready) for _ in share]


@dataclass(frozen=True)
class Ends:
    """The nodes of a batch: unique global numbers by type, in `ids`.

    `pairs` (rows' end, others' end) and, for either end, the nodes that were `drawn` beside them are places among the
    ids of their type.
    """

    ids: dict[str, NDArray[np.int64]]
    pairs: Int64[Tensor, "2 P"]
    drawn: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]


def ends_of(data: PartitionedGraph, pairs: NDArray[np.int64], drawn: list[NDArray[np.int64]]) -> Ends:
    """Renumber `pairs` [2 P] and the nodes `drawn` for either end, all given by their global numbers."""
    wanted = [np.concatenate(ends) for ends in zip(pairs, drawn, strict=True)]
    if data.rows == data.others:
        ids, places = np.unique(np.concatenate(wanted), return_inverse=True)
        named, rows = {data.rows: ids}, np.split(places, [len(wanted[0])])
    else:
        both = [np.unique(each, return_inverse=True) for each in wanted]
        named, rows = {data.rows: both[0][0], data.others: both[1][0]}, [places for _, places in both]
    p = pairs.shape[1]
    ends = [torch.from_numpy(np.ascontiguousarray(places)) for places in rows]
    return Ends(named, torch.stack([e[:p] for e in ends]), (ends[0][p:], ends[1][p:]))


def parts_of_rank(data: PartitionedGraph, group: ProcessGroup) -> list[int]:
    """The parts whose nodes this worker embeds."""
    return list(range(group.rank, data.parts, group.world))


def shard_of(data: PartitionedGraph, kind: str, group: ProcessGroup) -> Shard:
    """The rows of a type in the parts of this worker."""
    return Shard.of_parts(data.manifest.nodes[kind].offsets.tolist(), parts_of_rank(data, group))


def cluster(
    z: Float32[Tensor, "n D"], shard: Shard, settings: GraphSettings, seed: int, group: ProcessGroup
) -> NodeClusters:
    """Clusters of this worker's rows by k-means, or by a map whose units are grouped into K clusters.

    The bits are the same for any number of workers. The draws are keyed by the seed alone: epochs differ by their
    embeddings only.
    """
    s, spherical = settings, settings.kmeans == "spherical"
    if s.cluster == "kmeans":
        rows = kmeans(
            z, s.k, (seed,), shard=shard, group=group, starts=s.kmeans_starts, start_rows=START_ROWS,
            spherical=spherical,
        )  # fmt: skip
        return NodeClusters(rows.labels, rows.confidence.float(), rows.centres)
    units = som(z, shard, s.grid, s.k, (seed,), group=group, spherical=spherical, rounds=s.som_iterations)
    return NodeClusters(units.labels, units.confidence.float(), units.weights, units)


def check_workers(settings: GraphSettings, world: int) -> None:
    """Raise SettingsError where some workers would have no batch of a step."""
    if world > settings.step_batches:
        raise SettingsError(
            f"--workers {world}: a step has --step-batches {settings.step_batches} to share; raise it or take fewer"
        )


def shares(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state whose names begin with a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
