"""`load_hetero(spec)`: a name, a file or a folder, here or on S3 -> (HeteroGraph, groups by type or None)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.movielens import read_ml100k
from ops.data.io.chunks import Tables, chunks_of, joined_ids, place_of, read_edges, read_nodes, read_table, tables_of
from ops.data.io.dtypes import ids_of
from ops.data.io.hetero_validate import Lookup, gather_nodes, make_hetero
from ops.data.io.layout import ML100K, Files, find_layout, place_name
from ops.data.io.recbole import find_atomic, read_recbole
from ops.data.io.schema import label_columns
from ops.data.io.sources import is_folder
from ops.data.io.validate import make_labels
from ops.data.load import load
from ops.data.synthetic.user_item import planted_communities
from ops.data.types.hetero import NODE, Edges, HeteroGraph, Nodes, Relation, from_homogeneous
from ops.errors import DataError, SettingsError

Groups = dict[str, NDArray[np.int64]]
Loaded = tuple[HeteroGraph, Groups | None]


def load_hetero(spec: str) -> Loaded:
    """Load and check a graph of node and edge types; groups int64 [N] by type come back beside it, never in it.

    `spec`: `planted[:users=1000,notes=600,...]`, `ml-100k`, a folder of tables (nodes/, edges/, labels/), of the
    original's files or of RecBole's, here or on s3://, or anything that `ops.data.load.load` reads, as the type
    "node" and the relation ("node", "edge", "node"). Groups are what labels/ (or a planted graph) tells, else None.
    Raises DataError for input that is missing or malformed, SettingsError for a wrong parameter.
    """
    layout = find_layout(spec)
    if layout is None:
        return load_whole(spec)
    graph, lookups = _from_tables(tables_of(layout), layout.origin)
    groups = {kind: _labels(files, kind, lookups[kind]) for kind, files in layout.labels.items()}
    return graph, groups or None


def load_whole(spec: str) -> Loaded:
    """What is no folder of tables: known names, RecBole's files, .npz and everything else that `load` reads."""
    name, _, parameters = spec.partition(":")
    key = name.strip().lower()
    if key in ML100K:
        if parameters:
            raise SettingsError(f"--dataset {spec}: {name} takes no parameters; only planted does")
        return read_ml100k(), None
    if key == "planted" and "nodes=" not in parameters:
        return planted_communities(parameters)
    if is_folder(spec) and (atomic := find_atomic(spec)) is not None:
        return read_recbole(place_name(spec), atomic), None
    graph, labels = load(spec)
    return from_homogeneous(graph), None if labels is None else {NODE: labels}


def known_hetero_names() -> list[str]:
    """The names that `load_hetero` knows besides those of `ops.data.load`."""
    return ["ml-100k", "planted"]


def _from_tables(found: Tables, origin: str) -> tuple[HeteroGraph, dict[str, Lookup]]:
    nodes: dict[str, Nodes] = {}
    for kind, chunks in found.nodes.items():
        given = gather_nodes(kind, chunks, [read_nodes(chunk) for chunk in chunks])
        nodes[kind] = replace(given, names=found.names(kind))
    lookups = {kind: Lookup(kind, given.ids) for kind, given in nodes.items()}
    edges = {relation: _edges(found, relation, lookups) for relation in found.edges}
    return make_hetero(found.name, nodes, edges, found.notes, origin=origin), lookups


def _edges(found: Tables, relation: Relation, lookups: dict[str, Lookup]) -> Edges:
    """The edges of one relation as rows, chunk after chunk."""
    parts = []
    for chunk in found.edges[relation]:
        src, dst, weight, time = read_edges(chunk)
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


def _labels(files: Files, kind: str, lookup: Lookup) -> NDArray[np.int64]:
    """Labels in the order of the nodes; every node must stand there once."""
    origin = files[0].uri
    rows, values = [], []
    for chunk in chunks_of(files, [label_columns(file) for file in files], f"labels of {kind}"):
        table, at = read_table(chunk), place_of(chunk)
        columns = chunk.columns
        if columns is None:
            continue
        rows.append(lookup(ids_of(table.column(columns.named("id")), at), "id", at))
        values.append(ids_of(table.column(columns.named("label")), at))
    row = np.concatenate(rows)
    if row.size != lookup.n or np.unique(row).size != lookup.n:
        raise DataError(
            f"{origin}: {row.size} rows label {np.unique(row).size} of {lookup.n} {kind} nodes; label every node once, "
            "or leave the file out"
        )
    given = joined_ids(values)
    ordered = np.empty_like(given)
    ordered[row] = given
    return make_labels(ordered, lookup.n, origin=origin)
