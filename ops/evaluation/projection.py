"""Modularity of the user-user projection of a bipartite graph, from the bipartite graph itself; needs no labels.

Axes: U users, n users of one worker, N notes, K clusters.
"""

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Int64
from numpy.typing import NDArray

from ops.clustering.owners import Owners, Route


def projection_modularity(train: sp.csr_array, clusters: Int64[np.ndarray, "n"], owners: Owners | None = None) -> float:
    """Newman's modularity of the graph of users whose weights A_uv (u != v) are their numbers of common notes.

    The projection, which has an edge for every two readers of a note, is never formed: with d_n readers of note n,
    c_nk of them in cluster k, 2 m = sum_n d_n (d_n - 1), inside_k = sum_n c_nk (c_nk - 1), volume_k = sum_n
    c_nk (d_n - 1), and the modularity is sum_k inside_k / 2m - (volume_k / 2m)^2. 0 where no two users share a note.
    Entries of `train` [n N] above 0 count once. Worker n % W counts note n; all sums are of whole numbers. Raises
    ValueError unless there is one cluster a user.
    """
    if len(clusters) != train.shape[0]:
        raise ValueError(f"{len(clusters)} clusters for {train.shape[0]} users")
    owners = owners or Owners.alone(len(clusters))
    table = sp.csr_array(train)
    table.sum_duplicates()
    users = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))[table.data > 0]
    notes: NDArray[np.int64] = table.indices[table.data > 0].astype(np.int64)
    readers = owners.sum_(np.bincount(notes, minlength=table.shape[1])).astype(np.float64)
    total = float(np.sum(readers * (readers - 1)))
    if total == 0:
        return 0.0
    keys, counts = np.unique(clusters[users] * table.shape[1] + notes, return_counts=True)
    sent = Route(owners.group, keys % table.shape[1] % owners.group.world, np.stack([keys, counts], axis=1)).asked
    keys, places = np.unique(sent[:, 0], return_inverse=True)
    counts = np.bincount(places, weights=sent[:, 1], minlength=len(keys))
    cluster, note = np.divmod(keys, table.shape[1])
    largest = owners.group.maximum_(torch.tensor(int(clusters.max(initial=0))))
    volume = owners.sum_(np.bincount(cluster, counts * (readers[note] - 1), minlength=int(largest) + 1))
    inside = owners.sum_(np.array([np.sum(counts * (counts - 1))]))
    return float(inside[0] / total) - float(np.sum((volume / total) ** 2))
