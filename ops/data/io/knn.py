"""Exact k-nearest-neighbour graph by blocks of rows, never N x N; the result depends on neither blocks nor threads.

Axes: N rows, F columns.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ops.errors import DataError

METRICS = ("euclidean", "cosine", "heat", "dot")
_PAIR_BYTES = 2**26  # of feature rows gathered at once for exact distances
_BLOCK_BYTES = 2**25  # of the distances of a block of rows to all others


def knn_graph(
    x: Float[np.ndarray, "N F"], k: int, metric: str = "euclidean", block_rows: int = 1024
) -> NDArray[np.int64]:
    """Edges between every node and its k nearest others, made undirected.

    `metric`: `euclidean`, `cosine`, `heat` (the kernel exp(-|x - y|^2 / 2), which has the neighbours of the distance
    but, unlike its values, no ties where they all underflow) or `dot` (the product x.y).

    `x` [N, F] is finite; the result is int64 [2, E], both directions, sorted by (source, target), no self loops.
    Equal distances go to the lowest index, and `block_rows` changes memory, never the result. Cosine: an all-zero row
    has similarity 0 to every other. Raises DataError for k >= N.
    """
    n = x.shape[0]
    if k >= n:
        raise DataError(f"--knn: n_neighbors={k} must be < n_nodes={n}")
    metric = "euclidean" if metric == "heat" else metric
    rows = _scaled(x, metric)
    nearest = _nearest(rows, metric, k, block_rows)
    source, target = np.repeat(np.arange(n), k), nearest.reshape(-1)
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


def _nearest(rows: NDArray[np.float64], metric: str, k: int, block_rows: int) -> NDArray[np.int64]:
    """The k nearest of every row, int64 [N, k], from products of blocks of rows with all.

    Their rounding depends on the block's shape, so every node within the rounding error of the k-th distance stays a
    candidate; their distances are taken again, pair by pair, which it does not.
    """
    n, nearest = len(rows), np.empty((len(rows), k), dtype=np.int64)
    centred = rows - rows.mean(axis=0) if metric == "euclidean" else rows  # far from the origin products lose digits
    half = 0.5 * np.einsum("nf,nf->n", centred, centred)
    error = 4 * np.finfo(np.float64).eps * (rows.shape[1] + 8) * half  # of x.y and |y|^2, per side
    # |y|^2 / 2 - x.y, which has the order of |x - y|^2; for cosine and dot -x.y
    high = (half if metric == "euclidean" else 0.0) + error
    step = min(block_rows, max(1, _BLOCK_BYTES // (8 * n)))
    for start in range(0, n, step):
        block = np.arange(start, min(start + step, n))
        near = centred[block] @ centred.T
        np.subtract(high, near, out=near)
        near[np.arange(len(block)), block] = np.inf
        kth = np.partition(near, k - 1, axis=1)[:, k - 1]
        near -= 2 * error
        at, candidate = np.nonzero(near <= (kth + 2 * error[block])[:, None])
        nearest[block] = _ranked(rows, metric, k, (block[at], candidate), block)
    return nearest


def _ranked(
    rows: NDArray[np.float64], metric: str, k: int, pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    block: NDArray[np.int64],
) -> NDArray[np.int64]:  # fmt: skip
    """The k nearest among the candidate `pairs` (row, other) of the sorted rows `block`, int64 [len(block), k]."""
    i, candidate = pairs
    order = np.lexsort((candidate, _distances(rows, metric, i, candidate), i))
    first = np.searchsorted(i[order], block)
    picked: NDArray[np.int64] = candidate[order][first[:, None] + np.arange(k)]
    return picked


def _distances(
    rows: NDArray[np.float64], metric: str, i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distances (or negated products) of the pairs (i, j), each row summed by itself in a fixed order."""
    out = np.empty(i.size)
    step = max(1, _PAIR_BYTES // (8 * rows.shape[1]))
    for at in range(0, i.size, step):
        a, b = rows[i[at : at + step]], rows[j[at : at + step]]
        out[at : at + step] = np.square(a - b).sum(axis=1) if metric == "euclidean" else -(a * b).sum(axis=1)
    return out
