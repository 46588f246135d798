"""Modularity of the user-user projection of a bipartite graph, from the bipartite graph itself; needs no labels.

Axes: U users, N notes, K clusters.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64
from numpy.typing import NDArray


def projection_modularity(train: sp.csr_array, clusters: Int64[np.ndarray, "U"]) -> float:
    """Newman's modularity of the graph of users whose weights A_uv (u != v) are their numbers of common notes.

    The projection, which has an edge for every two readers of a note, is never formed: with d_n readers of note n,
    c_nk of them in cluster k, 2 m = sum_n d_n (d_n - 1), inside_k = sum_n c_nk (c_nk - 1), volume_k = sum_n
    c_nk (d_n - 1), and the modularity is sum_k inside_k / 2m - (volume_k / 2m)^2. 0 where no two users share a note.
    Entries of `train` [U N] above 0 count once. Raises ValueError unless there is one cluster a user.
    """
    if len(clusters) != train.shape[0]:
        raise ValueError(f"{len(clusters)} clusters for {train.shape[0]} users")
    table = sp.csr_array(train)
    table.sum_duplicates()
    users = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))[table.data > 0]
    notes: NDArray[np.int64] = table.indices[table.data > 0].astype(np.int64)
    readers = np.bincount(notes, minlength=table.shape[1]).astype(np.float64)
    total = float(np.sum(readers * (readers - 1)))
    if total == 0:
        return 0.0
    keys, counts = np.unique(clusters[users] * table.shape[1] + notes, return_counts=True)
    cluster, note = np.divmod(keys, table.shape[1])
    inside = float(np.sum(counts * (counts - 1.0)))
    volume = np.bincount(cluster, weights=counts * (readers[note] - 1))
    return inside / total - float(np.sum((volume / total) ** 2))
