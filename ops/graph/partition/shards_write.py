"""Writing shards (`ops.graph.partition.shards` says what they hold): one part all or nothing, the manifest last.

Axes: N nodes of a type, M edges of a relation, P parts, F features.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import sync, unwritable
from ops.data.types.hetero import REVERSE, HeteroGraph, Relation, relation_name
from ops.errors import DataError, SettingsError
from ops.graph.partition.csr import (
    Csr,
    Numbering,
    Runs,
    build_csr,
    edge_print,
    graph_digest,
    index_dtype,
    node_print,
    number_nodes,
    part_counts,
    route_edges,
)
from ops.graph.partition.manifest import EdgeInfo, Manifest, NodeInfo, has_manifest, part_name, turned, write_manifest
from ops.graph.partition.report import summary

FEATURE_DTYPES = ("float32", "float16")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_part(folder: Path, part: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Write part-*/NAME.npy for every array, all or nothing; returns the manifest's entries of the files.

    Raises ResourceError on a full disk, SettingsError where the place cannot be written.
    """
    final = folder / part_name(part)
    temporary = folder / f".{final.name}.tmp"
    files = {}
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            path = temporary / f"{name}.npy"
            with path.open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            sync(path)
            files[f"{final.name}/{name}.npy"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(folder)
    except OSError as error:
        raise unwritable(final, error) from None
    return files


def part_arrays(
    ids: Mapping[str, NDArray[Any]], features: Mapping[str, NDArray[Any] | None], edges: Mapping[str, Csr]
) -> dict[str, NDArray[Any]]:
    """The arrays of one part by file name: `edges` by relation name."""
    arrays = {f"ids.{kind}": own for kind, own in ids.items()}
    arrays |= {f"feat.{kind}": x for kind, x in features.items() if x is not None}
    for name, csr in edges.items():
        arrays |= {f"{name}.indptr": csr.indptr, f"{name}.indices": csr.indices}
        arrays |= {f"{name}.weight": csr.weight} if csr.weight is not None else {}
        arrays |= {f"{name}.time": csr.time} if csr.time is not None else {}
    return arrays


def all_relations(symmetric: Mapping[Relation, bool]) -> dict[Relation, Relation | None]:
    """Every relation of the shards, sorted -> the one it is the reverse of, or None; a symmetric one has no reverse.

    Raises DataError where a relation of the graph is already named like a reverse one.
    """
    for relation in symmetric:
        if relation[1].startswith(REVERSE):
            raise DataError(f"{relation_name(relation)}: names that begin with {REVERSE} are taken by the reverse "
                            "relations that partitioning adds; give the relation another name")  # fmt: skip
    found: dict[Relation, Relation | None] = dict.fromkeys(symmetric)
    found |= {turned(r): r for r, own in symmetric.items() if not own}
    return dict(sorted(found.items()))


def narrow(x: NDArray[np.float32], feature_dtype: str, where: str) -> NDArray[Any]:
    """Features in the stored dtype. Raises DataError where float16 cannot hold one."""
    with np.errstate(over="ignore"):
        stored = x.astype(feature_dtype, copy=False)
    if feature_dtype == "float16" and not np.isfinite(stored).all():
        raise DataError(f"{where}: a feature is beyond float16's range (65,504); rescale, or --feature-dtype float32")
    return stored


def write_shards(
    graph: HeteroGraph,
    part_of: Mapping[str, NDArray[np.int64]],
    folder: Path,
    *,
    parts: int | None = None,
    partitioner: Mapping[str, Any] | None = None,
    feature_dtype: str = "float32",
) -> Manifest:
    """Write a graph in memory as shards, `part_of` [N] per node type, the same bytes as the build over Ray.

    `parts`: default the largest of `part_of` + 1. Raises SettingsError where the folder holds a finished partition or
    cannot be written, DataError for names or features that cannot be stored.
    """
    if has_manifest(folder):
        raise SettingsError(f"{folder}: holds a partitioned graph already; give another folder or remove it")
    parts = 1 + max((int(p.max()) for p in part_of.values() if p.size), default=0) if parts is None else parts
    book = {kind: number_nodes(part_of[kind], parts) for kind in sorted(graph.nodes)}
    prints = {relation_name(r): edge_print(e.src, e.dst, e.weight, e.time) for r, e in graph.edges.items()}
    symmetric = {r: is_symmetric(r, prints[relation_name(r)]) for r in graph.edges}
    relations = all_relations(symmetric)
    runs = {r: _runs(graph, r, origin, book, parts) for r, origin in relations.items()}
    nodes = {
        k: NodeInfo(n.count, book[k].offsets, n.n_features, feature_dtype, id_dtype(n.ids.dtype), n.names)
        for k, n in sorted(graph.nodes.items())
    }
    edges = {r: _edge_info(graph, r, origin, symmetric.get(r, False)) for r, origin in relations.items()}
    digest = graph_digest({kind: node_print(n.ids, n.x, 0) for kind, n in graph.nodes.items()}, prints)
    files: dict[str, dict[str, Any]] = {}
    counts = []
    for part in range(parts):
        arrays, counted = _one_part(graph, book, runs, part, feature_dtype)
        files |= write_part(folder, part, arrays)
        counts.append(counted)
    manifest = Manifest(graph.name, digest, dict(partitioner or {"method": "given"}), parts, nodes, edges, files)
    manifest = with_counts(manifest, counts)
    write_manifest(folder, manifest)
    return manifest


def id_dtype(dtype: np.dtype[Any]) -> str:
    """The stored dtype of ids: int64, or unicode of a width, in numpy's words."""
    return "int64" if dtype.kind == "i" else dtype.str


def _edge_info(graph: HeteroGraph, relation: Relation, origin: Relation | None, symmetric: bool) -> EdgeInfo:
    edges = graph.edges[origin or relation]
    of = None if origin is None else relation_name(origin)
    return EdgeInfo(0, edges.weight is not None, edges.time is not None, of, symmetric)


def _runs(
    graph: HeteroGraph, relation: Relation, origin: Relation | None, book: Mapping[str, Numbering], parts: int
) -> Runs:
    """The edges of a relation by owner; of a reverse one those of `origin` turned round."""
    edges = graph.edges[origin or relation]
    ends = (edges.src, edges.dst) if origin is None else (edges.dst, edges.src)
    kind = index_dtype(max(b.part.size for b in book.values()))
    source, target = book[relation[0]], book[relation[2]]
    src, dst = (np.ascontiguousarray(end, dtype=kind) for end in ends)
    return route_edges(src, dst, edges.weight, edges.time, source.number, target.part, target.local(), parts)


def _one_part(
    graph: HeteroGraph, book: Mapping[str, Numbering], runs: Mapping[Relation, Runs], part: int, feature_dtype: str
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a part by file name, and its counts."""
    ids, features = {}, {}
    for kind, nodes in graph.nodes.items():
        own = book[kind].order[book[kind].offsets[part] : book[kind].offsets[part + 1]]
        ids[kind] = nodes.ids[own]
        features[kind] = None if nodes.x is None else narrow(nodes.x[own], feature_dtype, f"{graph.name}, {kind}")
    csrs = {r: csr_of(run.of(part), r, {k: b.offsets for k, b in book.items()}, part) for r, run in runs.items()}
    counted = part_counts(
        {relation_name(r): (r[0], r[2], csr, merged) for r, (csr, merged) in csrs.items()},
        {k: b.offsets for k, b in book.items()}, part,
    )  # fmt: skip
    return part_arrays(ids, features, {relation_name(r): csr for r, (csr, _) in csrs.items()}), counted


def csr_of(run: Runs, relation: Relation, offsets: Mapping[str, NDArray[np.int64]], part: int) -> tuple[Csr, int]:
    """One part's run (all of it) of a relation as CSR, and how many repeats were merged."""
    own = offsets[relation[2]]
    dtype = index_dtype(int(offsets[relation[0]][-1]))
    return build_csr(run.src, run.dst, int(own[part + 1] - own[part]), run.weight, run.time, dtype=dtype)


def with_counts(manifest: Manifest, counts: Sequence[Mapping[str, Any]]) -> Manifest:
    """The manifest with what was counted part by part: edges, the report, and notes on what was merged."""
    edges = {r: replace(e, count=sum(c["edges"][relation_name(r)] for c in counts)) for r, e in manifest.edges.items()}
    manifest = replace(manifest, edges=edges)
    notes = []
    for relation in manifest.forward:
        merged = sum(c["merged"][relation_name(relation)] for c in counts)
        if merged:
            has = edges[relation]
            how = ["weights summed"] * has.weight + ["latest time kept"] * has.time
            told = f": {', '.join(how)}" if how else ""
            notes.append(f"{relation_name(relation)}: {merged:,} repeated edges merged{told}")
    return replace(manifest, report=summary(manifest, counts), notes=tuple(notes))


def is_symmetric(relation: Relation, edges: list[int]) -> bool:
    """Whether a relation equals its own transpose, by its `edge_print` (an accident has a chance of 2^-64)."""
    return relation[0] == relation[2] and edges[1] == edges[3]
