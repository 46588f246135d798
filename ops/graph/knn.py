"""Exact k-nearest-neighbour graph by blocks of rows: memory block_rows x N, never N x N."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ops.errors import DataError, SettingsError

METRICS = ("euclidean", "cosine", "heat", "dot")
_PAIR_BYTES = 2**26  # of feature rows gathered at once for exact distances


def knn_graph(
    x: Float[np.ndarray, "N F"], k: int, metric: str = "euclidean", block_rows: int = 1024
) -> NDArray[np.int64]:
    """Edges between every node and its k nearest others, made undirected.

    `metric`: `euclidean`, `cosine`, `heat` (the kernel exp(-|x - y|^2 / 2), which has the neighbours of the distance
    but, unlike its values, no ties where they all underflow) or `dot` (the product x.y).

    `x` [N, F] is finite; the result is int64 [2, E], both directions, sorted by (source, target), no self loops.
    Equal distances go to the lowest index, and `block_rows` changes memory (16 bytes x block_rows x N), never the
    result. Cosine: an all-zero row has similarity 0 to every other. Raises SettingsError for k < 1 or an unknown
    metric, DataError for k >= N.
    """
    n = x.shape[0]
    if metric not in METRICS:
        raise SettingsError(f"knn_metric={metric!r} must be one of: {', '.join(METRICS)}")
    if k < 1:
        raise SettingsError(f"--knn: n_neighbors={k} must be >= 1")
    if k >= n:
        raise DataError(f"--knn: n_neighbors={k} must be < n_nodes={n}")
    metric = "euclidean" if metric == "heat" else metric
    rows = _scaled(x, metric)
    nearest = [_block(rows, metric, k, at, min(at + block_rows, n)) for at in range(0, n, block_rows)]
    source, target = np.repeat(np.arange(n), k), np.concatenate(nearest).reshape(-1)
    codes = np.unique(np.concatenate([source * n + target, target * n + source]))
    return np.stack([codes // n, codes % n])


def _scaled(x: Float[np.ndarray, "N F"], metric: str) -> NDArray[np.float64]:
    """Float64 rows; of length 1 (or all zero) for cosine."""
    rows = np.ascontiguousarray(x, dtype=np.float64)
    if metric != "cosine":
        return rows
    # a common factor per row changes nothing but keeps tiny rows from underflowing when squared
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(peak > 0, peak, 1.0)
    norm = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return rows / np.where(norm > 0, norm, 1.0)


def _block(rows: NDArray[np.float64], metric: str, k: int, start: int, stop: int) -> NDArray[np.int64]:
    """The k nearest of rows start..stop-1, int64 [stop - start, k].

    A matrix product finds candidates: its rounding depends on the block's shape, so every node within the rounding
    error of the k-th distance stays one, and their distances are taken again, pair by pair, which it does not.
    """
    half = 0.5 * np.einsum("nf,nf->n", rows, rows)
    error = 4 * np.finfo(np.float64).eps * (rows.shape[1] + 8) * half  # of x.y and |y|^2, per side
    # |y|^2 / 2 - x.y, which has the order of |x - y|^2; for cosine and dot -x.y
    near = rows[start:stop] @ rows.T
    np.subtract((half if metric == "euclidean" else 0.0) + error, near, out=near)
    near[np.arange(stop - start), np.arange(start, stop)] = np.inf
    kth = np.partition(near, k - 1, axis=1)[:, k - 1]
    near -= 2 * error
    at, candidate = np.nonzero(near <= (kth + 2 * error[start:stop])[:, None])
    distance = _distances(rows, metric, at + start, candidate)
    order = np.lexsort((candidate, distance, at))
    first = np.searchsorted(at, np.arange(stop - start))  # lexsort keeps the rows in order
    picked: NDArray[np.int64] = candidate[order][first[:, None] + np.arange(k)]
    return picked


def _distances(
    rows: NDArray[np.float64], metric: str, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distances (or negated products) of the pairs (i, j), each row summed on its own in a fixed order."""
    out = np.empty(i.size)
    step = max(1, _PAIR_BYTES // (8 * rows.shape[1]))
    for at in range(0, i.size, step):
        a, b = rows[i[at : at + step]], rows[j[at : at + step]]
        out[at : at + step] = np.square(a - b).sum(axis=1) if metric == "euclidean" else -(a * b).sum(axis=1)
    return out
