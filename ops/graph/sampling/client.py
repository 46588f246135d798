"""The graph service: one client for the parts of a partitioned graph, in this process or in Ray actors.

An actor has one part, which never changes; a restarted actor reads its files again and answers as before. The client
asks the actors that have the nodes, keeps the features of the busiest nodes, and turns answers into samples. The
answers of this process and of actors are the same to the last bit.

Axes: N nodes, M pairs, F features, P parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.hetero import Relation
from ops.errors import ServiceError
from ops.graph.partition.manifest import Manifest, NodeInfo
from ops.graph.sampling.neighbor_sampler import Call, Mode, Neighbourhood, Sample, samples
from ops.graph.sampling.part_service import PartService, PartServiceActor, by_owner, numbers_within

MAX_RESTARTS, MAX_TASK_RETRIES = 8, 8  # finite, since a request that kills its actor must not restart it for ever
PREFETCH_THREADS = 2
CACHE_SHARE, CACHE_BYTES = 0.1, 256 << 20  # features that a client of actors keeps: share of a type's nodes, bytes
Cached = tuple[
    NDArray[np.int64], NDArray[Any], NDArray[np.int64]
]  # global numbers, features, hash table of the numbers


@dataclass
class Client:
    """Samples, features and seed edges of the whole graph.

    `call` asks the parts; `draw` asks whatever draws neighbours, the parts or this process.
    """

    manifest: Manifest
    call: Call
    draw: Call
    cache_share: float = 0.0  # in this process the page cache is enough
    _cached: dict[str, Cached] = field(default_factory=dict)

    def sample(
        self, roots: Mapping[str, NDArray[np.int64]], fanout: Sequence[int], key: tuple[int, ...],
        mode: Mode = "distinct", without: tuple[Relation, NDArray[np.int64]] | None = None,
        featured: Sequence[str] = (),
    ) -> Sample:  # fmt: skip
        """One neighbourhood with features."""
        return self.samples([Neighbourhood(roots, fanout, key, mode, without)], featured)[0]

    def samples(self, wanted: Sequence[Neighbourhood], featured: Sequence[str] = ()) -> list[Sample]:
        """`neighbor_sampler.samples` with the features of the types `featured` at the outermost depth."""
        drawn = samples(self.manifest, self.draw, wanted)
        features: list[dict[str, Tensor]] = [{} for _ in drawn]
        for kind in featured:
            outer = {i: each.nodes[-1][kind] for i, each in enumerate(drawn) if kind in each.nodes[-1]}
            for i, rows in zip(outer, self._features(kind, list(outer.values())), strict=True):
                features[i][kind] = rows
        return [replace(each, features=x) for each, x in zip(drawn, features, strict=True)]

    def features(self, kind: str, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32 [M F] of nodes by their global numbers."""
        return next(self._features(kind, [ids])).numpy()

    def _features(self, kind: str, batches: Sequence[NDArray[np.int64]]) -> Iterator[Tensor]:
        """float32 [M F] of the nodes of each batch: the busiest from the cache, the others by one question a part."""
        from ops.graph.kernels.draws import places

        info, (busiest, rows, slots) = self.manifest.nodes[kind], self._busiest(kind)
        cached = [places(slots, busiest, ids) for ids in batches]
        owned, asked = [], dict[int, list[NDArray[Any]]]()
        for ids, at in zip(batches, cached, strict=True):
            missing = np.flatnonzero(at < 0)
            by_part = by_owner(self.manifest, kind, ids[missing])
            owned.append({part: missing[rest] for part, rest in by_part.items()})
            for part, positions in owned[-1].items():
                asked.setdefault(part, []).append(numbers_within(self.manifest, kind, part, ids[positions]))
        answers = self.call("features", {part: (kind, numbers) for part, numbers in asked.items()})
        waiting = {part: iter(each) for part, each in answers.items()}
        for at, by_part in zip(cached, owned, strict=True):
            table = np.empty((len(at), info.features), info.feature_dtype)  # float32 only when all is in place
            hit = np.flatnonzero(at >= 0)
            table[hit] = np.take(rows, at[hit], axis=0)
            for part, positions in by_part.items():
                table[positions] = next(waiting[part])
            yield torch.from_numpy(table).float()

    def seed_edges(
        self, relations: Sequence[Relation], part: int, key: tuple[int, int, int], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Batch (part, number) of an epoch, key (seed, epoch, number): pairs [2 M], which of `relations` [M]."""
        pairs, which = self.call("seed_edges", {part: (tuple(relations), *key, size)})[part]
        return pairs, which

    def sizes(self) -> list[dict[Relation, int]]:
        """How many edges every part has, by relation."""
        return self._of_all_parts("sizes")

    def ids(self, kind: str) -> NDArray[Any]:
        """The original ids of all nodes of a type, in the order of their global numbers."""
        return np.concatenate(self._of_all_parts("ids", kind))

    def _of_all_parts(self, name: str, *arguments: Any) -> list[Any]:
        answers = self.call(name, dict.fromkeys(range(self.manifest.parts), arguments))
        return [answers[part] for part in range(self.manifest.parts)]

    def _busiest(self, kind: str) -> Cached:
        if kind not in self._cached:
            from ops.graph.kernels.draws import table_of

            info = self.manifest.nodes[kind]
            ids, rows = np.empty(0, np.int64), np.empty((0, info.features), info.feature_dtype)
            if share := min(self.cache_share, CACHE_BYTES / max(1, feature_bytes(info))):
                answers = self._of_all_parts("busiest", kind, share)
                ids, rows = (np.concatenate(arrays) for arrays in zip(*answers, strict=True))
            self._cached[kind] = ids, rows, table_of(ids)
        return self._cached[kind]


def feature_bytes(info: NodeInfo) -> int:
    """Bytes of the features of all nodes of a type, as they are stored."""
    return info.count * info.features * np.dtype(info.feature_dtype).itemsize


def cache_bytes(manifest: Manifest) -> int:
    """Bytes of the features of the busiest nodes that a client of actors keeps, at most."""
    return sum(int(min(CACHE_SHARE * feature_bytes(info), CACHE_BYTES)) for info in manifest.nodes.values())


def local_client(folder: str | Path, manifest: Manifest, *, verify: bool = True) -> Client:
    """A client whose parts are mapped in this process. Raises DataError for a damaged or missing part."""
    parts = [PartService(str(folder), manifest, part, verify) for part in range(manifest.parts)]
    for each in parts:
        each.health()

    def call(name: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        return {part: getattr(parts[part], name)(*given) for part, given in arguments.items()}

    return Client(manifest, call, call)


def remote_client(folder: str, manifest: Manifest, actors: Sequence[Any], *, replicated: bool = False) -> Client:
    """A client of running actors; with `replicated` neighbours are drawn in this process, which maps the edges."""
    call = _calls(actors)
    draw = local_client(folder, manifest, verify=False).call if replicated else call
    return Client(manifest, call, draw, CACHE_SHARE)


def _calls(actors: Sequence[Any]) -> Call:
    """Call all parts at once. Raises ServiceError where an actor has died for good."""
    import ray

    def call(name: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        waiting = {part: getattr(actors[part], name).remote(*given) for part, given in arguments.items()}
        try:
            return dict(zip(waiting, ray.get(list(waiting.values())), strict=True))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise ServiceError(
                f"the graph service has lost a part for good after {MAX_RESTARTS} restarts "
                f"({str(error).splitlines()[0]}); the checkpoint is kept, give the same command again"
            ) from None

    return call


def start_service(folder: str, manifest: Manifest) -> list[Any]:
    """Start one actor for each part, spread over the nodes; Ray must be running.

    An actor ends with its last handle or with the session. Raises DataError or ServiceError where a part cannot be
    read.
    """
    import ray

    actor = ray.remote(num_cpus=0, max_restarts=MAX_RESTARTS, max_task_retries=MAX_TASK_RETRIES)(PartServiceActor)
    spread = actor.options(scheduling_strategy="SPREAD")
    actors = [spread.remote(folder, manifest, part) for part in range(manifest.parts)]
    _calls(actors)("health", dict.fromkeys(range(manifest.parts), ()))
    return actors


def stop_service(actors: Sequence[Any]) -> None:
    """End the actors."""
    import ray

    for actor in actors:
        ray.kill(actor)


def prefetched(makers: Iterable[Callable[[], Any]], ahead: int = PREFETCH_THREADS) -> Iterator[Any]:
    """The results of the makers, in order; up to `ahead` of them work in threads meanwhile (0: none)."""
    if ahead == 0:
        for make in makers:
            yield make()
        return
    waiting = iter(makers)
    with ThreadPoolExecutor(ahead) as pool:
        futures = [pool.submit(make) for make in islice(waiting, ahead)]
        while futures:
            result = futures.pop(0).result()
            futures += [pool.submit(make) for make in islice(waiting, 1)]
            yield result
