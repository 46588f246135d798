"""The pure map and reduce steps of a partition: new numbers, edges to the parts of their destinations, CSR, digests.

Nothing here reads or writes files; `ops.graph.partition.tasks` runs these steps. Edges are columns by name: "src" and
"dst", and where the relation has them "weight" (float32) and "time" (int64 seconds). Axes: N nodes, M edges, P parts, n
nodes and m edges of a part, F features.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import Relation, merge_repeats, relation_name

EdgeColumns = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Csr:
    """The edges into n nodes: the sources of row i are indices[indptr[i] : indptr[i + 1]], sorted, each once.

    `indptr` int64 [n + 1], `indices` int32 or int64 [m] (numbers in the whole graph); where the relation has them,
    `weight` float32 [m] and `time` int64 [m] (seconds).
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    weight: NDArray[np.float32] | None = None
    time: NDArray[np.int64] | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays that are not None, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}


def index_dtype(count: int) -> np.dtype[Any]:
    """int32 while numbers below `count` fit, else int64."""
    return np.dtype(np.int32 if count <= 2**31 - 1 else np.int64)


def number_nodes(part: NDArray[Any], parts: int) -> dict[str, NDArray[Any]]:
    """New numbers of the nodes of one type by their `part` [N] in [0, P): part by part, within a part as given.

    Returns "part" int32 [N], "number" [N], "local" [N] (each row's place within its part) and "offsets" int64 [P + 1],
    the first number of each part. Raises ValueError for a part outside of the range.
    """
    if part.size and not 0 <= int(part.min()) <= int(part.max()) < parts:
        raise ValueError(f"parts must be in [0, {parts}), got {int(part.min())} to {int(part.max())}")
    order, offsets = by_part(part, parts)
    number = np.empty(part.size, dtype=index_dtype(part.size))
    number[order] = np.arange(part.size, dtype=number.dtype)
    return {"part": part.astype(np.int32), "number": number, "local": (number - offsets[part]).astype(number.dtype),
            "offsets": offsets}  # fmt: skip


def by_part(part: NDArray[Any], parts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [N] in the order of `part` [N] in [0, P), stable, and where each part begins, int64 [P + 1]."""
    bounds = np.zeros(parts + 1, dtype=np.int64)
    np.cumsum(np.bincount(part, minlength=parts), out=bounds[1:])
    return np.argsort(part.astype(np.int16 if parts <= 2**15 else np.int32), kind="stable"), bounds  # 16 bits: radix


def route_edges(edges: EdgeColumns, source: EdgeColumns, target: EdgeColumns) -> dict[str, NDArray[Any]]:
    """The map step: edges [M] (ends are rows) sorted by the part of their destination, otherwise in the given order.

    `source` and `target` are the `number_nodes` of the two ends. Returns "bounds" int64 [P + 1] (part p has the edges
    bounds[p] .. bounds[p + 1] - 1), "src" as new numbers, "dst" as rows within the part, and the other columns.
    """
    order, bounds = by_part(target["part"][edges["dst"]], target["offsets"].size - 1)
    routed = {name: column[order] for name, column in edges.items()}
    return routed | {"bounds": bounds, "src": source["number"][routed["src"]], "dst": target["local"][routed["dst"]]}


def build_csr(edges: EdgeColumns, n: int, sources: int, *, merge: bool = True) -> tuple[Csr, int]:
    """The reduce step: edges [m] from `sources` nodes into n rows, as CSR, and how many repeated edges were merged.

    `merge`: see `ops.data.types.hetero.merge_repeats`.
    """
    others = {name: column for name, column in edges.items() if name not in ("src", "dst")}
    keys, others, repeats = merge_repeats(edges["dst"].astype(np.int64) * sources + edges["src"], others, merge=merge)
    rows, indices = np.divmod(keys, max(sources, 1))
    indptr = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return Csr(indptr, indices.astype(edges["src"].dtype), **others), repeats


def part_counts(
    csrs: Mapping[Relation, tuple[Csr, int]], offsets: Mapping[str, NDArray[np.int64]], part: int
) -> dict[str, Any]:
    """What the report needs of one part, as JSON: counts of nodes, edges, cut edges, self loops, repeats, the halo.

    `csrs` has the edges of each relation and how many repeats were merged. The halo of a node type is the number of its
    nodes in other parts that have an edge into this one.
    """
    counts: dict[str, Any] = {key: {} for key in ("edges", "cut", "loops", "merged", "halo")}
    counts["nodes"] = {kind: int(bounds[part + 1] - bounds[part]) for kind, bounds in offsets.items()}
    halo: dict[str, list[NDArray[Any]]] = {kind: [np.empty(0, np.int32)] for kind in offsets}
    for (source, relation, target), (csr, merged) in csrs.items():
        name = relation_name((source, relation, target))
        first, last = int(offsets[source][part]), int(offsets[source][part + 1])
        remote = csr.indices[(csr.indices < first) | (csr.indices >= last)]
        halo[source].append(remote)
        counts["edges"][name], counts["cut"][name] = int(csr.indices.size), int(remote.size)
        counts["loops"][name], counts["merged"][name] = 0, merged
        if source == target:
            rows = np.repeat(np.arange(first, last, dtype=csr.indices.dtype), np.diff(csr.indptr))
            counts["loops"][name] = int(np.count_nonzero(rows == csr.indices))
    for kind, numbers in halo.items():
        ranked = np.sort(np.concatenate(numbers))  # numpy's `unique`, which hashes, takes five times as long
        counts["halo"][kind] = int(np.count_nonzero(ranked[1:] != ranked[:-1])) + (ranked.size > 0)
    return counts


def edge_print(edges: EdgeColumns) -> list[int]:
    """[edges, sum, sum, sum of the reversed edges] over edges [M] by rows; the sums of pieces add up modulo 2^64.

    A relation within one type whose first and third sum are equal equals its transpose (by accident with probability
    2^-64).
    """
    from ops.graph.kernels.digests import edge_digest

    weight, time = edges.get("weight"), edges.get("time")
    bits = np.empty(0, dtype=np.uint32) if weight is None else np.ascontiguousarray(weight).view(np.uint32)
    sums = edge_digest(edges["src"], edges["dst"], bits, np.empty(0, dtype=np.int64) if time is None else time)
    return [int(edges["src"].size), *(int(value) for value in sums)]


def node_print(ids: NDArray[Any], x: NDArray[np.float32] | None, first: int) -> list[int]:
    """[nodes, sums of their ids and of their features] of rows `first`, `first` + 1, ...; pieces add up too."""
    from ops.graph.kernels.digests import row_prints

    sums = [int(ids.size)]
    for values in (ids, x):
        if values is None or values.size == 0:
            sums += [0, 0]
            continue
        raw = np.ascontiguousarray(values).reshape(len(values), -1)
        words = raw.view(np.uint64 if raw.dtype == np.int64 else np.uint32).astype(np.uint64, copy=False)
        sums += [int(value) for value in row_prints(words, first)]
    return sums


def add_prints(prints: list[list[int]]) -> list[int]:
    """The print of a whole, from the prints of its pieces."""
    return [sum(values) % 2**64 for values in zip(*prints, strict=True)]


def graph_digest(nodes: Mapping[str, list[int]], edges: Mapping[str, list[int]]) -> str:
    """SHA-256, hexadecimal, of a graph's prints: of ids, features and edges, whatever their order or chunks.

    Labels are not part of it.
    """
    text = json.dumps({"nodes": dict(nodes), "edges": dict(edges)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
