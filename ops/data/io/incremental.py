"""Data that has grown since a training: which rows the training knew, and one graph of new and old nodes.

Axes: n rows of the new data, N nodes of the training, m of them that the new data does not repeat, F features, E edges.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.builder import Raw
from ops.data.io.ids import find_rows
from ops.data.io.validate import make_graph
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError

NO_EDGES = np.empty((2, 0), dtype=np.int64)


def known_rows(ids: NDArray[Any] | None, n: int, old_ids: NDArray[Any] | None, n_old: int) -> NDArray[np.int64]:
    """For each of n rows its row among the nodes of the training, -1 for a new one: int64 [n].

    Rows are matched by id; data without ids is called by its row numbers, counted from 0.
    """
    return find_rows(np.arange(n) if ids is None else ids, np.arange(n_old) if old_ids is None else old_ids)


def begins_with(x: NDArray[np.float32], old: NDArray[np.float32], first: int = 0) -> bool:
    """Whether `x` [n, F], rows `first`, `first` + 1, ... of some data, repeats the rows `old` [N, F] of those numbers.

    Rows from N on may hold anything.
    """
    part = old[first : first + len(x)]
    return x.shape[1:] == old.shape[1:] and bool(np.array_equal(x[: len(part)], part))


def grow(
    raw: Raw, x: NDArray[np.float32], rows: NDArray[np.int64], old: AttributedGraph | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]:
    """(features [n + m, F], edges [2, E], weights [E] or None) of one graph that begins with the new rows `x` [n, F].

    Without `old` these are the new data's edges (perhaps none). With it, the m old nodes that `rows` [n] do not name
    follow in their order, and the old edges are added to the new data's. Raises DataError for edges that
    end in no node.
    """
    n, edges = len(x), NO_EDGES if raw.edges is None else raw.edges
    weights = raw.weights
    if old is not None:
        other = np.setdiff1d(np.arange(old.n_nodes), rows)
        place = np.empty(old.n_nodes, dtype=np.int64)
        place[other] = n + np.arange(len(other))
        place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        x = np.concatenate([x, old.x[other]])
        if weights is not None or old.weight is not None:  # an edge without one weighs 1
            parts = ((edges, weights), (old.edge_index, old.weight))
            weights = np.concatenate([np.ones(e.shape[1]) if w is None else w for e, w in parts])
        edges = np.concatenate([edges, place[old.edge_index]], axis=1)
    if not edges.size:
        return x, NO_EDGES, None
    if raw.ids is None and raw.edges is not None and raw.edges.size and raw.edges.dtype.kind in "iuf":
        last = raw.edges.max()
        if last >= n:
            raise DataError(
                f"{raw.origin}: an edge ends in row {last:g}, but there are {n} rows; for edges to known nodes give "
                "the features an id column and name both ends by id"
            )
    graph = make_graph(raw.name, x, edges, origin=raw.origin, weight=weights)
    return graph.x, graph.edge_index, graph.weight
