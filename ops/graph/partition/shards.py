"""Shards: the parts of a partitioned graph as files. Write them from a graph in memory, open one, read all as one.

    manifest.json            ops/graph/partition/manifest.py; written last
    part-00007/ids.user.npy  original ids of the part's users; feat.user.npy: their features, where users have any
    part-00007/user__follow__note.indptr.npy   edges into the part's notes: int64 [n + 1], by destination
                                .indices.npy   numbers of their sources in the whole graph, sorted within a row
                                .weight.npy .time.npy   float32 and int64 (seconds), where the relation has them

Nodes are renumbered type by type so that a part owns one range of numbers, in the order of the input within it. An
edge lies with the owner of its destination; every relation has its reverse as a relation of its own.
Axes: N nodes of a type, M edges of a relation, P parts, n nodes and m edges of a part, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import inside
from ops.data.csr import check_csr
from ops.data.types.hetero import Relation, relation_name
from ops.errors import DataError
from ops.graph.partition.csr import Csr, index_dtype
from ops.graph.partition.manifest import EdgeInfo, Manifest, NodeInfo, part_name, read_manifest, write_manifest
from ops.graph.partition.shards_write import sha256, write_shards
from ops.storage import object_store as s3

__all__ = ["Csr", "EdgeInfo", "Manifest", "NodeInfo", "Shard", "fetch_shards", "open_shard", "read_manifest",
           "to_homogeneous", "write_shards"]  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """One part, mapped from disk: original ids [n] and features [n, F] by node type, edges into its nodes by relation.

    Row i of type t is the number `manifest.nodes[t].offsets[part] + i` of the whole graph.
    """

    part: int
    ids: dict[str, NDArray[Any]]
    features: dict[str, NDArray[Any]]
    relations: dict[Relation, Csr]


def open_shard(folder: Path, manifest: Manifest, part: int, verify: bool = True) -> Shard:
    """Map part `part` of a folder of shards; with `verify` every byte is read and checked first.

    Rows and numbers of edges are checked always: who wrote them may have written the checksums too. Raises DataError
    naming the file that is missing, damaged or of another shape than the manifest says, ValueError for a part out of
    range.
    """
    if not 0 <= part < manifest.parts:
        raise ValueError(f"part {part} is not in [0, {manifest.parts})")
    here = Path(folder) / part_name(part)
    for name, stored in manifest.files.items():
        if name.startswith(f"{part_name(part)}/"):
            _check_file(Path(folder) / name, stored, verify)
    ids, features, relations = {}, {}, {}
    for kind, info in manifest.nodes.items():
        n = int(info.offsets[part + 1] - info.offsets[part])
        ids[kind] = _map(here / f"ids.{kind}.npy", (n,), info.id_dtype)
        if info.features:
            features[kind] = _map(here / f"feat.{kind}.npy", (n, info.features), info.feature_dtype)
    for relation, edge in manifest.edges.items():
        source, _, target = relation
        name = relation_name(relation)
        n = int(manifest.nodes[target].offsets[part + 1] - manifest.nodes[target].offsets[part])
        indptr = _map(here / f"{name}.indptr.npy", (n + 1,), "int64")
        m = int(indptr[-1])
        kind_of = index_dtype(manifest.nodes[source].count).name
        indices = _map(here / f"{name}.indices.npy", (m,), kind_of)
        check_csr(str(here / name), indptr, indices, (n, manifest.nodes[source].count))
        weight = _map(here / f"{name}.weight.npy", (m,), "float32") if edge.weight else None
        time = _map(here / f"{name}.time.npy", (m,), "int64") if edge.time else None
        relations[relation] = Csr(indptr, indices, weight, time)
    return Shard(part, ids, features, relations)


def _check_file(path: Path, stored: Mapping[str, Any], verify: bool) -> None:
    again = "copy it again or partition the graph again"
    if not path.is_file():
        raise DataError(f"{path}: this file of the partition is missing; {again}")
    if path.stat().st_size != stored["bytes"]:
        raise DataError(
            f"{path}: is damaged ({path.stat().st_size} bytes, the manifest says {stored['bytes']}); {again}"
        )
    if verify and sha256(path) != stored["sha256"]:
        raise DataError(f"{path}: is damaged (its checksum is not the manifest's); {again}")


def _map(path: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """A stored array, mapped copy-on-write: nobody can change the file, compiled loops take it as any array."""
    try:
        # an empty array has nothing to map
        array: NDArray[Any] = np.load(path, mmap_mode=None if 0 in shape else "c", allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: cannot be read ({reason}); partition the graph again") from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise DataError(f"{path}: holds {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
    return array


def to_homogeneous(
    folder: Path, verify: bool = True
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64], NDArray[Any], NDArray[np.int64]]:
    """A partition of one node type and one symmetric relation, read as a whole: (x, edge_index, ids, part).

    In the new numbers: x float32 [N, F] or None, edge_index int64 [2, M] (source, destination), ids [N], part int64
    [N]. Raises DataError for anything else than such a graph, and as `open_shard` does.
    """
    manifest = read_manifest(folder)
    if len(manifest.nodes) != 1 or len(manifest.edges) != 1:
        types = ", ".join(sorted(manifest.nodes))
        raise DataError(f"{folder}: holds {len(manifest.nodes)} node types ({types}) and {len(manifest.forward)} "
                        "relations; a homogeneous graph has one of each, the same in both directions")  # fmt: skip
    ((kind, info),) = manifest.nodes.items()
    xs, ids, sources, targets = [], [], [], []
    for part in range(manifest.parts):
        shard = open_shard(folder, manifest, part, verify)
        (csr,) = shard.relations.values()
        ids.append(shard.ids[kind])
        xs.append(shard.features.get(kind))
        sources.append(np.asarray(csr.indices, dtype=np.int64))
        rows = np.arange(csr.indptr.size - 1, dtype=np.int64) + info.offsets[part]
        targets.append(np.repeat(rows, np.diff(csr.indptr)))
    own = [np.asarray(x, dtype=np.float32) for x in xs if x is not None]
    edge_index = np.stack([np.concatenate(sources), np.concatenate(targets)])
    part_of = np.repeat(np.arange(manifest.parts, dtype=np.int64), np.diff(info.offsets))
    return np.concatenate(own) if own else None, edge_index, np.concatenate(ids), part_of


def fetch_shards(place: str, folder: Path, parts: Sequence[int] | None = None) -> Manifest:
    """Bring a partition (or some `parts` of it) from s3:// to a folder of this machine, the manifest last.

    Files that are there with the right size and checksum stay. Raises DataError where the place holds no finished
    partition or lacks a file, ServiceError where storage cannot be asked, ResourceError on a full disk.
    """
    manifest = read_manifest(place)
    wanted = None if parts is None else {part_name(p) for p in parts}
    for name, stored in manifest.files.items():
        path = inside(Path(folder), name)
        if wanted is not None and name.partition("/")[0] not in wanted:
            continue
        if path.is_file() and path.stat().st_size == stored["bytes"] and sha256(path) == stored["sha256"]:
            continue
        try:
            s3.download(s3.parse(place) / name, path)
        except s3.Missing:
            raise DataError(
                f"{place}/{name}: this file of the partition is missing; partition the graph again"
            ) from None
        _check_file(path, stored, verify=True)
    write_manifest(Path(folder), manifest)
    return manifest
