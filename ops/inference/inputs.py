"""What a notebook has at hand (arrays, data frames, graphs of other libraries) as the data of a method.

Other libraries' objects are recognised by their attributes, so that none of them has to be installed.

Axes: N nodes, F features, E edges.
"""

from os import PathLike, fspath
from typing import Any

import numpy as np

from ops.data.io.builder import Raw, finished_graph
from ops.data.io.objects import as_array, as_edges, of_anndata, of_networkx
from ops.data.load import load
from ops.data.types.encoding import MadeFeatures
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError


def as_graph(
    name: str, x: Any, edge_index: Any, knn: int, metric: str, make_features: MadeFeatures = "none"
) -> AttributedGraph:
    """The graph of whatever `fit` is given; rows without edges are linked to their `knn` nearest others.

    Labels that the object has are left out. Raises DataError for what is none of these, or not sound.
    """
    if isinstance(x, AttributedGraph):
        return x
    if isinstance(x, str | PathLike):
        spec = fspath(x)
        try:
            return load(spec, make_features=make_features)[0]
        except DataError as error:
            if not knn or "no edges" not in str(error):
                raise
            return load(spec, knn=knn, knn_metric=metric)[0]
    raw = as_raw(name, x, edge_index)
    knn = 0 if raw.edges is not None else min(knn, max(len(raw.x) - 1, 1))
    return finished_graph(raw, knn, metric, make_features=make_features)[0]


def as_raw(name: str, x: Any, edge_index: Any) -> Raw:
    """Features and, where there are any, edges and ids of an object of whatever library."""
    if hasattr(x, "obsp") and hasattr(x, "obsm"):
        return of_anndata(name, x)
    if hasattr(x, "node_types") and hasattr(x, "edge_types"):
        raise DataError(
            f"{name}: takes one type of nodes; give HGT or TwHIN the HeteroData, or x and edge_index of one"
        )
    if hasattr(x, "edge_index") and hasattr(x, "num_nodes"):
        features = np.empty((x.num_nodes, 0)) if x.x is None else as_array(name, "x", x.x)
        edges, weights = (None, None) if x.edge_index is None else as_edges(name, x.edge_index)
        if getattr(x, "edge_weight", None) is not None:
            weights = as_array(name, "edge_weight", x.edge_weight)
        return Raw(name, name, features, edges, weights=weights)
    if hasattr(x, "adj") and hasattr(x, "nodes") and hasattr(x, "edges"):
        return of_networkx(name, x)
    if hasattr(x, "select_dtypes") and (words := [str(c) for c in x.select_dtypes(exclude=["number", "bool"])]):
        raise DataError(
            f"{name}: no numbers in column{'s' * (len(words) > 1)} {', '.join(map(repr, words[:5]))}; pandas."
            "get_dummies or scikit-learn's OneHotEncoder makes a column of each value"
        )
    features = as_array(name, "x", x)
    if features.ndim == 1:
        raise DataError(f"{name}: x has one axis; give rows by columns. Reshape your data: x.reshape(-1, 1)")
    no_edges = edge_index is None or np.ndim(edge_index) == 1  # 1: labels
    edges, weights = (None, None) if no_edges else as_edges(name, edge_index)
    ids, columns = None, None
    if hasattr(x, "columns") and hasattr(x, "index"):
        columns = [str(column) for column in x.columns]
        ids = None if type(x.index).__name__ == "RangeIndex" else np.asarray(x.index)
    return Raw(name, name, features, edges, ids=ids, feature_names=columns, weights=weights)
