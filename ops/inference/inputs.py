"""What a notebook has at hand (arrays, data frames, graphs of other libraries) as the data of a method.

Other libraries' objects are recognised by their attributes, so that none of them has to be installed.

Axes: N nodes, F features, E edges.
"""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.builder import Raw, finish
from ops.data.load import load
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError


def as_array(name: str, what: str, values: Any) -> NDArray[Any]:
    """An array of anything that NumPy or SciPy knows. Raises DataError for other objects."""
    if hasattr(values, "detach"):  # a tensor, perhaps of another device
        values = values.detach().cpu()
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if array.ndim == 0 or array.dtype.kind == "O":
        raise DataError(
            f"{name}: {what} is a {type(values).__name__}, not an array of numbers; give a NumPy array, a data frame "
            "of numbers, a SciPy matrix, a graph of PyG or networkx, an AnnData, or what --dataset takes"
        )
    return array


def as_edges(name: str, edges: Any) -> NDArray[Any]:
    """Edges [2, E], also of a SciPy adjacency matrix [N, N], whose entries other than 0 are edges."""
    if not hasattr(edges, "toarray"):
        return as_array(name, "edge_index", edges)
    if edges.shape[0] != edges.shape[1]:
        shape = edges.shape
        raise DataError(f"{name}: edge_index is a SciPy matrix of {shape}; give an array [2, E] or an adjacency [N, N]")
    return np.stack(edges.nonzero())


def as_graph(name: str, x: Any, edge_index: Any, knn: int, metric: str) -> AttributedGraph:
    """The graph of whatever `fit` is given; rows without edges are linked to their `knn` nearest others.

    Labels that the object has are left out. Raises DataError for what is none of these, or not sound.
    """
    if isinstance(x, AttributedGraph):
        return x
    if isinstance(x, str | PathLike):
        spec = fspath(x)
        try:
            return load(spec)[0]
        except DataError as error:
            if not knn or "no edges" not in str(error):
                raise
            return load(spec, knn=knn, knn_metric=metric)[0]
    raw = as_raw(name, x, edge_index)
    return finish(raw, 0 if raw.edges is not None else min(knn, max(len(raw.x) - 1, 1)), metric)[0]


def as_raw(name: str, x: Any, edge_index: Any) -> Raw:
    """Features and, where there are any, edges and ids of an object of whatever library."""
    if hasattr(x, "obsp") and hasattr(x, "obsm"):
        return _of_anndata(name, x)
    if hasattr(x, "node_types") and hasattr(x, "edge_types"):
        raise DataError(
            f"{name}: takes one type of nodes; give HGT or TwHIN the HeteroData, or x and edge_index of one"
        )
    if hasattr(x, "edge_index") and hasattr(x, "num_nodes"):
        if x.x is None:
            raise DataError(f"{name}: the graph has no features x; set data.x")
        return Raw(name, name, as_array(name, "x", x.x), None if x.edge_index is None else as_edges(name, x.edge_index))
    if hasattr(x, "adj") and hasattr(x, "nodes") and hasattr(x, "edges"):
        return _of_networkx(name, x)
    features = as_array(name, "x", x)
    if features.ndim == 1:
        raise DataError(f"{name}: x has one axis; give rows by columns. Reshape your data: x.reshape(-1, 1)")
    edges = None if edge_index is None or np.ndim(edge_index) == 1 else as_edges(name, edge_index)  # 1: labels
    ids, columns = None, None
    if hasattr(x, "columns") and hasattr(x, "index"):
        columns = [str(column) for column in x.columns]
        ids = None if type(x.index).__name__ == "RangeIndex" else np.asarray(x.index)
    return Raw(name, name, features, edges, ids=ids, feature_names=columns)


def _of_anndata(name: str, data: Any) -> Raw:
    """AnnData: `obsm["X_pca"]`, else X; the edges are `obsp["connectivities"]`, the ids `obs_names`."""
    edges = as_edges(name, data.obsp["connectivities"]) if "connectivities" in data.obsp else None
    reduced = "X_pca" in data.obsm
    x = as_array(name, "X", data.obsm["X_pca"] if reduced else data.X)
    columns = None if reduced else [str(each) for each in data.var_names]
    return Raw(name, name, x, edges, ids=np.asarray(data.obs_names, dtype=np.str_), feature_names=columns)


def _of_networkx(name: str, graph: Any) -> Raw:
    """networkx: the node attribute `x` (a vector), else all attributes that are numbers on every node."""
    names = list(graph.nodes)
    attributes = [graph.nodes[node] for node in names]
    if not names:
        raise DataError(f"{name}: the graph has no nodes")
    if all("x" in each for each in attributes):
        columns, rows = None, [np.atleast_1d(np.asarray(each["x"])) for each in attributes]
    else:
        numbers = [k for k, v in attributes[0].items() if isinstance(v, int | float) and not isinstance(v, bool)]
        columns = [key for key in numbers if all(isinstance(each.get(key), int | float) for each in attributes)]
        rows = [np.array([each[key] for key in columns]) for each in attributes]
        if not columns:
            raise DataError(f"{name}: no attribute of the nodes is a number on all of them; set the attribute x")
    row_of = {node: row for row, node in enumerate(names)}
    edges = np.array([(row_of[a], row_of[b]) for a, b in graph.edges()], dtype=np.int64).reshape(-1, 2).T
    ids = None if names == list(range(len(names))) else np.asarray(names)
    return Raw(name, name, np.stack(rows), edges, ids=ids, feature_names=columns)
