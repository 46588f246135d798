"""manifest.json of a partitioned graph: what its parts hold, who made them, the checksum of every file.

Axes: N nodes of a type, M edges of a relation, P parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import name_fault, replacing
from ops.data.csr import check_offsets
from ops.data.types.hetero import REVERSE, Relation, check_type_name, relation_name, relation_of
from ops.errors import DataError
from ops.storage import object_store as s3

SCHEMA = 1
MANIFEST, WORK = "manifest.json", ".work"  # the latter: a build's intermediate files, gone when it is done


@dataclass(frozen=True)
class NodeInfo:
    """A node type: N nodes, of which part p owns the numbers offsets[p] .. offsets[p + 1] - 1; 0 features: none.

    `names`: of the features, or none.
    """

    count: int
    offsets: NDArray[np.int64]
    features: int
    feature_dtype: str
    id_dtype: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class EdgeInfo:
    """A relation: M edges, whether they have weights and times, the relation it is the reverse of (its name).

    `symmetric`: equal to its own transpose, so that it has no reverse.
    """

    count: int
    weight: bool
    time: bool
    reverse_of: str | None = None
    symmetric: bool = False


@dataclass(frozen=True)
class Manifest:
    """The manifest as Python values; `report` as `ops.graph.partition.report.summary` makes it."""

    name: str
    digest: str
    partitioner: dict[str, Any]
    parts: int
    nodes: dict[str, NodeInfo]
    edges: dict[Relation, EdgeInfo]
    files: dict[str, dict[str, Any]]
    report: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @cached_property
    def forward(self) -> tuple[Relation, ...]:
        """The relations of the graph itself, without the reverse ones that were added."""
        return tuple(r for r, info in self.edges.items() if info.reverse_of is None)

    def owner(self, kind: str, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """The part that owns each of `numbers` (any shape) of the node type `kind`."""
        found: NDArray[np.int64] = np.searchsorted(self.nodes[kind].offsets, numbers, side="right") - 1
        return found

    def reverse(self, relation: Relation) -> Relation:
        """The relation that holds the same edges turned round: a symmetric one is its own."""
        return relation if self.edges[relation].symmetric else turned(relation)


def turned(relation: Relation) -> Relation:
    """("user", "follow", "note") -> ("note", "rev_follow", "user"), and back."""
    source, name, target = relation
    return target, name.removeprefix(REVERSE) if name.startswith(REVERSE) else REVERSE + name, source


def part_name(part: int) -> str:
    """The folder of a part."""
    return f"part-{part:05d}"


def as_json(manifest: Manifest) -> dict[str, Any]:
    """What stands in the file."""
    return {
        "schema": SCHEMA,
        "name": manifest.name,
        "digest": manifest.digest,
        "partitioner": manifest.partitioner,
        "parts": manifest.parts,
        "nodes": {
            kind: {"count": n.count, "offsets": n.offsets.tolist(), "features": n.features,
                   "feature_dtype": n.feature_dtype, "id_dtype": n.id_dtype, "names": list(n.names)}
            for kind, n in sorted(manifest.nodes.items())
        },
        "edges": {
            relation_name(r): {"count": e.count, "weight": e.weight, "time": e.time, "reverse_of": e.reverse_of,
                               "symmetric": e.symmetric}
            for r, e in sorted(manifest.edges.items())
        },
        "files": dict(sorted(manifest.files.items())),
        "report": manifest.report,
        "notes": list(manifest.notes),
    }  # fmt: skip


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of a build: with it the folder is complete."""
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(as_json(manifest), indent=1) + "\n", encoding="utf-8")


def has_manifest(place: str | Path) -> bool:
    """Whether a finished build lies in a folder or below an s3:// prefix."""
    text = str(place)
    if s3.is_s3(text):
        return MANIFEST in s3.listing(s3.parse(text), start=MANIFEST, deep=False)
    return (Path(text).expanduser() / MANIFEST).is_file()


def read_manifest(place: str | Path) -> Manifest:
    """The manifest of a folder or an s3:// prefix of shards.

    Raises DataError where there is none (no shards, or a build that has not ended), where it is damaged or was written
    by another version; ServiceError where storage cannot be asked.
    """
    text = str(place)
    raw = _remote_bytes(text) if s3.is_s3(text) else _local_bytes(Path(text).expanduser())
    again = "partition the graph again (workflows/partition_graph.py)"
    try:
        values = json.loads(raw)
        schema = values["schema"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{text}/{MANIFEST}: is no manifest of a partitioned graph, or damaged; {again}") from None
    if schema != SCHEMA:
        raise DataError(f"{text}/{MANIFEST}: has version {schema}, this program reads {SCHEMA}; {again}")
    try:
        return _parse(values)
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{text}/{MANIFEST}: is damaged ({type(error).__name__}: {reason}); {again}") from None


def _parse(values: Mapping[str, Any]) -> Manifest:
    nodes = {kind: NodeInfo(**(n | {"offsets": np.array(n["offsets"], dtype=np.int64), "names": _names(n)}))
             for kind, n in values["nodes"].items()}  # fmt: skip
    edges = {relation_of(name): EdgeInfo(**e) for name, e in values["edges"].items()}
    parts = int(values["parts"])
    for name in values["files"]:
        if fault := name_fault(name):
            raise ValueError(f"the name of the file {name!r} {fault}")
    for kind, n in nodes.items():
        check_type_name(kind, "nodes")
        if n.offsets.shape != (parts + 1,):
            raise ValueError(f"the offsets of {kind} do not fit {parts} parts of {n.count} nodes")
        check_offsets(kind, "offsets", n.offsets, n.count)
    return Manifest(
        str(values["name"]), str(values["digest"]), dict(values["partitioner"]), parts, nodes, edges,
        dict(values["files"]), dict(values["report"]), tuple(values.get("notes", ())),
    )  # fmt: skip


def _names(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the features; manifests written before there were any have none."""
    found = tuple(str(name) for name in node.get("names", ()))
    if len(found) not in (0, node["features"]):
        raise ValueError(f"{len(found)} names for {node['features']} features")
    return found


def _local_bytes(folder: Path) -> bytes:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give what workflows/partition_graph.py wrote (--out)")
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError:
        begun = (folder / WORK).exists() or any(folder.glob("part-*"))
        raise _absent(str(folder), begun) from None


def _remote_bytes(text: str) -> bytes:
    place = s3.parse(text)
    content = s3.read(place / MANIFEST)
    if content is None:
        raise _absent(text, any(name.startswith("part-") for name in s3.listing(place, start="part-")))
    return content


def _absent(place: str, begun: bool) -> DataError:
    if begun:
        return DataError(f"{place}: holds a partition that is not finished (no {MANIFEST}); "
                         "give its partition_graph.py command again")  # fmt: skip
    return DataError(f"{place}: holds no partitioned graph (no {MANIFEST}); make one with workflows/partition_graph.py")
