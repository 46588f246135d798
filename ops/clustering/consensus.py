"""Consensus of many clusterings of the same rows, without an N x N array, and how far they agree on each row.

Which solution a single draw of k-means ends in is chance, and the lowest inertia does not tell the better ones. Rows
that many clusterings put together belong together (Fred & Jain 2005), the more the smaller the clusters are that they
share (Fern & Brodley 2004, ICML). H [N, R K] are the one-hot clusters of all clusterings side by side, each column
divided by the root of its cluster's size; `H H^T` sums 1 / size over the clusters that two rows share. Its leading
eigenvectors follow from those of the small `H^T H`, to which every worker adds what its rows give.

Axes: N rows of all workers, n rows of one worker, D width, K clusters, R clusterings.
"""

from functools import partial

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.clustering.kmeans import kmeans
from ops.clustering.owners import Owners

LARGEST = 3300  # R K: the eigenvectors of H^T H take seconds
BLOCK_ROWS = 1 << 16
START_ROWS = 20_000  # of larger tables the starts of k-means are made on a sample


def draws(
    z: Float[Tensor, "n D"], n_clusters: int, seed: tuple[int, ...], count: int, owners: Owners, spherical: bool = False
) -> Int64[NDArray[np.int64], "n R"]:
    """The clusters of `count` single k-means++ starts on rows z, of unit length if `spherical`."""
    shard, group = owners.shard, owners.group
    one = partial(kmeans, z, n_clusters, starts=1, shard=shard, group=group, spherical=spherical)
    return np.stack([one((*seed, draw)).labels.cpu().numpy() for draw in range(count)], 1)


def consensus(
    clusterings: Int64[NDArray[np.int64], "n R"], n_clusters: int, seed: tuple[int, ...], owners: Owners
) -> tuple[Int64[NDArray[np.int64], "n"], Float[NDArray[np.float32], "n"]]:
    """(clusters, agreement in [0, 1]) of R clusterings into at most K clusters each; all workers call it.

    The clusters are those of k-means on the K leading eigenvectors of `H H^T`. Each cluster of a clustering is assigned
    to the consensus cluster of most of its rows; the agreement of a row is the share of clusterings whose cluster is
    assigned to the row's own. The bits do not depend on the number of workers.
    """
    (n, count), group = clusterings.shape, owners.group
    width = count * n_clusters
    blocks = [slice(first, first + BLOCK_ROWS) for first in range(0, n, BLOCK_ROWS)]
    together = np.zeros((width, width))
    for block in blocks:
        onehot = _onehot(clusterings[block], n_clusters)
        together += onehot.T @ onehot
    owners.sum_(together)
    roots = np.sqrt(together.diagonal().clip(1))  # of the clusters' sizes
    _, vectors = scipy.linalg.eigh(together / np.outer(roots, roots), subset_by_index=(width - n_clusters, width - 1))
    vectors = group.broadcast_(torch.from_numpy(vectors / roots[:, None])).numpy()
    rows = np.zeros((n, n_clusters), dtype=np.float32)
    for block in blocks:
        rows[block] = _onehot(clusterings[block], n_clusters) @ vectors
    clusters = kmeans(
        torch.from_numpy(rows), n_clusters, (*seed, count), shard=owners.shard, group=group, start_rows=START_ROWS
    ).labels.numpy()
    counts = np.stack([np.bincount(n_clusters * each + clusters, minlength=n_clusters**2) for each in clusterings.T])
    assigned = owners.sum_(counts).reshape(count, n_clusters, n_clusters).argmax(2)
    agreement = np.zeros(n, dtype=np.float32)
    for each, to in zip(clusterings.T, assigned, strict=True):
        agreement += to[each] == clusters
    return clusters, agreement / np.float32(count)


def _onehot(clusterings: Int64[NDArray[np.int64], "n R"], n_clusters: int) -> sp.csr_array:
    """The clusters of all clusterings side by side [n, R K]."""
    n, count = clusterings.shape
    columns = (clusterings + n_clusters * np.arange(count)).ravel()
    return sp.csr_array(
        (np.ones(n * count), columns, np.arange(0, n * count + 1, count)), shape=(n, count * n_clusters)
    )
