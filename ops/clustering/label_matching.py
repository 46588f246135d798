"""Cluster ids that stay when data is clustered again."""

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray


def counts(a: Int64[np.ndarray, "n"], b: Int64[np.ndarray, "n"], n_clusters: int) -> NDArray[np.int64]:
    """How many rows [n] are in a cluster of `a` and in one of `b`, both in [0, K): int64 [K K]."""
    return np.bincount(n_clusters * a + b, minlength=n_clusters**2).reshape(n_clusters, n_clusters)


def matched_ids(now: Int64[np.ndarray, "n"], before: Int64[np.ndarray, "n"], n_clusters: int) -> NDArray[np.int64]:
    """For each of K clusters the id of the earlier cluster that it shares most nodes with: int64 [K].

    `now` [n] in [0, K) and `before` [n] are the clusters of the shared nodes. Of earlier ids only those below K are
    given, as K may have shrunk; else as `matched_counts`.
    """
    inside = before < n_clusters
    return matched_counts(counts(now[inside], before[inside], n_clusters))


def matched_counts(table: Int64[np.ndarray, "K K"]) -> NDArray[np.int64]:
    """The same by the `counts` of rows of both: one to one, the pairs that keep most rows in all (the assignment
    problem). Clusters without a partner take the ids that are left, in order.
    """
    from scipy.optimize import linear_sum_assignment

    new, ids = linear_sum_assignment(-table)
    partners = table[new, ids] > 0
    out = np.full(len(table), -1, dtype=np.int64)
    out[new[partners]] = ids[partners]
    out[out < 0] = np.setdiff1d(np.arange(len(table)), out)
    return out


def numbered_as(reference: Int64[np.ndarray, "n"], clusters: Int64[np.ndarray, "n"]) -> NDArray[np.int64]:
    """`clusters` [n] with the numbers of the clusters in `reference` [n] that they share most rows with, one to one."""
    k = int(max(reference.max(), clusters.max())) + 1
    ids: NDArray[np.int64] = matched_ids(clusters, reference, k)
    return np.take(ids, clusters)
