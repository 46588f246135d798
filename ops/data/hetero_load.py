"""`load_hetero(spec)`: a name, a file or a folder, here or on S3 -> (HeteroGraph, groups by type or None)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.graphs import canonical
from ops.data.catalog.movielens import NAMES, read_ml100k
from ops.data.io.chunks import Tables, check_alike, chunks_of, node_chunks, place_of, read_edge_table, read_node_table
from ops.data.io.hetero_validate import gather_nodes, make_hetero
from ops.data.io.ids import Lookup
from ops.data.io.layout import Layout, find_layout
from ops.data.io.readers import is_folder, place_name
from ops.data.io.recbole import find_atomic, read_recbole
from ops.data.io.schema import edge_columns
from ops.data.io.tables import label_table
from ops.data.io.validate import make_labels, unlabelled
from ops.data.load import load
from ops.data.synthetic.user_item import planted_communities
from ops.data.types.hetero import NODE, Edges, HeteroGraph, Nodes, Relation, from_homogeneous, relation_name
from ops.errors import SettingsError

Groups = dict[str, NDArray[np.int64]]
Loaded = tuple[HeteroGraph, Groups | None]


def load_hetero(spec: str) -> Loaded:
    """Load and check a graph of node and edge types; groups int64 [N] by type come back beside it, never in it.

    `spec`: `planted[:users=1000,notes=600,...]`, `ml-100k`, a folder of tables (nodes/, edges/, labels/), of the
    original's files or of RecBole's, here or on s3://, or anything that `ops.data.load.load` reads, as the type
    "node" and the relation ("node", "edge", "node"). Groups are what labels/ (or a planted graph) tells, else None;
    -1 where a node has no label. Raises DataError for input that is missing or malformed, SettingsError for a wrong
    parameter.
    """
    given = find_tables(spec)
    if given is None:
        return load_whole(spec)
    tables, layout = given
    graph, lookups = _from_tables(tables, layout.origin)
    groups, notes = {}, []
    for kind, files in layout.labels.items():
        labels = label_table(files, lookups[kind].n, lookups[kind], strict=True)
        groups[kind] = make_labels(labels, lookups[kind].n, origin=files[0].uri)
        notes += [f"{kind}: {note}" for note in unlabelled(groups[kind])]
    return graph.with_notes(*notes), groups or None


def load_whole(spec: str) -> Loaded:
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


def is_known(spec: str) -> bool:
    """Whether it is the name of a data set, which goes before a folder of that name (write ./NAME for the folder)."""
    name = spec.partition(":")[0].strip().lower()
    return name in (*NAMES, "planted", "digits") or ("/" not in name and canonical(name) is not None)


def find_tables(spec: str, types: tuple[str, ...] = ()) -> tuple[Tables, Layout] | None:
    """The tables of a folder and where they stand; None for what is no folder of tables (`find_layout`)."""
    layout = None if is_known(spec) else find_layout(spec, types)
    return None if layout is None else (tables_of(layout), layout)


def tables_of(layout: Layout) -> Tables:
    """The chunks of a folder's files. Raises DataError for headers that do not fit and tables without rows."""
    nodes = {kind: node_chunks(files, kind) for kind, files in layout.nodes.items()}
    edges, weight, time, notes = {}, [], [], list(layout.notes)
    for relation, files in layout.edges.items():
        columns, title = [edge_columns(file) for file in files], relation_name(relation)
        check_alike(files, [tuple(sorted(filter(None, c.roles))) for c in columns], "columns")
        edges[relation] = chunks_of(files, columns, title)
        weight += [relation] if columns[0].named("weight") else []
        time += [relation] if columns[0].named("time") else []
        rest = sorted({name for c in columns for name in c.ignored})
        notes += [f"{title}: columns ignored: {', '.join(rest[:5])}"] if rest else []
    widths = {kind: chunks[0].width for kind, chunks in nodes.items()}
    names = {kind: chunks[0].header.feature_names for kind, chunks in nodes.items()}
    return Tables(
        layout.name, nodes, edges, widths, names, tuple(weight), tuple(time), layout.symmetric, tuple(notes)
    )  # fmt: skip


def _from_tables(tables: Tables, origin: str) -> tuple[HeteroGraph, dict[str, Lookup]]:
    nodes: dict[str, Nodes] = {}
    for kind, chunks in tables.nodes.items():
        given = gather_nodes(kind, chunks, [read_node_table(chunk) for chunk in chunks])
        nodes[kind] = replace(given, names=tables.names(kind))
    lookups = {kind: Lookup(kind, given.ids) for kind, given in nodes.items()}
    edges = {relation: _edges(tables, relation, lookups) for relation in tables.edges}
    return make_hetero(tables.name, nodes, edges, tables.notes, origin=origin), lookups


def _edges(tables: Tables, relation: Relation, lookups: dict[str, Lookup]) -> Edges:
    """The edges of one relation as rows, chunk after chunk."""
    parts = []
    for chunk in tables.edges[relation]:
        src, dst, weight, time = read_edge_table(chunk)
        at = place_of(chunk)
        parts.append((lookups[relation[0]](src, "src", at), lookups[relation[2]](dst, "dst", at), weight, time))
    weights = [p[2] for p in parts if p[2] is not None]
    times = [p[3] for p in parts if p[3] is not None]
    return Edges(
        np.concatenate([p[0] for p in parts]),
        np.concatenate([p[1] for p in parts]),
        np.concatenate(weights) if weights else None,
        np.concatenate(times) if times else None,
    )
