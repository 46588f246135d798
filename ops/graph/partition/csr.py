"""The pure map and reduce steps of a partition: new numbers, edges to their owners, CSR by destination, digests.

Nothing here reads or writes files or knows Ray: `ops.graph.partition.tasks` runs these steps, `write_shards` in
memory, with the same bytes. Axes: N nodes, M edges, P parts, n nodes of a part, F features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError

_MASK = 2**64 - 1
DAMAGED = "the build's files are damaged: give the same command with --fresh"


@dataclass(frozen=True)
class Csr:
    """The edges into n nodes: sources of row i are indices[indptr[i] : indptr[i + 1]], sorted, each once.

    `indptr` int64 [n + 1], `indices` int32 or int64 [m] (numbers in the whole graph), `weight` float32 [m] and `time`
    int64 [m] (seconds) where the relation has them.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    weight: NDArray[np.float32] | None = None
    time: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Numbering:
    """Of one node type: part [N] int32; number [N], each row's new number; order [N], its inverse; offsets [P + 1]."""

    part: NDArray[np.int32]
    number: NDArray[Any]
    order: NDArray[Any]
    offsets: NDArray[np.int64]

    def local(self) -> NDArray[Any]:
        """Each row's place within its part, [N]."""
        return (self.number - self.offsets[self.part]).astype(self.number.dtype)


@dataclass(frozen=True)
class Runs:
    """Edges [M] sorted by owner, otherwise as given: part p's are bounds[p] .. bounds[p + 1] - 1.

    `src` are new numbers, `dst` rows within the owner; `weight` and `time` or None.
    """

    bounds: NDArray[np.int64]
    src: NDArray[Any]
    dst: NDArray[Any]
    weight: NDArray[np.float32] | None
    time: NDArray[np.int64] | None

    def of(self, part: int) -> Runs:
        """One part's run."""
        here = slice(int(self.bounds[part]), int(self.bounds[part + 1]))
        weight, time = (
            None if self.weight is None else self.weight[here],
            None if self.time is None else self.time[here],
        )
        ends = np.array([0, here.stop - here.start], dtype=np.int64)
        return Runs(ends, self.src[here], self.dst[here], weight, time)


def index_dtype(count: int) -> np.dtype[Any]:
    """int32 while numbers below `count` fit, else int64."""
    return np.dtype(np.int32 if count <= 2**31 - 1 else np.int64)


def number_nodes(part: NDArray[Any], parts: int) -> Numbering:
    """New numbers of the nodes of one type by their `part` [N] in [0, P): part by part, in a part as given.

    Raises ValueError for a part outside of the range.
    """
    from ops.graph.kernels.csr import numbering

    if part.size and not 0 <= int(part.min()) <= int(part.max()) < parts:
        raise ValueError(f"parts must be in [0, {parts}), found {int(part.min())} and {int(part.max())}")
    kind = index_dtype(part.size)
    owner = np.ascontiguousarray(part, dtype=np.int32)
    offsets = np.zeros(parts + 1, dtype=np.int64)
    number, order = np.empty(part.size, dtype=kind), np.empty(part.size, dtype=kind)
    numbering(owner, offsets, number, order)
    return Numbering(owner, number, order, offsets)


def route_edges(
    src: NDArray[Any],
    dst: NDArray[Any],
    weight: NDArray[np.float32] | None,
    time: NDArray[np.int64] | None,
    number: NDArray[Any],
    part: NDArray[np.int32],
    local: NDArray[Any],
    parts: int,
) -> Runs:
    """The map step: edges [M] (rows) as runs by owner. `number` of the source type, `part` and `local` of the other's.

    Raises DataError for an edge between rows, or into a part, that there are not.
    """
    from ops.graph.kernels.csr import route

    m = dst.size
    if src.size != m or local.size != part.size:
        raise DataError(f"{src.size} sources for {m} edges, {local.size} rows for {part.size} nodes; {DAMAGED}")
    bounds = np.zeros(parts + 1, dtype=np.int64)
    out_src, out_dst = np.empty(m, dtype=number.dtype), np.empty(m, dtype=local.dtype)
    order = np.empty(m if weight is not None or time is not None else 0, dtype=np.int64)
    bad = route(src, dst, part, number, local, bounds, out_src, out_dst, order)
    if bad >= 0:
        raise DataError(f"edge {bad} joins rows {src[bad]} and {dst[bad]} of {number.size} and {part.size} nodes in "
                        f"{parts} parts; {DAMAGED}")  # fmt: skip
    return Runs(bounds, out_src, out_dst, None if weight is None else weight[order],
                None if time is None else time[order])  # fmt: skip


def sort_rows(
    src: NDArray[Any], dst: NDArray[Any], indptr: NDArray[Any], indices: NDArray[Any], order: NDArray[Any]
) -> None:
    """Edges [M] as rows, written to `indptr`, `indices`, `order` as `kernels_build.rows_of` does.

    Raises DataError for an edge into a row that there is not.
    """
    from ops.graph.kernels.csr import rows_of

    bad = rows_of(src, dst, indptr, indices, order)
    if bad >= 0:
        raise DataError(f"edge {bad} leads into row {dst[bad]}, which is not in 0..{indptr.size - 2}; {DAMAGED}")


def build_csr(
    src: NDArray[Any],
    dst: NDArray[Any],
    n: int,
    weight: NDArray[np.float32] | None = None,
    time: NDArray[np.int64] | None = None,
    *,
    dtype: np.dtype[Any] | None = None,
) -> tuple[Csr, int]:
    """The reduce step: edges [m] into n rows as CSR by destination, and how many repeats were merged.

    Of repeated edges the weights are summed in the order given and the latest time stays. `indices` get `dtype`.
    Raises DataError for an edge into a row that there is not.
    """
    from ops.graph.kernels.csr import merge, repeats

    indptr = np.zeros(n + 1, dtype=np.int64)
    indices = np.empty(src.size, dtype=src.dtype)
    order = np.empty(src.size if weight is not None or time is not None else 0, dtype=np.int64)
    sort_rows(src, dst, indptr, indices, order)
    own_weight = np.empty(0, dtype=np.float32) if weight is None else weight[order]
    own_time = np.empty(0, dtype=np.int64) if time is None else time[order]
    merged = int(repeats(indptr, indices))
    if merged:
        left = merge(indptr, indices, own_weight, own_time)
        indices, own_weight, own_time = indices[:left].copy(), own_weight[:left].copy(), own_time[:left].copy()
    if dtype is not None:
        indices = indices.astype(dtype, copy=False)
    return Csr(indptr, indices, None if weight is None else own_weight, None if time is None else own_time), merged


def part_counts(
    edges: Mapping[str, tuple[str, str, Csr, int]], offsets: Mapping[str, NDArray[np.int64]], part: int
) -> dict[str, Any]:
    """What the report needs of one part, as JSON: counts of nodes, edges, cut edges, self loops, repeats, the halo.

    `edges`: relation name -> (source type, destination type, CSR, repeats). The halo of a node type: how many of its
    nodes in other parts have an edge into this one.
    """
    counts: dict[str, Any] = {"edges": {}, "cut": {}, "loops": {}, "merged": {}, "halo": {}}
    counts["nodes"] = {kind: int(own[part + 1] - own[part]) for kind, own in offsets.items()}
    far: dict[str, list[NDArray[Any]]] = {kind: [] for kind in offsets}
    for name, (source, target, csr, merged) in edges.items():
        first, last = int(offsets[source][part]), int(offsets[source][part + 1])
        remote = csr.indices[(csr.indices < first) | (csr.indices >= last)]
        far[source].append(remote)
        loops = 0
        if source == target:
            rows = np.repeat(np.arange(csr.indptr.size - 1, dtype=np.int64), np.diff(csr.indptr))
            loops = int(np.count_nonzero(rows + first == csr.indices))
        counts["edges"][name], counts["cut"][name] = int(csr.indices.size), int(remote.size)
        counts["loops"][name], counts["merged"][name] = loops, merged
    for kind, found in far.items():
        counts["halo"][kind] = _distinct(np.concatenate(found)) if found else 0
    return counts


def _distinct(values: NDArray[Any]) -> int:
    """How many different values there are; numpy's `unique`, which hashes, takes five times as long."""
    ranked = np.sort(values)
    return int(np.count_nonzero(ranked[1:] != ranked[:-1])) + (ranked.size > 0)


def edge_print(
    src: NDArray[Any], dst: NDArray[Any], weight: NDArray[np.float32] | None, time: NDArray[np.int64] | None
) -> list[int]:
    """[edges, sum, sum, sum of the edges turned round] of edges [M] by rows; sums of pieces add up modulo 2^64.

    A relation within one type whose first and third sum agree equals its transpose.
    """
    from ops.graph.kernels.csr import fingerprint

    bits = np.empty(0, dtype=np.uint32) if weight is None else np.ascontiguousarray(weight).view(np.uint32)
    when = np.empty(0, dtype=np.int64) if time is None else time
    return [int(src.size), *(int(v) for v in fingerprint(src, dst, bits, when))]


def node_print(ids: NDArray[Any], x: NDArray[np.float32] | None, first: int) -> list[int]:
    """[nodes, sums of their ids and of their features] of rows `first`, `first` + 1, ...; pieces add up likewise."""
    from ops.graph.kernels.csr import row_prints

    found = [int(ids.size)]
    for values in (ids, x):
        if values is None or values.size == 0:
            found += [0, 0]
            continue
        raw = np.ascontiguousarray(values).reshape(len(values), -1)
        words = raw.view(np.uint64 if raw.dtype == np.int64 else np.uint32).astype(np.uint64, copy=False)
        found += [int(v) for v in row_prints(words, first)]
    return found


def add_prints(prints: list[list[int]]) -> list[int]:
    """The print of a whole from those of its pieces."""
    return [sum(values) & _MASK for values in zip(*prints, strict=True)]


def graph_digest(nodes: Mapping[str, list[int]], edges: Mapping[str, list[int]]) -> str:
    """SHA-256, hexadecimal, of a graph's prints: ids, features and edges whatever their order or chunks; no labels."""
    text = json.dumps({"nodes": dict(nodes), "edges": dict(edges)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
