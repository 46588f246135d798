"""The first stages of a build: the tables of a graph, or a graph in memory, as arrays in the work folder.

Ids are replaced by rows. Axes: N nodes, M edges of a chunk.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.data.hetero_load import Tables
from ops.data.io.chunks import Chunk, place_of, read_edge_table, read_node_table
from ops.data.io.ids import joined_ids
from ops.data.types.hetero import HeteroGraph, Ids, Relation, relation_name
from ops.errors import DataError
from ops.graph.partition.arrays import open_arrays, write_arrays
from ops.graph.partition.csr import edge_print, index_dtype
from ops.graph.partition.executors import RunTasks, run_missing
from ops.graph.partition.index import open_index, write_index


@dataclass(frozen=True)
class StoredTables:
    """A graph in the work folder; `nodes` and `edges` are the numbers of chunks, by node type (sorted) or relation.

    `names` of the features and `id_dtype` are by node type; `symmetric` are the relations that are declared to equal
    their transpose.
    """

    work: Path
    name: str
    nodes: dict[str, int]
    edges: dict[Relation, int]
    names: dict[str, tuple[str, ...]]
    id_dtype: dict[str, str]
    symmetric: tuple[Relation, ...] = ()

    def folder(self, stage: str, table: str | Relation, number: int = 0) -> Path:
        """The folder of what a stage makes from one chunk of a table."""
        return self.work / stage / f"{table if isinstance(table, str) else relation_name(table)}.{number:06d}"

    def folders(self, stage: str, table: str | Relation) -> list[Path]:
        """These folders for all chunks of a table."""
        count = self.nodes[table] if isinstance(table, str) else self.edges[table]
        return [self.folder(stage, table, number) for number in range(count)]


def store_tables(tables: Tables | HeteroGraph, work: Path, run: RunTasks) -> StoredTables:
    """Read the tables of files, chunk by chunk, into the work folder. Raises DataError for faults in them."""
    if isinstance(tables, HeteroGraph):
        return store_graph(tables, work)
    kinds = sorted(tables.nodes)
    stored = StoredTables(work, tables.name, {kind: len(tables.nodes[kind]) for kind in kinds},
                          {r: len(chunks) for r, chunks in tables.edges.items()},
                          {kind: tables.names[kind] for kind in kinds}, {}, tables.symmetric)  # fmt: skip
    for r in tables.edges:
        for kind in (r[0], r[2]):
            if kind not in kinds:
                raise DataError(
                    f"{relation_name(r)}: there is no node type {kind!r}; the graph has: {', '.join(kinds)}"
                )
    run_missing(run, "nodes", [
        (folder, (_take_nodes, (folder, chunk)))
        for kind in kinds for folder, chunk in zip(stored.folders("nodes", kind), tables.nodes[kind], strict=True)
    ])  # fmt: skip
    for kind in kinds:
        stored.id_dtype[kind] = _index(stored, kind, tables.nodes[kind])
    run_missing(run, "edges", [
        (folder, (_take_edges, (folder, work / "index", r, chunk)))
        for r, chunks in tables.edges.items() for folder, chunk in zip(stored.folders("edges", r), chunks, strict=True)
    ])  # fmt: skip
    return stored


def store_graph(graph: HeteroGraph, work: Path) -> StoredTables:
    """Store a graph in memory in the same way, one chunk a table."""
    nodes = dict(sorted(graph.nodes.items()))
    stored = StoredTables(work, graph.name, dict.fromkeys(nodes, 1), dict.fromkeys(graph.edges, 1),
                          {kind: table.names for kind, table in nodes.items()},
                          {kind: _id_dtype(table.ids) for kind, table in nodes.items()})  # fmt: skip
    for kind, table in nodes.items():
        write_arrays(stored.folder("nodes", kind), {"ids": table.ids, "x": table.x})
    for r, edges in graph.edges.items():
        dtype = index_dtype(max(nodes[r[0]].count, nodes[r[2]].count))
        ends = edges.src.astype(dtype), edges.dst.astype(dtype)
        save_edges(stored.folder("edges", r), *ends, edges.weight, edges.time)
    return stored


def _take_nodes(folder: Path, chunk: Chunk) -> None:
    ids, x = read_node_table(chunk)
    write_arrays(folder, {"ids": ids, "x": x})


def _take_edges(folder: Path, index: Path, relation: Relation, chunk: Chunk) -> None:
    """A chunk of edges with rows in place of ids. Raises DataError (file, row, id) for an unknown node."""
    *ends, weight, time = read_edge_table(chunk)
    rows = [_rows(index / kind, ids, chunk) for kind, ids in zip(relation[::2], ends, strict=True)]
    dtype = np.promote_types(rows[0].dtype, rows[1].dtype)  # the same for both, so that a loop is compiled once
    save_edges(folder, rows[0].astype(dtype, copy=False), rows[1].astype(dtype, copy=False), weight, time)


def _rows(index: Path, ids: Ids, chunk: Chunk) -> NDArray[np.integer]:
    rows = open_index(index)(ids)
    unknown = rows < 0
    if unknown.any():
        at = int(unknown.argmax())
        raise DataError(f"{place_of(chunk)(at)}: {ids[at].item()!r} is not among the ids of the {index.name} nodes; "
                        "add the node or remove the edge")  # fmt: skip
    return rows


def save_edges(
    folder: Path, src: NDArray[np.integer], dst: NDArray[np.integer], weight: NDArray[np.float32] | None,
    time: NDArray[np.int64] | None,
) -> None:  # fmt: skip
    """Store a chunk of edges by rows, with its print."""
    columns = {"src": src, "dst": dst, "weight": weight, "time": time}
    there = {name: column for name, column in columns.items() if column is not None}
    write_arrays(folder, there, {"print": edge_print(there)})


def _index(stored: StoredTables, kind: str, chunks: Sequence[Chunk]) -> str:
    """Write the index of a type; returns the dtype of its ids. Raises DataError where an id occurs twice."""
    pieces = [open_arrays(folder)["ids"] for folder in stored.folders("nodes", kind)]
    ids = joined_ids(pieces)
    twice = None if (stored.work / "index" / kind).exists() else write_index(stored.work / "index" / kind, ids)
    if twice is not None:
        ends = np.cumsum([piece.size for piece in pieces])
        numbers = np.searchsorted(ends, twice, side="right")
        first, again = (
            place_of(chunks[i])(int(row - ends[i] + pieces[i].size)) for i, row in zip(numbers, twice, strict=True)
        )
        raise DataError(f"{again}: id {ids[twice[1]].item()!r} stands twice (first in {first}); ids must differ")
    return _id_dtype(ids)


def _id_dtype(ids: Ids) -> str:
    """The stored dtype, in numpy's words: int64, or unicode of some width."""
    return "int64" if ids.dtype.kind == "i" else ids.dtype.str
