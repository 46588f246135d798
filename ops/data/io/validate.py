"""The checks every loader ends in: what comes out is a sound AttributedGraph or one clear error.

Axes: N nodes, F features, E directed edges. Rows and edges are counted from 0 in every message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError


def make_graph(
    name: str,
    x: NDArray[Any],
    edge_index: NDArray[Any],
    *,
    ids: NDArray[Any] | None = None,
    feature_names: Sequence[str] | None = None,
    origin: str = "",
) -> AttributedGraph:
    """Check features and edges, make the edges undirected and unique, and count what was changed or found.

    `x` is numeric [N, F]; `edge_index` numeric [2, E] with whole ids in [0, N), one direction of an edge is enough.
    `origin` (a file or name) opens every message. Raises DataError for: N or F of 0, values that are not finite
    numbers, edges that are not whole ids in range, no edges, `ids` missing, repeated or of another length.
    """
    where = f"{origin or name}: "
    features = check_features(x, feature_names=feature_names, origin=origin or name)
    n = features.shape[0]
    if feature_names is not None and len(feature_names) != features.shape[1]:
        raise DataError(f"{where}{len(feature_names)} feature names for {features.shape[1]} features")
    edges = check_edges(edge_index, n, origin=origin or name)
    edges, notes = _tidy(edges, n)
    zero = int(np.count_nonzero(~features.any(axis=1)))
    if zero:
        notes.append(f"{count(zero, 'all-zero feature row')}")
    return AttributedGraph(
        name=name,
        x=features,
        edge_index=edges,
        ids=None if ids is None else check_ids(ids, n, origin=origin or name),
        feature_names=None if feature_names is None else tuple(feature_names),
        notes=tuple(notes),
    )


def check_features(
    x: NDArray[Any], *, feature_names: Sequence[str] | None = None, origin: str = "features"
) -> NDArray[np.float32]:
    """Finite float32 [N, F], C-contiguous, N and F at least 1; DataError names the first offending value."""
    if x.ndim != 2:
        raise DataError(f"{origin}: features must be a table [N, F], found shape {x.shape}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{origin}: features must be real numbers, found type {x.dtype}")
    n, f = x.shape
    if n == 0 or f == 0:
        raise DataError(f"{origin}: empty graph ({n} nodes, {f} features); at least one of each is needed")
    bad = ~np.isfinite(x)
    if bad.any():
        nans = int(np.isnan(x).sum())
        kinds = [f"{nans} NaN" if nans else "", f"{int(bad.sum()) - nans} infinite" if bad.sum() > nans else ""]
        raise DataError(
            f"{origin}: features hold {' and '.join(k for k in kinds if k)} values, the first at "
            f"{_cell(bad, feature_names)}; only finite numbers are allowed, fill or remove them"
        )
    del bad
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(x, dtype=np.float32)
    lost = ~np.isfinite(out)
    if lost.any():
        raise DataError(
            f"{origin}: {int(lost.sum())} values are beyond float32's range (3.4e38), the first at "
            f"{_cell(lost, feature_names)}; rescale the features"
        )
    return out


def check_edges(edge_index: NDArray[Any], n: int, *, origin: str = "edges") -> NDArray[np.int64]:
    """Int64 [2, E] with every id in [0, n), E at least 1; DataError names the first offending edge."""
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise DataError(f"{origin}: edges must have the shape [2, E], found {edge_index.shape}")
    if edge_index.dtype.kind not in "iuf":
        raise DataError(f"{origin}: edge ids must be whole numbers, found type {edge_index.dtype}")
    if edge_index.shape[1] == 0:
        raise DataError(f"{origin}: no edges; a graph needs at least one, or use a feature table with --knn 10")
    if edge_index.dtype.kind == "f":
        fractional = ~np.isfinite(edge_index) | (edge_index != np.floor(edge_index))
        if fractional.any():
            raise DataError(f"{origin}: {_edge(edge_index, fractional)}: ids must be whole numbers")
    outside = (edge_index < 0) | (edge_index >= n)
    if outside.any():
        from_one = edge_index.min() == 1 and edge_index.max() == n
        hint = "; the ids seem to count from 1, subtract 1" if from_one else ""
        raise DataError(f"{origin}: {_edge(edge_index, outside)}: ids must be in 0..{n - 1} (N = {n}){hint}")
    return edge_index.astype(np.int64)


def check_ids(ids: NDArray[Any], n: int, *, origin: str = "ids") -> NDArray[Any]:
    """Unique row names [n] as int64 where all are whole numbers, else as text; DataError otherwise."""
    if ids.shape != (n,):
        raise DataError(f"{origin}: {ids.shape[0] if ids.ndim else 0} ids for {n} rows")
    check_single(ids, "ids", origin)
    missing = _missing(ids)
    if missing.any():
        raise DataError(f"{origin}: {int(missing.sum())} ids are missing, the first in row {int(missing.argmax())}")
    keys = as_keys(ids)
    unique, first = np.unique(keys, return_index=True)
    if unique.size < n:
        repeated = np.setdiff1d(np.arange(n), first)[0]
        raise DataError(
            f"{origin}: id {keys[repeated].item()!r} stands twice (again in row {repeated}); ids must differ"
        )
    return keys


def as_keys(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as int64, everything else as text: 7 and 7.0 are one id, mixed types compare."""
    if values.dtype.kind in "iu" and (values.size == 0 or values.max() <= np.iinfo(np.int64).max):
        return values.astype(np.int64)
    if values.dtype.kind == "f" and np.isfinite(values).all() and (values == np.floor(values)).all():
        return values.astype(np.int64)
    return values.astype(np.str_)


def make_labels(y: NDArray[Any], n: int, *, origin: str = "labels") -> NDArray[np.int64]:
    """Labels [n] (whole numbers or words) as int64 codes 0..K-1 in sorted order.

    Raises DataError for another length, missing values (NaN, None, empty text) or fractional numbers.
    """
    flat = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if flat.ndim != 1:
        raise DataError(f"{origin}: labels must be one value per row [N], found shape {y.shape}")
    if flat.size != n:
        raise DataError(f"{origin}: {flat.size} labels for {n} rows; there must be one per row, in the same order")
    check_single(flat, "labels", origin)
    missing = _missing(flat)
    if missing.any():
        raise DataError(
            f"{origin}: {int(missing.sum())} labels are missing, the first in row {int(missing.argmax())}; "
            "label every row or give no labels"
        )
    if flat.dtype.kind == "f" and (flat != np.floor(flat)).any():
        row = int((flat != np.floor(flat)).argmax())
        raise DataError(f"{origin}: label {flat[row].item()!r} in row {row}; labels are whole numbers or words")
    words = flat.dtype.kind not in "biufU"
    return np.unique(flat.astype(np.str_) if words else flat, return_inverse=True)[1].astype(np.int64)


def check_clusters(k: int, n: int) -> None:
    """K must be in 2..N: SettingsError below, DataError above."""
    if k < 2:
        raise SettingsError(f"n_clusters={k} must be >= 2")
    if k > n:
        raise DataError(f"n_clusters={k} must be <= n_rows={n}")


def count(number: int, noun: str) -> str:
    """`1 self loop`, `2 self loops`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tidy(edges: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], list[str]]:
    """Both directions of every edge, unique, sorted by (source, target), and the notes about it."""
    # an edge is one number, so that sorting and merging are those of a flat array
    codes = np.unique(edges[0] * n + edges[1])
    source, target = codes // n, codes % n
    both = np.union1d(codes, target * n + source)
    merged, added = edges.shape[1] - codes.size, both.size - codes.size
    source, target = both // n, both % n
    loops = source == target
    linked = np.zeros(n, dtype=bool)
    linked[source[~loops]] = True
    isolated = n - int(linked.sum())
    notes = []
    if merged:
        notes.append(f"{count(merged, 'duplicate edge')} merged")
    if added:
        notes.append(f"{count(added, 'edge')} in one direction only, symmetrised")
    if loops.any():
        notes.append(f"{count(int(loops.sum()), 'self loop')} kept")
    if isolated:
        notes.append(f"{count(isolated, 'isolated node')}")
    return np.stack([source, target]), notes


def check_single(values: NDArray[Any], what: str, origin: str) -> None:
    """DataError where a value is itself a list, as a Parquet column may hold them."""
    if values.dtype.kind != "O":
        return
    for row, value in enumerate(values):
        if isinstance(value, (list, tuple, dict, set, np.ndarray)):
            raise DataError(f"{origin}: {what} must be numbers or words, found a {type(value).__name__} in row {row}")


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a value is NaN, None or empty text."""
    import pandas as pd

    missing = np.asarray(pd.isna(values), dtype=np.bool_)
    return missing | (values == "") if values.dtype.kind in "OU" else missing


def _cell(bad: NDArray[np.bool_], names: Sequence[str] | None) -> str:
    row, column = divmod(int(bad.argmax()), bad.shape[1])
    return f"row {row}, column {column}" + (f" ({names[column]!r})" if names else "")


def _edge(edge_index: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    at = int(bad.any(axis=0).argmax())
    return f"edge {at} is ({edge_index[0, at]}, {edge_index[1, at]})"
