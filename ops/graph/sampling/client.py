"""The graph service: the parts of a partitioned graph behind one client, in this process or in Ray actors.

An actor owns one part, read-only; a restarted one reads its files again and answers as before. The client routes by
the book, keeps the features of the busiest nodes, and turns answers into samples. Local and remote answers are the
same to the last bit.

Axes: N nodes, M pairs, F features, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ops.data.types.hetero import Relation
from ops.errors import ServiceError
from ops.graph.partition.shards import Manifest
from ops.graph.sampling.neighbor_sampler import Mode, Sample, sample
from ops.graph.sampling.part_service import Book, Drawn, PartService, Request, by_owner

MAX_RESTARTS, MAX_TASK_RETRIES = 8, 8  # finite: a request that kills its actor must not restart it without end
PREFETCH_THREADS = 2
Cached = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]  # global numbers, their table, features


@runtime_checkable
class Backend(Protocol):
    """Whoever holds the parts."""

    book: Book

    def draw(self, requests: Mapping[int, Request]) -> dict[int, dict[Relation, Drawn]]:
        """See `ops.graph.sampling.neighbor_sampler.Topology`."""

    def call(self, name: str, asked: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """The answer of each part's `PartService.<name>` to its arguments."""


@dataclass
class LocalBackend:
    """All parts in this process, mapped from their files."""

    book: Book
    parts: list[PartService]

    def draw(self, requests: Mapping[int, Request]) -> dict[int, dict[Relation, Drawn]]:
        """One after the other."""
        return {part: self.parts[part].sample(request) for part, request in requests.items()}

    def call(self, name: str, asked: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """One after the other."""
        return {part: getattr(self.parts[part], name)(*arguments) for part, arguments in asked.items()}


@dataclass
class RemoteBackend:
    """One actor a part. Raises ServiceError where one has died for good."""

    book: Book
    actors: Sequence[Any]
    topology: LocalBackend | None = None  # replicated: neighbours are drawn here, features come from the actors

    def draw(self, requests: Mapping[int, Request]) -> dict[int, dict[Relation, Drawn]]:
        """All parts at once."""
        if self.topology is not None:
            return self.topology.draw(requests)
        return self.call("sample", {part: (request,) for part, request in requests.items()})

    def call(self, name: str, asked: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """All parts at once."""
        import ray

        waiting = {part: getattr(self.actors[part], name).remote(*arguments) for part, arguments in asked.items()}
        try:
            return dict(zip(waiting, ray.get(list(waiting.values())), strict=True))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise ServiceError(
                f"the graph service has lost a part for good after {MAX_RESTARTS} restarts "
                f"({str(error).splitlines()[0]}); the checkpoint is kept, give the same command again"
            ) from None


@dataclass
class Client:
    """Samples, features and seed edges of the whole graph, wherever its parts are."""

    backend: Backend
    cache_share: float = 0.1
    _cached: dict[str, Cached] = field(default_factory=dict)

    @property
    def book(self) -> Book:
        """Who owns what."""
        return self.backend.book

    def sample(
        self, roots: Mapping[str, NDArray[np.int64]], fanout: Sequence[int], key: tuple[int, ...],
        mode: Mode = "distinct", without: tuple[Relation, NDArray[np.int64]] | None = None,
        featured: Iterable[str] = (),
    ) -> Sample:  # fmt: skip
        """`neighbor_sampler.sample` with the features of the types `featured` at the outermost depth."""
        found = sample(self.backend, roots, fanout, key, mode, without)
        outer = found.nodes[-1]
        features = {kind: torch.from_numpy(self.features(kind, outer[kind])) for kind in featured if kind in outer}
        return replace(found, features=features)

    def features(self, kind: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [M F] of nodes by their global numbers: the busiest from the cache, the others from their owners."""
        from ops.graph.kernels.draws import places

        hot, slots, rows = self._hot(kind)
        at = places(slots, hot, ids)
        cached, missing = np.flatnonzero(at >= 0), np.flatnonzero(at < 0)
        owned = by_owner(self.book, kind, ids[missing])
        asked = {part: (kind, self.book.within(kind, part, ids[missing[own]])) for part, own in owned.items()}
        answers = self.backend.call("features", asked)
        # all answers one after the other, made float32 at once, then brought into the order of `ids`
        order = np.concatenate([cached, *(missing[own] for own in owned.values())])
        stacked = np.concatenate([np.take(rows, at[cached], axis=0), *(answers[part] for part in owned)])
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        found: NDArray[np.float32] = torch.from_numpy(stacked).float()[torch.from_numpy(back)].numpy()
        return found

    def seed_edges(
        self, relations: Sequence[Relation], part: int, key: tuple[int, int, int], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Batch (part, number) of an epoch, key = (seed, epoch, number): pairs [2 M], which of `relations` [M]."""
        found: tuple[NDArray[np.int64], NDArray[np.int64]]
        found = self.backend.call("seed_edges", {part: (tuple(relations), *key, size)})[part]
        return found

    def sizes(self) -> list[dict[Relation, int]]:
        """Edges by relation of every part."""
        found = self.backend.call("sizes", dict.fromkeys(range(self.book.parts), ()))
        return [found[part] for part in range(self.book.parts)]

    def ids(self, kind: str) -> NDArray[Any]:
        """The original ids of all nodes of a type, in the order of their global numbers."""
        found = self.backend.call("ids", dict.fromkeys(range(self.book.parts), (kind,)))
        return np.concatenate([found[part] for part in range(self.book.parts)])

    def _hot(self, kind: str) -> Cached:
        from ops.graph.kernels.draws import hashed

        if kind not in self._cached:
            # in process the page cache is the cache
            share = 0.0 if isinstance(self.backend, LocalBackend) else self.cache_share
            found = self.backend.call("busiest", dict.fromkeys(range(self.book.parts), (kind, share)))
            ids, rows = (np.concatenate([found[part][i] for part in range(self.book.parts)]) for i in (0, 1))
            self._cached[kind] = ids, hashed(ids), rows
        return self._cached[kind]


def book_of(manifest: Manifest) -> Book:
    """Who owns what, from the manifest alone."""
    offsets = {kind: np.asarray(nodes.offsets, np.int64) for kind, nodes in manifest.nodes.items()}
    return Book(offsets, tuple(manifest.edges))


def local_client(folder: str | Path, manifest: Manifest, *, verify: bool = True) -> Client:
    """A client whose parts are mapped in this process. Raises DataError for a damaged or missing part."""
    parts = [PartService(str(folder), manifest, part, verify) for part in range(manifest.parts)]
    for each in parts:
        each.health()
    return Client(LocalBackend(book_of(manifest), parts))


def start_service(folder: str, manifest: Manifest) -> list[Any]:
    """One actor a part, spread over the nodes; Ray must be running. They end with their last handle or the session.

    Raises DataError or ServiceError where a part cannot be read.
    """
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=MAX_TASK_RETRIES)(PartService)
    spread = actor.options(scheduling_strategy="SPREAD")
    actors = [spread.remote(folder, manifest, part) for part in range(manifest.parts)]
    RemoteBackend(book_of(manifest), actors).call("health", dict.fromkeys(range(manifest.parts), ()))
    return actors


def stop_service(actors: Sequence[Any]) -> None:
    """End the actors."""
    import ray

    for actor in actors:
        ray.kill(actor)


def remote_client(folder: str, manifest: Manifest, actors: Sequence[Any], *, replicated: bool = False) -> Client:
    """A client of running actors; `replicated`: the topology is mapped in this process besides."""
    local = local_client(folder, manifest, verify=False).backend if replicated else None
    assert local is None or isinstance(local, LocalBackend)
    return Client(RemoteBackend(book_of(manifest), actors, local))


def prefetched(makers: Iterable[Callable[[], Any]], ahead: int = PREFETCH_THREADS) -> Iterator[Any]:
    """What each maker makes, in order, with up to `ahead` of them at work in threads; 0: none ahead."""
    if ahead == 0:
        for make in makers:
            yield make()
        return
    waiting = iter(makers)
    with ThreadPoolExecutor(ahead) as pool:
        futures = [pool.submit(make) for make in islice(waiting, ahead)]
        while futures:
            done = futures.pop(0)
            result = done.result()
            futures += [pool.submit(make) for make in islice(waiting, 1)]
            yield result
