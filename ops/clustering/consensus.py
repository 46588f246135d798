"""Consensus of many clusterings of the same rows, without an N x N array, and how far they agree on each row.

Which solution a single draw of k-means ends in is chance, and the lowest inertia does not tell the better ones. Rows
that many clusterings put together belong together (Fred & Jain 2005). With the one-hot clusters of all clusterings side
by side as H [N, R K], `H H^T` counts how many put two rows together. Its leading eigenvectors follow from those of the
small `H^T H`, to which every worker adds what its rows give.

Axes: N rows of all workers, n rows of one worker, D width, K clusters, R clusterings.
"""

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
START_ROWS = 20_000  # of larger tables the starts of k-means are made on a sample


def draws(
    z: Float[Tensor, "n D"], n_clusters: int, seed: tuple[int, ...], count: int, owners: Owners
) -> Int64[NDArray[np.int64], "n R"]:
    """The clusters of `count` single k-means++ starts on rows z."""
    shard, group = owners.shard, owners.group
    each = (kmeans(z, n_clusters, (*seed, draw), starts=1, shard=shard, group=group) for draw in range(count))
    return np.stack([clusters.labels.cpu().numpy() for clusters in each], 1)


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
    columns = clusterings + n_clusters * np.arange(count)
    onehot = sp.csr_array((np.ones(n * count), columns.ravel(), np.arange(0, n * count + 1, count)), shape=(n, width))
    together = owners.sum_((onehot.T @ onehot).toarray())
    _, vectors = scipy.linalg.eigh(together, subset_by_index=(width - n_clusters, width - 1))
    vectors = group.broadcast_(torch.from_numpy(np.ascontiguousarray(vectors))).numpy()
    rows = torch.from_numpy((onehot @ vectors / count**0.5).astype(np.float32))
    found = kmeans(
        rows, n_clusters, (*seed, count), shard=owners.shard, group=group, start_rows=START_ROWS
    ).labels.numpy()  # fmt: skip
    counts = np.zeros((width, n_clusters), dtype=np.int64)
    np.add.at(counts, (columns.ravel(), np.repeat(found, count)), 1)
    agreement = (owners.sum_(counts).argmax(1)[columns] == found[:, None]).mean(1)
    return found, agreement.astype(np.float32)
