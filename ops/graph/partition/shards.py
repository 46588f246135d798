"""Shards: the parts of a partitioned graph as files. Write one, open one, read all as one graph, fetch them.

    manifest.json            ops/graph/partition/manifest.py; written last
    part-00007/ids.user.npy  original ids of the part's users; feat.user.npy: their features, where users have any
    part-00007/user__follow__note.indptr.npy   edges into the part's notes: int64 [n + 1], by destination
                                .indices.npy   numbers of their sources in the whole graph, sorted within a row
                                .weight.npy .time.npy   float32 and int64 (seconds), where the relation has them

Nodes are renumbered type by type so that a part owns one range of numbers, in the order of the input within it. An
edge lies with the owner of its destination; every relation has its reverse as a relation of its own.
Axes: N nodes of a type, M edges of a relation, P parts, n nodes and m edges of a part, F features.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import inside, sha256, sync, unwritable
from ops.data.io.csr import check_csr
from ops.data.types.hetero import Relation, relation_name
from ops.errors import DataError
from ops.graph.partition.arrays import map_array
from ops.graph.partition.csr import Csr
from ops.graph.partition.manifest import Manifest, part_name, read_manifest, write_manifest
from ops.storage import object_store as s3


@dataclass(frozen=True)
class GraphPart:
    """One part, mapped from disk: original ids [n] and features [n, F] by node type, edges into its nodes by relation.

    Row i of type t has the number `manifest.nodes[t].offsets[part] + i` in the whole graph.
    """

    part: int
    ids: dict[str, NDArray[Any]]
    features: dict[str, NDArray[Any]]
    relations: dict[Relation, Csr]


def write_part(folder: Path, part: int, arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, Any]]:
    """Write part-*/NAME.npy for every array, all or nothing; returns the entries of the files for the manifest.

    Raises ResourceError on a full disk, SettingsError where the folder cannot be written.
    """
    final = folder / part_name(part)
    temporary = folder / f".{final.name}.tmp"
    files = {}
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            path = temporary / f"{name}.npy"
            np.save(path, np.ascontiguousarray(array), allow_pickle=False)
            sync(path)
            files[f"{final.name}/{name}.npy"] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        sync(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(folder)
    except OSError as error:
        raise unwritable(final, error) from None
    return files


def open_shard(folder: Path, manifest: Manifest, part: int, verify: bool = True) -> GraphPart:
    """Map part `part` of a folder of shards; with `verify` every byte is first read and checked.

    Raises DataError, which names the missing or damaged file, and ValueError for a part out of range.
    """
    if not 0 <= part < manifest.parts:
        raise ValueError(f"part {part} is not in [0, {manifest.parts})")
    arrays = {}
    for name, stored in manifest.files.items():
        if name.startswith(f"{part_name(part)}/"):
            path = inside(Path(folder), name)
            _check_file(path, stored, verify)
            arrays[path.name.removesuffix(".npy")] = map_array(path)
    columns = ("indptr", "indices", "weight", "time")
    try:
        for r in manifest.edges:
            n, name = manifest.nodes[r[2]], relation_name(r)
            shape = int(n.offsets[part + 1] - n.offsets[part]), manifest.nodes[r[0]].count
            origin = f"{folder}/{part_name(part)}/{name}"
            check_csr(origin, arrays[f"{name}.indptr"], arrays[f"{name}.indices"], shape)
        return GraphPart(
            part,
            {kind: arrays[f"ids.{kind}"] for kind in manifest.nodes},
            {kind: arrays[f"feat.{kind}"] for kind, info in manifest.nodes.items() if info.features},
            {r: Csr(**{c: arrays[f"{relation_name(r)}.{c}"] for c in columns if getattr(edges, c, True)})
             for r, edges in manifest.edges.items()},
        )  # fmt: skip
    except KeyError as error:
        raise DataError(f"{folder}: the manifest lists no file {error} of part {part}; partition again") from None


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


def to_homogeneous(
    folder: Path, verify: bool = True
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64], NDArray[np.float32] | None, NDArray[Any], NDArray[np.int64]]:
    """A partition of one node type and one symmetric relation as one graph: (x, edge_index, weight, ids, part).

    In the new numbers: x float32 [N, F] or None, edge_index int64 [2, M] (source, destination), weight float32 [M] or
    None, ids [N], part int64 [N]. Raises DataError for any other graph, and as `open_shard` does.
    """
    manifest = read_manifest(folder)
    if len(manifest.nodes) != 1 or len(manifest.edges) != 1:
        types = ", ".join(sorted(manifest.nodes))
        raise DataError(f"{folder}: holds {len(manifest.nodes)} node types ({types}) and {len(manifest.forward)} "
                        "relations; a homogeneous graph has one of each, the same in both directions")  # fmt: skip
    ((kind, info),) = manifest.nodes.items()
    shards = [open_shard(folder, manifest, part, verify) for part in range(manifest.parts)]
    csrs = [csr for shard in shards for csr in shard.relations.values()]
    sources = np.concatenate([csr.indices for csr in csrs]).astype(np.int64)
    # the rows of the parts, one part after the other, are in the order of the numbers
    targets = np.repeat(np.arange(info.count, dtype=np.int64), np.concatenate([np.diff(csr.indptr) for csr in csrs]))
    x = np.concatenate([shard.features[kind] for shard in shards]).astype(np.float32) if info.features else None
    part_of = np.repeat(np.arange(manifest.parts, dtype=np.int64), np.diff(info.offsets))
    given = [csr.weight for csr in csrs if csr.weight is not None]
    weight = np.concatenate(given) if given else None
    return x, np.stack([sources, targets]), weight, np.concatenate([shard.ids[kind] for shard in shards]), part_of


def fetch_shards(place: str, folder: Path, parts: Sequence[int] | None = None) -> Manifest:
    """Bring a partition (or some `parts` of it) from s3:// to a folder of this machine, the manifest last.

    Files that have the right size and checksum already stay. Raises DataError where there is no finished partition or a
    file is missing, ServiceError where the storage does not answer, ResourceError on a full disk.
    """
    manifest = read_manifest(place)
    wanted = {part_name(part) for part in (range(manifest.parts) if parts is None else parts)}
    for name, stored in manifest.files.items():
        path = inside(Path(folder), name)
        if name.partition("/")[0] not in wanted:
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
