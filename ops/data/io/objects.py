"""Objects of other libraries (SciPy, AnnData, networkx), and their files, as `Raw`.

They are recognised by their attributes, so that none of them has to be installed. Axes: N nodes, F features, E edges.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.builder import Raw
from ops.data.io.schema import LABEL_LIKE
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


def as_edges(name: str, edges: Any) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Edges [2, E] and weights [E] or None, also of a SciPy adjacency [N, N], whose entries other than 0 are edges."""
    if not hasattr(edges, "toarray"):
        return as_array(name, "edge_index", edges), None
    if edges.shape[0] != edges.shape[1]:
        shape = edges.shape
        raise DataError(f"{name}: edge_index is a SciPy matrix of {shape}; give an array [2, E] or an adjacency [N, N]")
    entries = edges.tocoo()
    is_edge = entries.data != 0
    return np.stack([entries.row, entries.col])[:, is_edge], entries.data[is_edge]


def of_anndata(name: str, data: Any, origin: str = "") -> Raw:
    """AnnData: `obsm["X_pca"]`, else X; the edges are `obsp["connectivities"]`, the ids `obs_names`."""
    where = origin or name
    connected = "connectivities" in data.obsp
    edges, weights = as_edges(where, data.obsp["connectivities"]) if connected else (None, None)
    reduced = "X_pca" in data.obsm
    x = as_array(where, "X", data.obsm["X_pca"] if reduced else data.X)
    columns = None if reduced else [str(each) for each in data.var_names]
    ids = np.asarray(data.obs_names, dtype=np.str_)
    return Raw(name, where, x, edges, ids=ids, feature_names=columns, weights=weights)


def of_networkx(name: str, graph: Any, origin: str = "") -> Raw:
    """networkx: the node attribute `x` (a vector), else all attributes that are numbers on every node.

    The attribute `label` of nodes is their label, `weight` of edges their weight, where all have one.
    """
    where, names = origin or name, list(graph.nodes)
    attributes = [dict(graph.nodes[node]) for node in names]
    if not names:
        raise DataError(f"{where}: the graph has no nodes")
    labels = _of_all(attributes, "label")
    vectors = _of_all(attributes, "x") if all(np.ndim(each.get("x", 0)) for each in attributes) else None
    columns = [key for key in attributes[0] if key != "label" and _are_numbers(attributes, key)]
    if like := [key for key in columns if key.lower() in LABEL_LIKE]:
        raise DataError(f"{where}: attribute {like[0]!r}: name it label if it holds the classes, else otherwise")
    rows = [[each[key] for key in columns] for each in attributes] if vectors is None else vectors
    notes = sorted({key for each in attributes for key in each} - {*columns, "x", "label"})
    row_of = {node: row for row, node in enumerate(names)}
    if not graph.is_directed():
        graph = graph.to_directed(as_view=True)  # an undirected edge goes both ways
    edges = np.array([(row_of[a], row_of[b]) for a, b in graph.edges()], dtype=np.int64).reshape(-1, 2).T
    weights = [weight for _, _, weight in graph.edges(data="weight")]
    weighted = bool(weights) and all(isinstance(weight, int | float) for weight in weights)
    return Raw(
        name, where, np.array(rows, dtype=np.float64).reshape(len(names), -1), edges,
        None if labels is None else np.array(labels, dtype=object), _names(names),
        columns if vectors is None else None,
        [f"node attributes that are not numbers of all nodes left out: {', '.join(notes[:5])}"] if notes else [],
        weights=np.array(weights, dtype=np.float64) if weighted else None,
    )  # fmt: skip


def _of_all(attributes: list[dict[str, Any]], key: str) -> list[Any] | None:
    return [each[key] for each in attributes] if all(key in each for each in attributes) else None


def _are_numbers(attributes: list[dict[str, Any]], key: str) -> bool:
    return all(isinstance(v := each.get(key), int | float) and not isinstance(v, bool) for each in attributes)


def _names(nodes: list[Any]) -> NDArray[Any] | None:
    """The nodes' names, None where they are their row numbers."""
    return None if nodes == list(range(len(nodes))) else np.asarray(nodes)
