"""What every table of graphs carries beside a method: k-means on features, filtered features and the degree, and the
quick linear methods, each at the feature treatment and order that the panel chooses without labels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ops.clustering.kmeans import kmeans
from ops.clustering.linear import KINDS
from ops.clustering.lloyd import nearest_two
from ops.clustering.shards import BLOCK_ROWS
from ops.data.types.graph import AttributedGraph
from ops.evaluation.quick import DEGREE, QuickClusterings, methods
from ops.evaluation.unlabelled import LARGE_TABLE
from ops.graph.adjacency import low_pass
from ops.rng import generator

LINEAR_SEEDS, UNTRAINED_SEEDS = 10, 3  # at most
LINEAR_ORDERS = (5, 10)
LARGE_EDGES = 1_000_000  # directed edges beyond which one order is tried


def baselines(
    data: AttributedGraph, n_clusters: int, seeds: list[int], order: int
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """(name, seed, clusters int64 [N]) of every baseline; k-means takes ten starts.

    `kmeans` is on X, `filter+kmeans` on unit rows of X filtered `order` times, `degree+kmeans` on log(1 + degree).
    """
    for seed in seeds:
        yield "kmeans", seed, kmeans_clusters(data.x, n_clusters, seed, LARGE_TABLE)
    rows = normalize(torch.from_numpy(data.x)).numpy()
    filtered = low_pass(rows, data.edge_index, order, data.weight)
    for seed in seeds:
        yield "filter+kmeans", seed, kmeans_clusters(filtered, n_clusters, seed, LARGE_TABLE)
    del rows, filtered  # as large as X, each
    quick = QuickClusterings(data, n_clusters)
    for seed in seeds:
        yield "degree+kmeans", seed, quick.cluster(DEGREE, seed)
    yield from _linear(quick, seeds[:LINEAR_SEEDS])


def kmeans_clusters(
    x: NDArray[np.number], n_clusters: int, seed: int, large: int, sampled: int | None = None,
    start_rows: int | None = None,
) -> NDArray[np.int64]:  # fmt: skip
    """Clusters [N] of k-means on `x` [N, F], perhaps a mapped file of any numbers.

    Of a table of more than `large` values the centres are those of a keyed sample with `sampled` (half as many).
    """
    in_memory = x.dtype == np.float32 and x.flags.writeable
    table = torch.from_numpy(x) if in_memory else x  # a tensor is prepared once, an array at every look
    if x.size <= large:
        return kmeans(table, n_clusters, (seed, 0), start_rows=start_rows).labels.numpy()
    rows = (sampled or large // 2) // x.shape[1]
    drawn = np.sort(generator(seed, "baseline").choice(len(x), rows, replace=False))
    centres = kmeans(x[drawn], n_clusters, (seed, 0), start_rows=start_rows).centres
    blocks = (x[first : first + BLOCK_ROWS].astype(np.float32) for first in range(0, len(x), BLOCK_ROWS))
    return torch.cat([nearest_two(torch.from_numpy(block), centres)[0] for block in blocks]).numpy()


def _linear(quick: QuickClusterings, seeds: list[int]) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """The linear methods at their label-free best; the first seed is what the panel sees."""
    data = quick.data
    orders = LINEAR_ORDERS if data.edge_index.shape[1] <= LARGE_EDGES else LINEAR_ORDERS[-1:]
    for kind in KINDS:
        tried = [quick.candidate(method, seeds[0]) for method in methods(data, (kind,), orders=orders)]
        if tried:
            best, _ = quick.chosen(tried)
            for seed in seeds:
                yield kind, seed, best.clusters[seed] if seed in best.clusters else quick.cluster(best.method, seed)
