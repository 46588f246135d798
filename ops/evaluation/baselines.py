"""What every table carries beside a method: k-means on the features and on the low-pass filtered ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from ops.clustering.kmeans import kmeans
from ops.data.types.graph import AttributedGraph
from ops.graph.adjacency import low_pass


def baselines(
    data: AttributedGraph, n_clusters: int, seeds: list[int], order: int
) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """(name, seed, clusters int64 [N]) of `kmeans` on X and `filter+kmeans` on X filtered `order` times; ten starts."""
    spaces = {"kmeans": data.x, "filter+kmeans": low_pass(data.x, data.edge_index, order)}
    for name, space in spaces.items():
        x = torch.from_numpy(space)
        for seed in seeds:
            yield name, seed, kmeans(x, n_clusters, (seed, 0)).labels.numpy()
