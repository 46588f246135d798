"""Graphs of node and edge types from a name, a file or a folder, on disk or on S3: whole, or chunk by chunk.

`load_hetero(spec)` -> (HeteroGraph, groups by type or None); `open_graph(spec)` reads only footers, headers and
listings of a folder of tables, whose chunks `ops.data.io.chunks` reads.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.catalog.graphs import canonical
from ops.data.catalog.movielens import NAMES, read_ml100k
from ops.data.io.chunks import (
    Chunk,
    check_alike,
    chunks_of,
    node_chunks,
    place_of,
    places_of,
    read_edge_table,
    read_node_table,
)
from ops.data.io.ids import Lookup, check_unique, joined_ids
from ops.data.io.labels import label_table, make_labels, unlabelled
from ops.data.io.layout import Layout, find_layout
from ops.data.io.readers import check_name, is_folder, place_name
from ops.data.io.recbole import find_atomic, read_recbole
from ops.data.io.schema import edge_columns
from ops.data.io.validate import make_hetero
from ops.data.load import load
from ops.data.synthetic.user_item import planted_communities
from ops.data.types.hetero import NODE, Edges, HeteroGraph, Nodes, Relation, from_homogeneous, relation_name
from ops.errors import SettingsError

Groups = dict[str, NDArray[np.int64]]
Loaded = tuple[HeteroGraph, Groups | None]


@dataclass(frozen=True)
class Tables:
    """The chunks of a graph by node type and relation, in the order of the rows.

    `names` of the features by type, where each has one; `symmetric`: relations said (graph.yaml) to equal their own
    transpose.
    """

    name: str
    nodes: dict[str, tuple[Chunk, ...]]
    edges: dict[Relation, tuple[Chunk, ...]]
    names: dict[str, tuple[str, ...]]
    symmetric: tuple[Relation, ...] = ()
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 of which files there are and how they are cut; their stamps stand for what is in them."""
        tables = self.nodes | {relation_name(r): chunks for r, chunks in self.edges.items()}
        chunks = {key: [asdict(chunk) for chunk in table] for key, table in tables.items()}
        return hashlib.sha256(json.dumps(chunks, sort_keys=True).encode()).hexdigest()


def load_hetero(spec: str) -> Loaded:
    """Load and check a graph of node and edge types; groups int64 [N] by type come back beside it, never in it.

    `spec`: `planted[:users=1000,notes=600,...]`, `ml-100k`, a folder of tables (nodes/, edges/, labels/), of the
    original's files or of RecBole's, here or on s3://, or anything that `ops.data.load.load` reads, as the type
    "node" and the relation ("node", "edge", "node"). Groups are what labels/ (or a planted graph) says, else None;
    -1 where a node has no label. Raises DataError for input that is missing or malformed, SettingsError for a wrong
    parameter, ResourceError for what does not fit the memory.
    """
    layout = _layout(spec)
    if layout is None:
        return _load_whole(spec)
    listed = tables_of(layout)
    chunks = [chunk for table in [*listed.nodes.values(), *listed.edges.values()] for chunk in table]
    memory.check_load(sum(chunk.bytes_in_memory for chunk in chunks), layout.origin)
    nodes = {kind: replace(gather_nodes(kind, chunks), names=listed.names[kind])
             for kind, chunks in listed.nodes.items()}  # fmt: skip
    lookups = {kind: Lookup(kind, each.ids) for kind, each in nodes.items()}
    edges = {relation: _edges(chunks, lookups[relation[0]], lookups[relation[2]])
             for relation, chunks in listed.edges.items()}  # fmt: skip
    graph = make_hetero(listed.name, nodes, edges, listed.notes, origin=layout.origin)
    groups, notes = {}, []
    for kind, files in layout.labels.items():
        labels = label_table(files, lookups[kind].n, lookups[kind], strict=True)
        groups[kind] = make_labels(labels, lookups[kind].n, origin=files[0].uri)
        notes += [f"{kind}: {note}" for note in unlabelled(groups[kind])]
    return graph.with_notes(*notes), groups or None


def open_graph(spec: str) -> Tables | HeteroGraph:
    """The tables of a folder or s3:// prefix, of which no rows are read yet; what is no folder of tables as a whole.

    Raises DataError for headers that do not fit, tables without rows, columns that differ between files of a table.
    """
    layout = _layout(spec)
    return _load_whole(spec)[0] if layout is None else tables_of(layout)


def tables_of(layout: Layout) -> Tables:
    """The chunks of a folder's files. Raises DataError for headers that do not fit and tables without rows."""
    nodes = {kind: node_chunks(files, kind) for kind, files in layout.nodes.items()}
    edges, notes = {}, list(layout.notes)
    for relation, files in layout.edges.items():
        columns, title = [edge_columns(file) for file in files], relation_name(relation)
        check_alike(files, [tuple(sorted(filter(None, c.roles))) for c in columns], "columns")
        edges[relation] = chunks_of(files, columns, title)
        rest = sorted({name for c in columns for name in c.ignored})
        notes += [f"{title}: columns ignored: {', '.join(rest[:5])}"] if rest else []
    names = {kind: chunks[0].columns.feature_names for kind, chunks in nodes.items()}
    return Tables(layout.name, nodes, edges, names, layout.symmetric, tuple(notes))


def gather_nodes(kind: str, chunks: Sequence[Chunk]) -> Nodes:
    """All chunks of one node type as one table. Raises DataError where an id stands twice."""
    parts = [read_node_table(chunk) for chunk in chunks]
    ids = joined_ids([ids for ids, _ in parts])
    check_unique(ids, places_of(chunks, [len(ids) for ids, _ in parts]), kind)
    return Nodes(ids, _joined([x for _, x in parts]))


def is_known(spec: str) -> bool:
    """Whether it is the name of a data set, which goes before a folder of that name (write ./NAME for the folder)."""
    name = spec.partition(":")[0].strip().lower()
    return name in (*NAMES, "planted", "digits") or ("/" not in name and canonical(name) is not None)


def _layout(spec: str) -> Layout | None:
    check_name(spec)
    return None if is_known(spec) else find_layout(spec)


def _load_whole(spec: str) -> Loaded:
    """What is no folder of tables: known names, RecBole's files, .npz and everything else that `load` reads."""
    name, _, parameters = spec.partition(":")
    key = name.strip().lower()
    if key in NAMES:
        if parameters:
            raise SettingsError(f"--dataset {spec}: {name} takes no parameters; only planted does")
        return read_ml100k(), None
    if key == "planted" and "nodes=" not in parameters:
        return planted_communities(parameters)
    if not is_known(spec) and is_folder(spec) and (atomic := find_atomic(spec)) is not None:
        return read_recbole(place_name(spec), atomic), None
    graph, labels = load(spec)
    return from_homogeneous(graph), None if labels is None else {NODE: labels}


def _edges(chunks: Sequence[Chunk], sources: Lookup, targets: Lookup) -> Edges:
    """The edges of one relation as rows, chunk after chunk."""
    parts = []
    for chunk in chunks:
        src, dst, weight, time = read_edge_table(chunk)
        at = place_of(chunk)
        parts.append((sources(src, "src", at), targets(dst, "dst", at), weight, time))
    src, dst, weight, time = (_joined(column) for column in zip(*parts, strict=True))
    return Edges(src, dst, weight, time)


def _joined(arrays: Sequence[NDArray[Any] | None]) -> Any:
    """The arrays that there are as one, None where there is none."""
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None
