"""manifest.json of a partitioned graph: what its parts contain, how they were made, and the checksum of every file.

Axes: N nodes of a type, M edges of a relation, P parts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from ops.atomic_io import atomic_write, name_fault
from ops.data.io.csr import check_offsets
from ops.data.types.hetero import REVERSE, Relation, check_type_name, relation_name, relation_of
from ops.errors import DataError
from ops.storage import object_store as s3

SCHEMA = 1
MANIFEST, WORK = "manifest.json", ".work"  # WORK: intermediate files of a build, removed at its end
AGAIN = "partition the graph again (workflows/partition_graph.py)"

Offsets = Annotated[
    NDArray[np.int64],
    PlainValidator(lambda value: np.asarray(value, dtype=np.int64)),
    PlainSerializer(lambda array: array.tolist()),
]
Named = Annotated[
    Relation,
    BeforeValidator(lambda value: relation_of(value) if isinstance(value, str) else value),
    PlainSerializer(relation_name),
]


class NodeInfo(BaseModel):
    """A node type of N nodes, of which part p has the numbers offsets[p] .. offsets[p + 1] - 1; 0 features: none.

    `names` are those of the features, or none.
    """

    model_config = ConfigDict(frozen=True)
    count: int
    offsets: Offsets
    features: int
    feature_dtype: str
    id_dtype: str
    names: tuple[str, ...] = ()


class EdgeInfo(BaseModel):
    """A relation of M edges: whether it has weights and times, and the name of the relation that it is the reverse of.

    `symmetric`: it equals its own transpose, so that it has no reverse.
    """

    model_config = ConfigDict(frozen=True)
    count: int
    weight: bool
    time: bool
    reverse_of: str | None = None
    symmetric: bool = False


class Manifest(BaseModel):
    """The manifest; `files` has bytes and SHA-256 of each, `report` is that of `ops.graph.partition.report.summary`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    version: Annotated[int, Field(alias="schema")] = SCHEMA
    name: str
    digest: str
    partitioner: dict[str, Any]
    parts: int
    nodes: dict[str, NodeInfo]
    edges: dict[Named, EdgeInfo]
    files: dict[str, dict[str, Any]]
    report: dict[str, Any]
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        for name in self.files:
            if fault := name_fault(name):
                raise ValueError(f"the name of the file {name!r} {fault}")
        for kind, n in self.nodes.items():
            check_type_name(kind, "nodes")
            if n.offsets.shape != (self.parts + 1,):
                raise ValueError(f"the offsets of {kind} do not fit {self.parts} parts of {n.count} nodes")
            check_offsets(kind, "offsets", n.offsets, n.count)
            if len(n.names) not in (0, n.features):
                raise ValueError(f"{len(n.names)} names for {n.features} features")
        return self

    @property
    def forward(self) -> tuple[Relation, ...]:
        """The relations of the graph itself, without the reverse relations that were added."""
        return tuple(r for r, info in self.edges.items() if info.reverse_of is None)

    def reverse(self, relation: Relation) -> Relation:
        """The relation that has the same edges reversed; a symmetric relation is its own."""
        return relation if self.edges[relation].symmetric else turned(relation)


def turned(relation: Relation) -> Relation:
    """("user", "follow", "note") -> ("note", "rev_follow", "user"), and back."""
    source, name, target = relation
    return target, name.removeprefix(REVERSE) if name.startswith(REVERSE) else REVERSE + name, source


def part_name(part: int) -> str:
    """The folder of a part."""
    return f"part-{part:05d}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the last file of a build, which makes the folder complete."""
    content = manifest.model_dump(mode="json", by_alias=True)
    atomic_write(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def has_manifest(place: str | Path) -> bool:
    """Whether there is a finished build in a folder or below an s3:// prefix."""
    text = str(place)
    if s3.is_s3(text):
        return MANIFEST in s3.listing(s3.parse(text), start=MANIFEST, deep=False)
    return (Path(text).expanduser() / MANIFEST).is_file()


def read_manifest(place: str | Path) -> Manifest:
    """The manifest of a folder or an s3:// prefix of shards.

    Raises DataError where there is none (no shards, or a build that has not ended), or where it is damaged or of
    another version; ServiceError where the storage does not answer.
    """
    path = f"{place}/{MANIFEST}"
    try:
        values = json.loads(_content(str(place)))
        schema = values["schema"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: is no manifest of a partitioned graph, or damaged; {AGAIN}") from None
    if schema != SCHEMA:
        raise DataError(f"{path}: has version {schema}, this program reads {SCHEMA}; {AGAIN}")
    try:
        return Manifest.model_validate(values)
    except (DataError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is damaged ({reason}); {AGAIN}") from None


def _content(place: str) -> bytes:
    if s3.is_s3(place):
        bucket = s3.parse(place)
        content = s3.read(bucket / MANIFEST)
        if content is not None:
            return content
        begun = any(name.startswith("part-") for name in s3.listing(bucket, start="part-"))
    else:
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give what workflows/partition_graph.py wrote (--out)")
        if (folder / MANIFEST).is_file():
            return (folder / MANIFEST).read_bytes()
        begun = (folder / WORK).exists() or any(folder.glob("part-*"))
    if begun:
        raise DataError(f"{place}: holds a partition that is not finished (no {MANIFEST}); "
                        "give its partition_graph.py command again")  # fmt: skip
    raise DataError(f"{place}: holds no partitioned graph (no {MANIFEST}); make one with workflows/partition_graph.py")
