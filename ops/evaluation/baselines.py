"""What every table carries beside a method: k-means on the features, on the low-pass filtered ones, on pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.clustering.kmeans import kmeans
from ops.data.types.graph import AttributedGraph
from ops.graph.adjacency import low_pass
from ops.rng import generator

SAMPLE_ROWS = 4096  # among which starts are made
TILE_VALUES = 1 << 23  # values in memory as float32 at a time
START_ROUNDS, ROUNDS = 15, 100


def baselines(
    data: AttributedGraph, n_clusters: int, seeds: list[int], order: int
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """(name, seed, clusters int64 [N]) of `kmeans` on X and `filter+kmeans` on X filtered `order` times; ten starts."""
    spaces = {"kmeans": data.x, "filter+kmeans": low_pass(data.x, data.edge_index, order)}
    for name, space in spaces.items():
        x = torch.from_numpy(space)
        for seed in seeds:
            yield name, seed, kmeans(x, n_clusters, (seed, 0)).labels.numpy()


def tile_kmeans(space: NDArray[Any], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """k-means of rows [N, F] of any numbers, also bytes in a mapped file, without a copy of them: clusters [N].

    Ten k-means++ starts on a sample of rows, then Lloyd on all, a tile of rows in memory at a time, until no more than
    one row in a thousand changes.
    """
    n, width = space.shape
    count = min(n, max(64 * n_clusters, min(SAMPLE_ROWS, 4 * TILE_VALUES // width)))
    rows = np.sort(generator(seed, "tile kmeans").choice(n, count, replace=False))
    drawn = torch.from_numpy(space[rows].astype(np.float32))
    middle = drawn.mean(0)  # distances far from the origin would cancel
    centres = kmeans(drawn.sub_(middle), n_clusters, (seed, 0), max_iterations=START_ROUNDS).centres
    labels = torch.full((n,), -1)
    tile = max(1, TILE_VALUES // width)
    for _ in range(ROUNDS):
        sums, counts = torch.zeros(n_clusters, width, dtype=torch.float64), torch.zeros(n_clusters)
        changed = 0
        half = centres.square().sum(1) / 2 + centres @ middle  # |x - middle - c|^2 / 2 without what x adds alone
        for first in range(0, n, tile):
            x = torch.from_numpy(space[first : first + tile].astype(np.float32))
            own = torch.addmm(half, x, centres.T, alpha=-1).argmin(1)
            changed += int((own != labels[first : first + tile]).sum())
            labels[first : first + tile] = own
            one_hot = torch.nn.functional.one_hot(own, n_clusters).float()
            sums += (one_hot.T @ x).double()
            counts += one_hot.sum(0)
        if changed * 1000 <= n:
            break
        centres = torch.where(counts[:, None] > 0, (sums / counts.clamp_min(1)[:, None]).float() - middle, centres)
    return labels.numpy()
