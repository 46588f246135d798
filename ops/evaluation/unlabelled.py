"""Cluster quality without labels, in a space and on a graph that no setting of a trial moves.

Axes: N nodes, n of them one worker's, F features, K clusters, E directed edges; O notes of a bipartite graph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from ops.clustering.owners import Owners, Route
from ops.clustering.shards import BLOCK_ROWS
from ops.data.types.graph import AttributedGraph
from ops.graph.adjacency import low_pass
from ops.rng import generator

FIXED_ORDER = 2  # the filter of the fixed space: every method and trial is judged on X filtered with t = 2
SAMPLE_ABOVE = 10_000
LARGE_TABLE, PROJECTED = 1 << 26, 512  # values of X beyond which the space has so many columns


def structure_indices(edge_index: NDArray[np.int64], clusters: NDArray[np.int64]) -> dict[str, float]:
    """Modularity, mean conductance, cut ratio and coverage of an undirected graph; self loops are left out.

    modularity: sum_c (e_c / m - (d_c / 2m)^2) (Newman 2006). conductance of c: cut_c / min(vol_c, vol_rest), mean over
    non-empty clusters (0 where a side has no edges). cut ratio of c: cut_c / (n_c (N - n_c)), mean likewise. A single
    cluster gets the worst values.
    coverage: the share of edges inside clusters.
    """
    source, target = edge_index[:, edge_index[0] != edge_index[1]]
    n, k = len(clusters), int(clusters.max()) + 1
    total = max(len(source), 1)
    inside = np.bincount(clusters[source][clusters[source] == clusters[target]], minlength=k)
    volume = np.bincount(clusters[source], minlength=k)
    size = np.bincount(clusters, minlength=k)
    cut = volume - inside
    present = size > 0
    side = np.minimum(volume, volume.sum() - volume)
    pairs = size * (n - size)
    if present.sum() < 2:  # nothing is cut, which would be the best value for the worst clustering
        return {"modularity": 0.0, "conductance": 1.0, "cut_ratio": 1.0, "coverage": float(inside.sum() / total)}
    return {
        "modularity": float(np.sum(inside / total - (volume / total) ** 2)),
        "conductance": float(np.mean((cut / np.maximum(side, 1))[present])),
        "cut_ratio": float(np.mean((cut / np.maximum(pairs, 1))[present])),
        "coverage": float(inside.sum() / total),
    }


def size_indices(clusters: NDArray[np.int64], n_clusters: int, owners: Owners | None = None) -> dict[str, float]:
    """Sizes of the smallest and largest cluster, their Gini coefficient, and how many clusters are empty."""
    size = np.sort(cluster_sizes(clusters, owners, n_clusters)).astype(np.float64)
    k = len(size)
    gini = float(np.sum((2 * np.arange(1, k + 1) - k - 1) * size) / (k * size.sum()))
    return {
        "size_min": float(size[0]),
        "size_max": float(size[-1]),
        "size_gini": gini,
        "empty": float(np.sum(size == 0)),
    }


def cluster_sizes(clusters: NDArray[np.int64], owners: Owners | None = None, n_clusters: int = 0) -> NDArray[np.int64]:
    """Rows of all workers in each cluster, at least `n_clusters` of them."""
    owners = owners or Owners.alone(len(clusters))
    largest = int(owners.group.maximum_(torch.tensor(int(clusters.max(initial=0)))))
    return np.asarray(owners.sum_(np.bincount(clusters, minlength=max(n_clusters, largest + 1))))


def feature_indices(
    space: NDArray[np.float32], clusters: NDArray[np.int64], seed: int = 0, metric: str = "euclidean",
    owners: Owners | None = None,
) -> dict[str, float]:  # fmt: skip
    """Silhouette (on a fixed sample above 10,000 rows), Davies-Bouldin and Calinski-Harabasz in `space` [n, F].

    `metric` is the silhouette's, which rank 0 alone computes (-1 elsewhere); the other two are Euclidean.

    With fewer than two clusters, or none of two rows, none is defined: the worst values stand for them (-1, infinity
    is avoided: 1e3, 0).
    """
    from sklearn import config_context, metrics

    owners = owners or Owners.alone(len(clusters))
    sizes = cluster_sizes(clusters, owners)
    if not 1 < np.sum(sizes > 0) < owners.total:
        return {"silhouette": -1.0, "davies_bouldin": 1e3, "calinski_harabasz": 0.0}
    rows = np.arange(owners.total)
    if len(rows) > SAMPLE_ABOVE:
        rows = np.sort(generator(seed, "silhouette").choice(rows, SAMPLE_ABOVE, replace=False))
    sampled, drawn = owners.gather(clusters, rows), owners.gather(space, rows)
    silhouette = -1.0
    if owners.group.rank == 0 and 1 < len(np.unique(sampled)) < len(sampled):
        with config_context(working_memory=64):  # MiB a chunk: the default of 1 GiB would top the training's own peak
            silhouette = float(metrics.silhouette_score(drawn, sampled, metric=metric))
    return {"silhouette": silhouette} | _around_centres(space, clusters, sizes, owners)


def _around_centres(
    space: NDArray[np.float32], clusters: NDArray[np.int64], sizes: NDArray[np.int64], owners: Owners
) -> dict[str, float]:
    """Davies-Bouldin (1979) and Calinski-Harabasz (1974), in two passes over the rows, as scikit-learn defines them."""
    labels, width = torch.from_numpy(clusters), space.shape[1]
    present = np.flatnonzero(sizes)

    def over(rows: slice, columns: int, values: Callable[[slice], torch.Tensor]) -> NDArray[np.float64]:
        total = torch.zeros(len(sizes), columns, dtype=torch.float64)
        for first in range(rows.start, rows.stop, BLOCK_ROWS):
            block = slice(first, min(first + BLOCK_ROWS, rows.stop))
            total.index_add_(0, labels[block], values(block))
        return total.numpy()

    def wide(block: slice) -> torch.Tensor:
        return torch.from_numpy(space[block].astype(np.float64))

    def apart(block: slice) -> torch.Tensor:
        square = (wide(block) - centres[labels[block]]).square().sum(1)
        return torch.stack([square.sqrt(), square], 1)

    sums = owners.sum_by_part((len(sizes), width), lambda rows: over(rows, width, wide))
    centres = torch.from_numpy(sums / np.maximum(sizes, 1)[:, None])
    spread, within = owners.sum_by_part((len(sizes), 2), lambda rows: over(rows, 2, apart)).T
    near, k = centres[present], len(present)
    between = torch.linalg.vector_norm(near[:, None] - near, dim=2).numpy()
    mean = spread[present] / sizes[present]
    if np.allclose(mean, 0) or np.allclose(between, 0):
        davies_bouldin = 0.0
    else:
        ratio = (mean[:, None] + mean) / np.where(between == 0, np.inf, between)
        np.fill_diagonal(ratio, 0.0)
        davies_bouldin = float(ratio.max(1).mean())
    off_centre = np.square(near.numpy() - sums.sum(0) / owners.total).sum(1)
    inner, outer = float(within.sum()), float(sizes[present] @ off_centre)
    calinski_harabasz = outer * (owners.total - k) / (inner * (k - 1)) if inner else 1.0
    return {"davies_bouldin": davies_bouldin, "calinski_harabasz": calinski_harabasz}


def tune_score(indices: dict[str, float]) -> float:
    """One scalar in [0, 1] that needs no other trial: mean of modularity, 1 - conductance, (silhouette + 1) / 2."""
    parts = (indices["modularity"], 1 - indices["conductance"], (indices["silhouette"] + 1) / 2)
    return float(np.mean(np.clip(parts, 0, 1)))


def fixed_space(data: AttributedGraph) -> NDArray[np.float32]:
    """X [N, F] filtered with t = 2; of large tables a keyed random projection to 512 columns, as its cost grows with F.

    It keeps distances within some 5 % (Johnson & Lindenstrauss 1984).
    """
    x = data.x
    if x.size > LARGE_TABLE and x.shape[1] > PROJECTED:
        draws = generator(0, "fixed space").standard_normal((x.shape[1], PROJECTED), np.float32) / PROJECTED**0.5
        x = (torch.from_numpy(x) @ torch.from_numpy(draws)).numpy()
    return low_pass(x, data.edge_index, FIXED_ORDER)


def projection_modularity(train: sp.csr_array, clusters: NDArray[np.int64], owners: Owners | None = None) -> float:
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


@dataclass
class GraphJudge:
    """Scores an assignment of one graph without labels."""

    data: AttributedGraph
    n_clusters: int
    space: NDArray[np.float32] | None = None  # the fixed space, where the caller has it already

    def __post_init__(self) -> None:
        self._space = fixed_space(self.data) if self.space is None else self.space

    def __call__(self, clusters: NDArray[np.int64]) -> dict[str, float]:
        """All indices of this module by name, with `tune_score` as `score`."""
        indices = structure_indices(self.data.edge_index, clusters) | feature_indices(self._space, clusters)
        return indices | size_indices(clusters, self.n_clusters) | {"score": tune_score(indices)}
