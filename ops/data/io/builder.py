"""What a reader hands over, and the one way from there to (graph, labels)."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.knn import METRICS, knn_graph
from ops.data.io.labels import make_labels, unlabelled
from ops.data.io.made_features import made_features
from ops.data.io.validate import check_features, make_graph
from ops.data.types.encoding import Encoding, MadeFeatures
from ops.data.types.graph import AttributedGraph
from ops.data.types.scaling import Scale, fit_scaling
from ops.errors import DataError, SettingsError

UNSCALED = "holds over 90 % of the variance"  # what is said of a column that --scale would bring to size


@dataclass(frozen=True)
class Raw:
    """Unchecked input: x [N, F], edges [2, E] as row numbers or None with weights [E] or None, labels [N] or None.

    `origin` is the file, folder or name that messages begin with. `encoding` is what a table was read with; `missing`
    is what it cannot be used without, a sentence and its flags.
    """

    name: str
    origin: str
    x: NDArray[Any]
    edges: NDArray[Any] | None = None
    weights: NDArray[Any] | None = field(default=None, kw_only=True)
    labels: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    feature_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    encoding: Encoding | None = None
    missing: tuple[str, str] | None = None


def check_knn(knn: int, metric: str) -> None:
    """SettingsError for a negative `knn` or an unknown metric."""
    if knn < 0:
        raise SettingsError(f"--knn {knn} must be >= 0 (0: the data has edges)")
    if metric not in METRICS:
        raise SettingsError(f"--knn-metric {metric} must be one of: {', '.join(METRICS)}")


def finished_graph(
    raw: Raw, knn: int, metric: str, scale: Scale = "none", make_features: MadeFeatures = "none", k_given: bool = True
) -> tuple[AttributedGraph, NDArray[np.int64] | None]:
    """Check all of it; scale the columns; build the k-NN graph of a feature table (`knn` > 0).

    `make_features`: what nodes without features get (`ops.data.io.made_features`). Labels come back apart, or None.

    Raises SettingsError where there are edges and `knn` > 0, or features and `make_features`, DataError where there are
    none and `knn` is 0, or words are no features; that names all that is missing, K too where it is not given
    (`k_given`) and there are no labels.
    """
    check_knn(knn, metric)
    if raw.edges is not None and knn > 0:
        raise SettingsError(f"--knn {knn}: {raw.origin} has edges; --knn is for feature tables")
    if (raw.edges is None and knn == 0) or raw.missing:
        raise DataError(_all_missing(raw, raw.edges is None and knn == 0, raw.labels is None and not k_given))
    raw = with_made_features(raw, make_features)
    notes = [note for note in raw.notes if scale == "none" or UNSCALED not in note]
    x, edges, scaling = raw.x, raw.edges, None
    if edges is None or scale != "none":
        x = check_features(x, feature_names=raw.feature_names, origin=raw.origin)
        words = raw.encoding.blocks(raw.feature_names or ()) if raw.encoding else []
        scaling = fit_scaling(x, scale, words)
    if scaling is not None:
        x = scaling(x)
        notes.append(f"features: every column brought to one scale ({scale})")
    if edges is None:
        memory.check_load(48 * len(x) * knn, f"{raw.origin}: --knn {knn}")
        edges = knn_graph(x, knn, metric)
        notes.append(f"edges: {knn} nearest neighbours of every row ({metric}), symmetrised")
    names = raw.feature_names
    graph = make_graph(raw.name, x, edges, ids=raw.ids, feature_names=names, origin=raw.origin, weight=raw.weights)
    graph = replace(graph, scaling=scaling, encoding=raw.encoding)
    if raw.labels is None:
        return graph.with_notes(*notes), None
    labels = make_labels(raw.labels, graph.n_nodes, origin=raw.origin)
    return graph.with_notes(*notes, *unlabelled(labels)), labels


def with_made_features(raw: Raw, kind: MadeFeatures) -> Raw:
    """Features for nodes that have none. Raises SettingsError where they have some, DataError for `none`."""
    if raw.x.ndim != 2 or raw.x.shape[1] or raw.edges is None:
        if kind != "none":
            raise SettingsError(f"--make-features {kind}: {raw.origin} has features")
        return raw
    if kind == "none":
        raise DataError(f"{raw.origin}: no features; give some, or --make-features degree (or spectral)")
    memory.check_load(1000 * len(raw.x), f"{raw.origin}: --make-features {kind}")
    nodes = np.ones((len(raw.x), 1), dtype=np.float32)
    graph = make_graph(raw.name, nodes, raw.edges, origin=raw.origin, weight=raw.weights)
    x, names = made_features(kind, graph.edge_index, graph.n_nodes)
    notes = [*raw.notes, f"features: {len(names)} columns made of the edges ({kind})"]
    return replace(raw, x=x, feature_names=names, notes=notes, encoding=Encoding(categories={}, made=kind))


def _all_missing(raw: Raw, no_edges: bool, no_k: bool) -> str:
    """All that a table cannot be trained on without, in one line, and the flags that give it."""
    sentences, flags = [], ["--knn 10"] * no_edges + ["--n-clusters auto"] * no_k
    if no_edges:
        sentences.append("no edges; give edges, or --knn 10 to link every row to its 10 nearest")
    if no_k:
        sentences.append("no labels to count: give --n-clusters K or --n-clusters auto")
    said, own_flags = raw.missing or (f"{raw.origin}: {sentences.pop(0)}", "")
    gaps = np.isnan(raw.x).any(axis=0) if raw.missing else ()
    names = [name for name, has in zip(raw.feature_names or (), gaps, strict=False) if has]
    if names:
        sentences.append(f"values are missing in {', '.join(map(repr, names))}: fill them, or leave the columns out")
    if unscaled := next((note for note in raw.notes if UNSCALED in note), ""):
        sentences.append(unscaled.partition(";")[0])
        flags.insert(0, "--scale standard")
    sentence = "; ".join([said, *sentences])
    return f"{sentence}. Add: {' '.join([own_flags, *flags]).strip()}" if sentences or raw.missing else sentence
