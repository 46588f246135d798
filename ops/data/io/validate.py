"""The checks every loader ends in: what comes out is a sound AttributedGraph or one clear error.

Axes: N nodes, F features, E directed edges. Rows and edges are counted from 0 in every message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.ids import check_ids
from ops.data.io.schema import is_number
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError

NO_LABEL = ("", "-1", "-1.0", "nan", "na", "n/a", "none", "null", "unknown", "unlabeled", "unlabelled")


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
    x: NDArray[Any], *, feature_names: Sequence[str] | None = None, origin: str = "features",
    first_row: int | Callable[[], int] = 0,
) -> NDArray[np.float32]:  # fmt: skip
    """Finite float32 [N, F], C-contiguous, N and F at least 1; DataError names the first offending value.

    `first_row`: the number of the first of these rows in `origin`.
    """
    if x.ndim != 2:
        raise DataError(f"{origin}: features must be a table [N, F], found shape {x.shape}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{origin}: features must be real numbers, found type {x.dtype}")
    n, f = x.shape
    if n == 0 or f == 0:
        raise DataError(f"{origin}: empty graph ({n} nodes, {f} features); at least one of each is needed")

    def cell(bad: NDArray[np.bool_]) -> str:
        row, column = divmod(int(bad.argmax()), f)
        name = f" ({feature_names[column]!r})" if feature_names else ""
        start = first_row if isinstance(first_row, int) else first_row()
        return f"the first at row {start + row}, column {column}{name}"

    bad = ~np.isfinite(x)
    if bad.any():
        nans, n_bad = int(np.isnan(x).sum()), int(bad.sum())
        kinds = [f"{nans} NaN" if nans else "", f"{n_bad - nans} infinite" if n_bad > nans else ""]
        raise DataError(
            f"{origin}: features hold {' and '.join(k for k in kinds if k)} values, {cell(bad)}; only finite numbers "
            "are allowed, fill or remove them"
        )
    del bad
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(x, dtype=np.float32)
    lost = ~np.isfinite(out)
    if lost.any():
        raise DataError(f"{origin}: {int(lost.sum())} values are beyond float32's range (3.4e38), {cell(lost)}; "
                        "rescale the features")  # fmt: skip
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


def make_labels(y: NDArray[Any], n: int, *, origin: str = "labels") -> NDArray[np.int64]:
    """Labels [n] (whole numbers or words) as int64 codes 0..K-1 in sorted order, -1 for a row without one.

    That is -1 (unless -1 and 1 are all there is), NaN, None, empty text, or a word for it (`NO_LABEL`). Raises
    DataError for another length, fractional numbers, or where no row has a label.
    """
    values = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if values.ndim != 1:
        raise DataError(f"{origin}: labels must be one value per row [N], found shape {y.shape}")
    if values.size != n:
        raise DataError(f"{origin}: {values.size} labels for {n} rows; there must be one per row, in the same order")
    numbers: NDArray[Any] | None
    if values.dtype.kind in "OUS":  # not as an array, which would be as wide as the longest word
        words = [_label_word(value, row, origin) for row, value in enumerate(values.tolist())]
        none = np.array([word.strip().lower() in NO_LABEL for word in words], dtype=np.bool_)
        present = [word for word, missing in zip(words, none, strict=True) if not missing]
        order = {word: i for i, word in enumerate(sorted(set(present)))}
        ranks = np.array([order[word] for word in present], dtype=np.int64)
        numbers = np.array([float(word) for word in present]) if all(is_number(word) for word in present) else None
    else:
        numbers = np.asarray(values, dtype=np.float64)
        none = np.isnan(numbers)
        if set(np.unique(numbers[~none])) != {-1, 1}:
            none |= numbers == -1
        numbers, ranks = numbers[~none], np.unique(values[~none], return_inverse=True)[1]
    if none.all():
        raise DataError(f"{origin}: all labels are -1, NaN, empty or 'unknown'; label some rows, or give no labels")
    if numbers is not None and (fraction := numbers != np.floor(numbers)).any():
        row = int(np.flatnonzero(~none)[fraction][0])
        raise DataError(f"{origin}: label {values.tolist()[row]!r} in row {row}; labels are whole numbers or words")
    codes = np.full(n, -1, dtype=np.int64)
    codes[~none] = ranks
    return codes


def _label_word(value: Any, row: int, origin: str) -> str:
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        raise DataError(f"{origin}: labels must be numbers or words, found a {type(value).__name__} in row {row}")
    if value is None or value != value:  # noqa: PLR0124
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unlabelled(labels: NDArray[np.int64]) -> list[str]:
    """What to say of rows without a label, if there are any."""
    none = int((labels < 0).sum())
    rows = f"{count(none, 'row')} of {labels.size} without a label (-1, NaN, empty or 'unknown')"
    return [f"{rows}: left out of K and of all scores"] if none else []


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
        most = "; that is most of them: do the edges use the nodes' ids?" if isolated > n / 2 else ""
        notes.append(f"{count(isolated, 'isolated node')}{most}")
    return np.stack([source, target]), notes


def _edge(edge_index: NDArray[Any], bad: NDArray[np.bool_]) -> str:
    at = int(bad.any(axis=0).argmax())
    return f"edge {at} is ({edge_index[0, at]}, {edge_index[1, at]})"
