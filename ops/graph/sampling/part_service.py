"""What the owner of a part answers, and who owns what. Without torch: an actor that serves a part stays small.

Axes: B rows of a block, F fan-out or features, M pairs or ids, P parts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.graphs import cache_file
from ops.data.types.hetero import Relation
from ops.graph.partition.csr import index_dtype
from ops.graph.partition.manifest import Manifest
from ops.graph.partition.shards import Shard, fetch_shards, open_shard
from ops.rng import generator
from ops.storage.object_store import is_s3

Drawn = NDArray[Any]  # source numbers [B F], -1 where there is no edge; as wide as they are stored


@dataclass(frozen=True)
class Book:
    """Who owns what: of each type the parts' first numbers [P + 1], and the relations with their ends."""

    offsets: dict[str, NDArray[np.int64]]
    relations: tuple[Relation, ...]

    @property
    def parts(self) -> int:
        """P."""
        return len(next(iter(self.offsets.values()))) - 1

    def count(self, kind: str) -> int:
        """How many nodes of a type there are."""
        return int(self.offsets[kind][-1])

    def owner(self, kind: str, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part of each node of a type."""
        return np.searchsorted(self.offsets[kind], ids, side="right") - 1

    def within(self, kind: str, part: int, ids: NDArray[np.int64]) -> NDArray[Any]:
        """A part's own nodes by their numbers within it, in 32 bits where these hold them: small messages cost less."""
        first, end = self.offsets[kind][part : part + 2]
        found: NDArray[Any] = (ids - first).astype(index_dtype(int(end - first)))
        return found

    def into(self, kind: str) -> list[Relation]:
        """The relations that end in a type."""
        return [r for r in self.relations if r[2] == kind]


@dataclass(frozen=True)
class Request:
    """What a part is asked at one hop: its own nodes by type, the key of each relation, fan-out and mode.

    `rows`: numbers within the part (`Book.within`).
    """

    rows: dict[str, NDArray[Any]]
    keys: dict[Relation, int]
    fanout: int
    mode: int


def answer(
    stored: Mapping[Relation, tuple[NDArray[np.int64], NDArray[np.integer]]], first: Mapping[str, int], asked: Request
) -> dict[Relation, Drawn]:
    """A part's answer: `stored` has (indptr, indices) per relation, `first` the part's first number per type."""
    from ops.graph.kernels.draws import neighbours

    found = {}
    for relation, key in asked.keys.items():
        rows = asked.rows[relation[2]]
        indptr, indices = stored[relation]
        drawn = np.empty((len(rows), asked.fanout), indices.dtype)
        neighbours(indptr, indices, rows, first[relation[2]], np.uint64(key), asked.fanout, asked.mode, drawn)
        found[relation] = drawn
    return found


def by_owner(book: Book, kind: str, ids: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """Positions of `ids` by the part that owns them, ascending within a part; parts without any are left out."""
    from ops.graph.kernels.draws import grouped

    if book.parts == 1:
        return {0: np.arange(len(ids))} if len(ids) else {}
    order, ends = grouped(book.offsets[kind], ids)
    return {p: order[ends[p] : ends[p + 1]] for p in range(book.parts) if ends[p] < ends[p + 1]}


class PartService:
    """What the owner of a part answers; the body of a shard actor, and of the local backend.

    The part is opened by the first question: what is wrong with its files is an answer, not a dead actor.
    """

    def __init__(self, folder: str, manifest: Manifest, part: int, verify: bool = True) -> None:
        self._where = folder, manifest, part, verify
        self.first = {kind: int(nodes.offsets[part]) for kind, nodes in manifest.nodes.items()}
        self._order: tuple[Any, NDArray[np.int64]] | None = None

    @cached_property
    def shard(self) -> Shard:
        """The part's arrays, mapped from its files."""
        folder, manifest, part, verify = self._where
        here = cached(folder, [part]) if is_s3(folder) else Path(folder)
        return open_shard(here, manifest, part, verify=verify)

    @cached_property
    def _csr(self) -> dict[Relation, tuple[NDArray[np.int64], NDArray[Any]]]:
        return {r: (csr.indptr, csr.indices) for r, csr in self.shard.relations.items()}

    def health(self) -> dict[str, int]:
        """The process that answers, and its part's nodes by type."""
        return {"pid": os.getpid()} | {kind: len(ids) for kind, ids in self.shard.ids.items()}

    def ids(self, kind: str) -> NDArray[Any]:
        """The original ids of the part's nodes."""
        return np.asarray(self.shard.ids[kind])

    def sample(self, request: Request) -> dict[Relation, Drawn]:
        """Keyed neighbours of the part's nodes, all relations of the request in one call."""
        return answer(self._csr, self.first, request)

    def features(self, kind: str, rows: NDArray[Any]) -> NDArray[Any]:
        """[M F] in the stored precision; `rows` [M] are numbers within the part."""
        return np.take(self.shard.features[kind], rows, axis=0)  # several times faster than indexing

    def busiest(self, kind: str, share: float) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """The share of the part's nodes with the most incoming edges, ascending, and their features."""
        degrees = sum((np.diff(csr.indptr) for r, csr in self.shard.relations.items() if r[2] == kind), np.int64(0))
        count = len(self.shard.ids[kind])
        if np.ndim(degrees) == 0:
            degrees = np.zeros(count, np.int64)
        top = np.sort(np.argsort(-degrees, kind="stable")[: int(share * count)])
        return top + self.first[kind], np.asarray(self.shard.features[kind][top])

    def sizes(self) -> dict[Relation, int]:
        """Edges by relation."""
        return {r: len(csr.indices) for r, csr in self.shard.relations.items()}

    def seed_edges(
        self, relations: Sequence[Relation], seed: int, epoch: int, number: int, size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Batch `number` of the part's edges in keyed order: pairs int64 [2 M] of global numbers, relation [M]."""
        key = tuple(relations), seed, epoch
        if self._order is None or self._order[0] != key:
            total = sum(len(self._csr[r][1]) for r in relations)
            self._order = key, generator(seed, "pairs", epoch, self.shard.part).permutation(total)
        chosen = np.sort(self._order[1][number * size : (number + 1) * size])
        pairs, which, before = np.empty((2, len(chosen)), np.int64), np.empty(len(chosen), np.int64), 0
        for i, relation in enumerate(relations):
            indptr, indices = self._csr[relation]
            low, high = np.searchsorted(chosen, [before, before + len(indices)])
            places = chosen[low:high] - before
            pairs[0, low:high] = indices[places]
            pairs[1, low:high] = np.searchsorted(indptr, places, side="right") - 1 + self.first[relation[2]]
            which[low:high] = i
            before += len(indices)
        return pairs, which


def cached(place: str, parts: Sequence[int]) -> Path:
    """A folder of this machine that holds these parts of a partition on S3."""
    folder = cache_file("x").parent / "partitions" / hashlib.sha256(place.encode()).hexdigest()[:16]
    fetch_shards(place, folder, parts)
    return folder
