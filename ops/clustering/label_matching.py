"""Cluster ids that are kept when data is clustered again."""

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray


def matched_ids(now: Int64[np.ndarray, "n"], before: Int64[np.ndarray, "n"], n_clusters: int) -> NDArray[np.int64]:
    """For each of K clusters the id of the earlier cluster with which it shares most nodes: int64 [K].

    `now` [n] in [0, K) and `before` [n] are the clusters of the shared nodes. Each id is given once: the pairs are
    those that keep most nodes in all (the assignment problem on the table of counts). Clusters without a partner take
    the remaining ids in order. Of the earlier ids only those below K are used, as K may have become smaller.
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
    """`clusters` [n], renumbered one to one as the clusters of `reference` [n] with which they share most rows."""
    k = int(max(reference.max(), clusters.max())) + 1
    ids: NDArray[np.int64] = matched_ids(clusters, reference, k)
    return np.take(ids, clusters)
