"""Exact k-nearest-neighbour graph by blocks of rows, never N x N.

faiss finds candidates in single precision, within its proven error; float64 ranks them. A row whose candidates do not
fit (ties, a huge range of lengths) is searched in double precision. The result depends on neither blocks nor threads.

Axes: N rows, F columns, B rows of a block, m candidates.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ops.errors import DataError

METRICS = ("euclidean", "cosine", "heat", "dot")
_PAIR_BYTES = 2**26  # of feature rows gathered at once for exact distances
_SPARE = 32  # candidates beyond k that a row has room for


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


@dataclass(frozen=True)
class _Single:
    """Rows in single precision, at most 1 in size; a score `half_j - x_i y_j` of theirs is off by e_i + e_j at most."""

    queries: NDArray[np.float32]  # [N F + 1], the last column -1
    index: Any  # of faiss, over the rows with half - e as their last column: its products are scores, negated
    error: NDArray[np.float32]  # e [N]


def _single(rows: NDArray[np.float64], metric: str) -> _Single:
    import faiss

    f = rows.shape[1]
    peak = float(np.abs(rows).max(initial=0.0)) or 1.0
    scaled = rows / peak
    lengths = np.sqrt(np.einsum("nf,nf->n", scaled, scaled))
    shift = scaled.mean(axis=0) if metric == "euclidean" else np.zeros(f)
    scaled -= shift
    half = 0.5 * np.einsum("nf,nf->n", scaled, scaled)
    # of the product and the rounding to single; of the shift in double; of numbers too small for either
    error = 4 * (f + 8) * np.finfo(np.float32).eps * half
    error += 2 * np.finfo(np.float64).eps * (lengths + np.linalg.norm(shift)) ** 2 + f * 1e-37
    low = (half if metric == "euclidean" else 0.0) - error
    queries = np.empty((len(rows), f + 1), dtype=np.float32)
    queries[:, :f], queries[:, f] = scaled, low
    index = faiss.IndexFlatIP(f + 1)
    index.add(queries)  # it makes a copy
    queries[:, f] = -1
    return _Single(queries, index, (1.01 * error).astype(np.float32))


def _nearest(rows: NDArray[np.float64], metric: str, k: int, block_rows: int) -> NDArray[np.int64]:
    """The k nearest of every row, int64 [N, k]."""
    n = len(rows)
    single, nearest = _single(rows, metric), np.empty((n, k), dtype=np.int64)
    left = []
    for start in range(0, n, block_rows):
        block = np.arange(start, min(start + block_rows, n))
        at, candidate, sure = _candidates(single, k, block)
        nearest[block[sure]] = _ranked(rows, metric, k, (block[at], candidate), block[sure])
        left.append(block[~sure])
    rest = np.concatenate(left)
    for start in range(0, len(rest), block_rows):
        block = rest[start : start + block_rows]
        nearest[block] = _searched(rows, metric, k, block)
    return nearest


def _candidates(
    single: _Single, k: int, block: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(places in `block`, candidates) of the rows that are sure to have all of theirs, and which rows these are."""
    n = len(single.queries)
    count = min(k + _SPARE, n - 1)
    product, column = single.index.search(single.queries[block], count + 1)
    others = column != block[:, None]
    others[others.all(axis=1), -1] = False  # a row that is not among its own nearest gives up the farthest instead
    least, column = -product[others].reshape(-1, count), column[others].reshape(-1, count)  # no score is lower
    high = least + 2 * single.error[column]
    bar = np.partition(high, k - 1, axis=1)[:, k - 1] + 2 * single.error[block]  # the k-th nearest scores at most that
    sure = least[:, -1] > bar if count < n - 1 else np.ones(len(block), dtype=np.bool_)
    at, place = np.nonzero((least <= bar[:, None]) & sure[:, None])
    return at, column[at, place], sure


def _searched(rows: NDArray[np.float64], metric: str, k: int, block: NDArray[np.int64]) -> NDArray[np.int64]:
    """The k nearest of the rows `block`, int64 [len(block), k], from a product in double precision.

    Its rounding depends on the block's shape, so every node within the rounding error of the k-th distance stays a
    candidate; their distances are taken again, pair by pair, which it does not.
    """
    half = 0.5 * np.einsum("nf,nf->n", rows, rows)
    error = 4 * np.finfo(np.float64).eps * (rows.shape[1] + 8) * half  # of x.y and |y|^2, per side
    # |y|^2 / 2 - x.y, which has the order of |x - y|^2; for cosine and dot -x.y
    near = rows[block] @ rows.T
    np.subtract((half if metric == "euclidean" else 0.0) + error, near, out=near)
    near[np.arange(len(block)), block] = np.inf
    kth = np.partition(near, k - 1, axis=1)[:, k - 1]
    near -= 2 * error
    at, candidate = np.nonzero(near <= (kth + 2 * error[block])[:, None])
    return _ranked(rows, metric, k, (block[at], candidate), block)


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
