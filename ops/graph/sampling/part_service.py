"""The answers for one part. This module does not import torch, so that an actor that serves a part stays small.

Axes: B rows of a block, F fan-out or features, M pairs or ids, P parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.readers import cache_file
from ops.data.types.hetero import Relation
from ops.graph.partition.csr import index_dtype
from ops.graph.partition.manifest import Manifest
from ops.graph.partition.shards import GraphPart, fetch_shards, open_shard
from ops.rng import generator
from ops.storage.object_store import is_s3

Drawn = NDArray[Any]  # source numbers [B F] in the stored width, -1 where there is no edge


@dataclass(frozen=True)
class HopRequest:
    """A question to a part at one hop: its nodes by type, the key of each relation, fan-out and mode.

    `rows` are numbers within the part (`numbers_within`).
    """

    rows: dict[str, NDArray[Any]]
    keys: dict[Relation, int]
    fanout: int
    mode: int


def numbers_within(manifest: Manifest, kind: str, part: int, ids: NDArray[np.int64]) -> NDArray[Any]:
    """The numbers of a part's nodes within it, in 32 bits where these are enough: small messages cost less."""
    first, end = manifest.nodes[kind].offsets[part : part + 2]
    local: NDArray[Any] = (ids - first).astype(index_dtype(int(end - first)))
    return local


def by_owner(manifest: Manifest, kind: str, ids: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Positions of `ids` by the part that has them, ascending within a part; parts without any are left out."""
    from ops.graph.kernels.draws import grouped

    if manifest.parts == 1:
        return {0: np.arange(len(ids))} if len(ids) else {}
    order, ends = grouped(manifest.nodes[kind].offsets, ids)
    return {p: order[ends[p] : ends[p + 1]] for p in range(manifest.parts) if ends[p] < ends[p + 1]}


class PartService:
    """Answers for one part, in a process that maps all parts or in an actor (`PartServiceActor`).

    The first question opens the part, so that damaged files give an answer and not a dead actor.
    """

    def __init__(self, folder: str, manifest: Manifest, part: int, verify: bool = True) -> None:
        self._source = folder, manifest, part, verify
        self.first = {kind: int(nodes.offsets[part]) for kind, nodes in manifest.nodes.items()}
        self._order: tuple[Any, NDArray[np.int64]] | None = None

    @cached_property
    def shard(self) -> GraphPart:
        """The part's arrays, mapped from its files."""
        folder, manifest, part, verify = self._source
        return open_shard(cached(folder, [part]) if is_s3(folder) else Path(folder), manifest, part, verify)

    def health(self) -> dict[str, int]:
        """The id of this process, and the part's nodes by type."""
        return {"pid": os.getpid()} | {kind: len(ids) for kind, ids in self.shard.ids.items()}

    def ids(self, kind: str) -> NDArray[Any]:
        """The original ids of the part's nodes."""
        return np.asarray(self.shard.ids[kind])

    def sample(self, requests: Sequence[HopRequest]) -> list[dict[Relation, Drawn]]:
        """Keyed neighbours of the part's nodes, for all relations of all requests in one call."""
        return [self._sample(request) for request in requests]

    def _sample(self, request: HopRequest) -> dict[Relation, Drawn]:
        from ops.graph.kernels.draws import neighbours

        answer = {}
        for relation, key in request.keys.items():
            rows, csr = request.rows[relation[2]], self.shard.relations[relation]
            drawn = np.empty((len(rows), request.fanout), csr.indices.dtype)
            first = self.first[relation[2]]
            neighbours(csr.indptr, csr.indices, rows, first, np.uint64(key), request.fanout, request.mode, drawn)
            answer[relation] = drawn
        return answer

    def features(self, kind: str, batches: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """[M F] in the stored precision for each batch, whose rows [M] are numbers within the part."""
        table = self.shard.features[kind]
        return [np.take(table, rows, axis=0) for rows in batches]  # several times faster than indexing

    def busiest(self, kind: str, share: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The nodes with the most incoming edges, a share of the part's, ascending, and their features."""
        degrees = np.zeros(len(self.shard.ids[kind]), np.int64)
        for relation, csr in self.shard.relations.items():
            if relation[2] == kind:
                degrees += np.diff(csr.indptr)
        top = np.sort(np.argsort(-degrees, kind="stable")[: int(share * degrees.size)])
        return top + self.first[kind], np.asarray(self.shard.features[kind][top])

    def edges(self, relation: Relation) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The edges into the part's nodes as they are in its files: row starts, and numbers of the sources."""
        csr = self.shard.relations[relation]
        return np.asarray(csr.indptr), np.asarray(csr.indices)

    def sizes(self) -> dict[Relation, int]:
        """The number of edges by relation."""
        return {r: len(csr.indices) for r, csr in self.shard.relations.items()}

    def seed_edges(
        self, relations: Sequence[Relation], seed: int, epoch: int, number: int, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Batch `number` of the part's edges in keyed order: pairs int64 [2 M] of global numbers, relation [M]."""
        key, csrs = (tuple(relations), seed, epoch), [self.shard.relations[r] for r in relations]
        ends = np.cumsum([0, *(len(csr.indices) for csr in csrs)])
        if self._order is None or self._order[0] != key:
            self._order = key, generator(seed, "pairs", epoch, self.shard.part).permutation(int(ends[-1]))
        chosen = np.sort(self._order[1][number * size : (number + 1) * size])
        pairs, which = np.empty((2, len(chosen)), np.int64), np.empty(len(chosen), np.int64)
        for i, (relation, csr) in enumerate(zip(relations, csrs, strict=True)):
            low, high = np.searchsorted(chosen, ends[i : i + 2])
            places = chosen[low:high] - ends[i]
            pairs[0, low:high] = csr.indices[places]
            pairs[1, low:high] = np.searchsorted(csr.indptr, places, side="right") - 1 + self.first[relation[2]]
            which[low:high] = i
        return pairs, which


class PartServiceActor(PartService):
    """The service as a process of its own, which keeps the memory of its answers for later ones."""

    def __init__(self, folder: str, manifest: Manifest, part: int) -> None:
        memory.keep_freed()
        super().__init__(folder, manifest, part)


def cached(place: str, parts: Sequence[int]) -> Path:
    """A folder of this machine that has these parts of a partition on S3."""
    folder = cache_file("x").parent / "partitions" / hashlib.sha256(place.encode()).hexdigest()[:16]
    fetch_shards(place, folder, parts)
    return folder
