"""Cluster ids that stay when data is clustered again."""

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray


def matched_ids(now: Int64[np.ndarray, "n"], before: Int64[np.ndarray, "n"], n_clusters: int) -> NDArray[np.int64]:
    """For each of K clusters the id of the earlier cluster that it shares most nodes with: int64 [K].

    `now` [n] in [0, K) and `before` [n] are the clusters of the shared nodes. One to one: the pairs
    that keep most nodes in all (the assignment problem on the table of counts). Clusters without a partner take the
    ids that are left, in order; of earlier ids only those below K are given, as K may have shrunk.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((n_clusters, n_clusters), dtype=np.int64)
    inside = before < n_clusters
    np.add.at(table, (now[inside], before[inside]), 1)
    new, ids = linear_sum_assignment(-table)
    partners = table[new, ids] > 0
    out = np.full(n_clusters, -1, dtype=np.int64)
    out[new[partners]] = ids[partners]
    out[out < 0] = np.setdiff1d(np.arange(n_clusters), out)
    return out


def numbered_as(reference: Int64[np.ndarray, "n"], clusters: Int64[np.ndarray, "n"]) -> NDArray[np.int64]:
    """`clusters` [n] with the numbers of the clusters in `reference` [n] that they share most rows with, one to one."""
    k = int(max(reference.max(), clusters.max())) + 1
    ids: NDArray[np.int64] = matched_ids(clusters, reference, k)
    return np.take(ids, clusters)
