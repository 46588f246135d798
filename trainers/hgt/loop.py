"""What HGT and TwHIN share: who trains what of an epoch, clusters of the embeddings, and the way to a result.

Axes: N clustered nodes, n of them in this worker's parts, O nodes at the other end, P pairs of a batch, D width, K
clusters, U map units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.distributed_kmeans import team_kmeans
from ops.clustering.lloyd import Rows, everyone
from ops.clustering.som import Som, som
from ops.distributed.process_group import Team
from ops.errors import DivergedError, SettingsError
from ops.graph.sampling.client import Client, prefetched
from ops.graph.sampling.dataset import PartitionedGraph, steps_of
from ops.memory import give_back
from trainers.hgt.settings import GraphSettings


@dataclass(frozen=True)
class Found:
    """Clusters of all nodes: labels and confidence [N]; centres [K D], or the units [U D] of the `map`."""

    labels: Int64[Tensor, "N"]
    confidence: Float32[Tensor, "N"]
    centres: Float[Tensor, "_ D"]
    map: Som | None = None


@runtime_checkable
class Training(Protocol):
    """A method's model between two epochs."""

    @property
    def data(self) -> PartitionedGraph:
        """What it trains on."""

    @property
    def settings(self) -> GraphSettings:
        """How."""

    @property
    def team(self) -> Team:
        """With whom."""

    def step(self, epoch: int) -> dict[str, float]:
        """Train one epoch; its metrics."""

    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """The embeddings of this worker's nodes of a type, part after part."""

    def link(self) -> dict[str, NDArray[np.float32]]:
        """What scoring a link needs besides both embeddings: `shift` [D] of (s + shift) . t; {}: it is the cosine."""

    def state(self, epoch: int) -> State:
        """All that a resumed run needs."""

    def tensors(self) -> dict[str, Tensor]:
        """The model as it is stored; every worker has to call it."""


def run_epochs(training: Training, run: Run) -> Result:
    """All epochs from where the run stands, with clusters at update epochs and the last one."""
    settings, last = training.settings, training.settings.epochs - 1
    found: tuple[Found, dict[str, Any]] | None = None
    for epoch in range(run.start.epoch + 1 if run.start else 0, settings.epochs):
        metrics = training.step(epoch)
        assignment, embeddings = None, None
        if epoch % settings.update_every == 0 or epoch == last:
            give_back()  # embedding all nodes is the peak: what the steps' threads have freed is not to lie below it
            found = look(training, run.seed)
            assignment, embeddings = found[0].labels.numpy(), found[1]
        run.report(epoch, metrics, assignment, lambda epoch=epoch: training.state(epoch), embeddings)  # type: ignore[misc]
    # without one it was resumed from the state of the last epoch: nothing was left to train
    return _result(training, *(found or look(training, run.seed)))


def label_edges(client: Client, data: PartitionedGraph) -> list[int]:
    """How many edges of the label relations each part has."""
    return [sum(sizes[r] for r in data.labels) for sizes in client.sizes()]


def steps(
    edges: list[int], settings: GraphSettings, team: Team, seed: int, epoch: int, prepare: Callable[..., Any]
) -> Iterator[tuple[int, list[Any]]]:
    """Each step of an epoch: how many batches it has, and those of this worker, `prepare`d ahead by threads."""
    dealt = steps_of(edges, settings.batch, seed, epoch, settings.step_batches, settings.epoch_steps)
    own = [each[team.rank :: team.world] for each in dealt]
    ready = prefetched((partial(prepare, *which) for each in own for which in each), settings.prefetch)
    for each, mine in zip(dealt, own, strict=True):
        yield len(each), [next(ready) for _ in mine]


@dataclass(frozen=True)
class Ends:
    """The nodes of a batch: unique global numbers by type, and as places among those of their type the `pairs` (rows'
    end, others' end) and, for either end, the nodes that were `drawn` besides."""

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


def own_parts(data: PartitionedGraph, team: Team) -> list[int]:
    """The parts whose nodes this worker embeds."""
    return list(range(team.rank, data.parts, team.world))


def rows_of(data: PartitionedGraph, kind: str, team: Team) -> Rows:
    """The rows of those parts."""
    return Rows.of_parts(data.manifest.nodes[kind].offsets.tolist(), own_parts(data, team))


def look(training: Training, seed: int) -> tuple[Found, dict[str, Any]]:
    """Clusters of the nodes as they are embedded now, and the embeddings of both ends of the label relations."""
    data, team = training.data, training.team
    rows = rows_of(data, data.rows, team)
    z = training.embed(data.rows)
    if not torch.isfinite(z).all():
        raise DivergedError("the embeddings are not finite any more; lower --lr")
    found = cluster(z, rows, training.settings, seed, team)
    embeddings = {"embedding": everyone(z, rows, team).numpy()}
    if data.others != data.rows:
        others = rows_of(data, data.others, team)
        embeddings["others"] = everyone(training.embed(data.others), others, team).numpy()
    return found, embeddings


def cluster(z: Float32[Tensor, "n D"], rows: Rows, settings: GraphSettings, seed: int, team: Team) -> Found:
    """k-means, or a map whose units are grouped into K clusters; the same bits on any number of workers.

    Keyed by the seed alone: epochs differ by their embeddings only.
    """
    spherical = settings.kmeans == "spherical"
    if settings.cluster == "kmeans":
        made = team_kmeans(z, rows, settings.k, (seed,), team=team, starts=settings.kmeans_starts, spherical=spherical)
        found = Found(made.labels, made.confidence.float(), made.centres, None)
    else:
        own = som(
            z, rows, settings.grid, settings.k, (seed,), team=team, spherical=spherical, rounds=settings.som_iterations
        )
        found = Found(own.labels, own.confidence.float(), own.weights, own)
    return Found(everyone(found.labels, rows, team), everyone(found.confidence, rows, team), found.centres, found.map)


def check_workers(settings: GraphSettings, world: int) -> None:
    """Raise SettingsError where workers would have nothing to do: they share the batches of a step."""
    if world > settings.step_batches:
        raise SettingsError(
            f"--workers {world}: a step has --step-batches {settings.step_batches} to share; raise it or take fewer"
        )


def shares(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state under a prefix, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _result(training: Training, found: Found, embeddings: dict[str, Any]) -> Result:
    tensors = training.tensors() | {"centres": found.centres}
    # one type at both ends: it stands for the others, too, or nothing would be kept for the scores
    more = {"others": embeddings.get("others", embeddings["embedding"])} | training.link()
    if found.map is not None:
        tensors["unit_clusters"] = found.map.unit_clusters
        drawn = {"umatrix": found.map.umatrix, "hits": found.map.hits, "unit_clusters": found.map.unit_clusters}
        more |= {f"map_{name}": values.numpy() for name, values in drawn.items()}
        more["map_errors"] = np.array([found.map.quantisation, found.map.topographic])
    return Result(found.labels.numpy(), found.confidence.numpy(), embeddings["embedding"], tensors, more)
