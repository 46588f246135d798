"""An input of any size in chunks: what there is (footers, headers and listings only), and one chunk as arrays.

What is no folder of tables (.npz, RecBole's files, names such as ml-100k) is read whole, once a process.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ops.data.hetero_load import find_tables, load_whole
from ops.data.io.chunks import ROWS, Chunk, EdgeArrays, Tables, read_edge_table, read_node_table
from ops.data.io.readers import file_at
from ops.data.types.hetero import EDGE, HeteroGraph, Ids, relation_name, relation_of
from ops.storage.object_store import is_s3


def tables(spec: str) -> Tables:
    """The chunks of a folder, file, s3:// place or known name; reads no rows but the first of each table.

    Raises DataError for headers that do not fit, tables without rows, columns that differ between files of a table.
    """
    given = find_tables(spec)
    return _of_graph(spec) if given is None else given[0]


def read_nodes(chunk: Chunk) -> tuple[Ids, NDArray[np.float32] | None]:
    """Ids [N] and features [N, F] of a chunk of nodes (`ops.data.io.chunks.read_node_table`)."""
    if chunk.kind != "graph":
        return read_node_table(chunk)
    nodes = _graph(chunk.uri, chunk.stamp).nodes[chunk.key]
    rows = slice(chunk.first, chunk.first + chunk.count)
    return nodes.ids[rows], None if nodes.x is None else nodes.x[rows]


def read_edges(chunk: Chunk) -> EdgeArrays:
    """Ids of both ends [M], weight and time of a chunk of edges (`ops.data.io.chunks.read_edge_table`)."""
    if chunk.kind != "graph":
        return read_edge_table(chunk)
    graph, relation = _graph(chunk.uri, chunk.stamp), relation_of(chunk.key)
    edges = graph.edges[relation].take(np.arange(chunk.first, chunk.first + chunk.count))
    source_ids, target_ids = graph.nodes[relation[0]].ids, graph.nodes[relation[2]].ids
    return source_ids[edges.src], target_ids[edges.dst], edges.weight, edges.time


@lru_cache(maxsize=1)
def _graph(spec: str, stamp: str) -> HeteroGraph:
    """The graph of an input that is read whole; `stamp` tells one content of its file from another."""
    return load_whole(spec)[0]


def _of_graph(spec: str) -> Tables:
    """What is read as a whole, as ranges of rows."""
    path = os.path.expanduser(spec)
    stamp = file_at(path).stamp if not is_s3(spec) and os.path.isfile(path) else ""
    graph = _graph(spec, stamp)

    def cut(key: str, n: int, width: int = 0) -> tuple[Chunk, ...]:
        ranges = ((a, min(ROWS, n - a)) for a in range(0, n, ROWS))
        return tuple(Chunk(spec, "graph", a, m, key, a, width, None, 0, stamp) for a, m in ranges)

    return Tables(
        graph.name,
        {kind: cut(kind, nodes.count, nodes.n_features) for kind, nodes in graph.nodes.items()},
        {r: cut(relation_name(r), edges.count) for r, edges in graph.edges.items()},
        {kind: nodes.n_features for kind, nodes in graph.nodes.items()},
        {kind: nodes.names for kind, nodes in graph.nodes.items()},
        tuple(r for r, edges in graph.edges.items() if edges.weight is not None),
        tuple(r for r, edges in graph.edges.items() if edges.time is not None),
        (EDGE,) if tuple(graph.edges) == (EDGE,) else (),  # ops.data.load makes edges undirected
        graph.notes,
    )
