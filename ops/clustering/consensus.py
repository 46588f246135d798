"""Consensus of many k-means draws, without an N x N array, and how far the draws agree on each row.

Which solution a single draw of k-means ends in is chance, and the lowest inertia does not tell the better ones. Rows
that many draws put together belong together (Fred & Jain 2005). With the one-hot clusters of all draws side by side as
H [N, R K], `H H^T` counts how many draws put two rows together. Its leading eigenvectors follow from those of the small
`H^T H`.

Axes: N rows, D width, K clusters, R draws.
"""

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.clustering.kmeans import kmeans

DRAWS = 33


def consensus(
    z: Float[Tensor, "N D"], n_clusters: int, seed: tuple[int, ...], draws: int = DRAWS
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(clusters int64 [N], agreement float32 [N] in [0, 1]) of `draws` single k-means++ starts on rows z.

    The clusters are those of k-means on the K leading eigenvectors of `H H^T`. Each cluster of a draw is assigned to
    the consensus cluster of most of its rows; the agreement of a row is the share of draws whose cluster is assigned to
    the row's own.
    """
    runs = np.stack([kmeans(z, n_clusters, (*seed, draw), starts=1).labels.cpu().numpy() for draw in range(draws)], 1)
    n, width = len(runs), draws * n_clusters
    columns = runs + n_clusters * np.arange(draws)
    ones, starts = np.ones(n * draws, dtype=np.float32), np.arange(0, n * draws + 1, draws)
    onehot = sp.csr_array((ones, columns.ravel(), starts), shape=(n, width))
    _, vectors = np.linalg.eigh((onehot.T @ onehot).toarray())
    rows = torch.from_numpy(np.ascontiguousarray(onehot @ vectors[:, -n_clusters:].astype(np.float32) / draws**0.5))
    labels = kmeans(rows, n_clusters, (*seed, draws)).labels.numpy()
    counts = np.zeros((width, n_clusters), dtype=np.int64)
    np.add.at(counts, (columns.ravel(), np.repeat(labels, draws)), 1)
    agreement = (counts.argmax(1)[columns] == labels[:, None]).mean(1)
    return labels, agreement.astype(np.float32)
