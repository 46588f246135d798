"""What a reader hands over, and the one way from there to (graph, labels)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.knn import METRICS, knn_graph
from ops.data.io.labels import make_labels, unlabelled
from ops.data.io.validate import check_features, make_graph
from ops.data.types.graph import AttributedGraph
from ops.data.types.scaling import Scale, fit_scaling
from ops.errors import DataError, SettingsError


@dataclass(frozen=True)
class Raw:
    """Unchecked input: x [N, F], edges [2, E] as row numbers or None, labels [N] of any kind or None.

    `origin` is the file, folder or name that messages begin with.
    """

    name: str
    origin: str
    x: NDArray[Any]
    edges: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    feature_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def check_knn(knn: int, metric: str) -> None:
    """SettingsError for a negative `knn` or an unknown metric, before anything is read."""
    if knn < 0:
        raise SettingsError(f"--knn {knn} must be >= 0 (0: the data has edges)")
    if metric not in METRICS:
        raise SettingsError(f"--knn-metric {metric} must be one of: {', '.join(METRICS)}")


def finish(raw: Raw, knn: int, metric: str, scale: Scale = "none") -> tuple[AttributedGraph, NDArray[np.int64] | None]:
    """Check all of it; scale the columns; build the k-NN graph of a feature table (`knn` > 0).

    Labels come back apart, or None.

    Raises SettingsError where there are edges and `knn` > 0, DataError where there are none and `knn` is 0.
    """
    if raw.edges is not None and knn > 0:
        raise SettingsError(f"--knn {knn}: {raw.origin} has edges; --knn is for feature tables")
    if raw.edges is None and knn == 0:
        raise DataError(f"{raw.origin}: no edges; give edges, or --knn 10 to link every row to its 10 nearest")
    x, edges, notes, scaling = raw.x, raw.edges, list(raw.notes), None
    if edges is None or scale != "none":
        x = check_features(x, feature_names=raw.feature_names, origin=raw.origin)
        scaling = fit_scaling(x, scale)
    if scaling is not None:
        x = scaling(x)
        notes.append(f"features: every column brought to one scale ({scale})")
    if edges is None:
        memory.check_load(48 * len(x) * knn, f"{raw.origin}: --knn {knn}")
        edges = knn_graph(x, knn, metric)
        notes.append(f"edges: {knn} nearest neighbours of every row ({metric}), symmetrised")
    graph = make_graph(raw.name, x, edges, ids=raw.ids, feature_names=raw.feature_names, origin=raw.origin)
    graph = replace(graph, scaling=scaling)
    if raw.labels is None:
        return graph.with_notes(*notes), None
    labels = make_labels(raw.labels, graph.n_nodes, origin=raw.origin)
    return graph.with_notes(*notes, *unlabelled(labels)), labels
