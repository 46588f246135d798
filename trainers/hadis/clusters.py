"""Projections of all images, spread over the workers, their clusters and their hardest pairs.

Axes: N images, n of this worker, D width, K clusters, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.gmm import Mixture, fit_gmm, responsibilities
from ops.clustering.kmeans import START_ROWS, Clustering, kmeans
from ops.clustering.lloyd import nearest_two
from ops.clustering.shards import Shard, gather_rows
from ops.distributed.process_group import ProcessGroup
from ops.rng import generator
from trainers.hadis.settings import Settings

CHUNK = 512  # images at a time; divides the workers' blocks, so that a row's bits do not depend on their number
COPIES = 8192  # images whose augmented copies are clustered, at most
PAIRS, SEARCHED = 64, 4096  # hardest pairs that are kept, and images among which they are searched


@dataclass(frozen=True)
class ImageClusters:
    """Clusters of all images, on every worker: labels and confidence [N], and the centres of k-means [K D].

    `mixture` is the Gaussian mixture where the settings ask for one.
    """

    labels: Int64[Tensor, "N"]
    confidence: Float32[Tensor, "N"]
    centres: Float[Tensor, "K D"]
    mixture: Mixture | None

    def tensors(self) -> dict[str, Tensor]:
        """What `assign` needs, by name."""
        named = {} if self.mixture is None else {f"mixture.{k}": v for k, v in vars(self.mixture).items()}
        return {name: t.cpu() for name, t in ({"centres": self.centres} | named).items()}


def projected(
    count: int, group: ProcessGroup, nothing: Float[Tensor, "0 D"], project: Callable[[slice], Float[Tensor, "_ D"]]
) -> tuple[Shard, Float[Tensor, "n D"]]:
    """This worker's share of `count` projections.

    `project` computes the projections of a slice of all rows; `nothing` is the result of a worker without rows.
    """
    shard = Shard.even(count, group)
    ((first, size),) = shard.pieces
    pieces = [project(slice(i, min(i + CHUNK, first + size))) for i in range(first, first + size, CHUNK)]
    return shard, torch.cat(pieces) if pieces else nothing


def kmeans_of(
    z: Float[Tensor, "n D"], shard: Shard, settings: Settings, seed: int, epoch: int, group: ProcessGroup
) -> Clustering:
    """Spherical k-means of all workers' projections, keyed by seed and epoch."""
    return kmeans(
        z, settings.k, (seed, epoch), shard=shard, group=group, starts=settings.kmeans_starts, start_rows=START_ROWS,
        spherical=True,
    )  # fmt: skip


def cluster(
    z: Float[Tensor, "n D"], shard: Shard, settings: Settings, seed: int, epoch: int, group: ProcessGroup
) -> tuple[ImageClusters, Int64[Tensor, "N"]]:
    """(the clusters to report, the labels [N] of k-means to train with); every worker has to call it."""
    clusters = kmeans_of(z, shard, settings, seed, epoch, group)
    labels, confidence, mixture = clusters.labels, clusters.confidence, None
    if settings.cluster == "gmm":
        mixture = fit_gmm(z, shard, clusters, group)
        confidence, labels = responsibilities(z, mixture).max(1)
    gathered = [gather_rows(each, shard, group) for each in (labels, confidence.float(), clusters.labels)]
    return ImageClusters(gathered[0], gathered[1], clusters.centres, mixture), gathered[2]


def assign(z: Float[Tensor, "n D"], tensors: dict[str, Tensor]) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Clusters and confidences of projections, by the tensors of a stored model."""
    if "mixture.means" not in tensors:
        return nearest_two(normalize(z), tensors["centres"])
    parts = {k.removeprefix("mixture."): v for k, v in tensors.items() if k.startswith("mixture.")}
    confidence, labels = responsibilities(z, Mixture(**parts)).max(1)
    return labels, confidence.float()


def sampled(n: int, count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """`count` of n rows in ascending order, the same in every epoch; all rows where there are fewer."""
    if n <= count:
        return np.arange(n)
    return np.sort(generator(seed, purpose).choice(n, count, replace=False, shuffle=False))


def hard_pairs(
    z: Float[Tensor, "N D"], labels: Int64[Tensor, "N"], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest pairs of images in different clusters [P 2], nearest first, and their distances [P].

    An image is in one pair at most. Of more than `SEARCHED` images a sample is searched.
    """
    chosen = torch.from_numpy(sampled(len(z), SEARCHED, seed, "hadis/pairs"))
    rows, clusters = normalize(z[chosen]), labels[chosen]
    cosine = rows.new_full((len(rows),), -torch.inf)
    neighbour = torch.zeros(len(rows), dtype=torch.int64)
    for piece in torch.split(torch.arange(len(rows)), CHUNK):
        near = (rows[piece] @ rows.T).masked_fill_(clusters[piece, None] == clusters, -torch.inf)
        cosine[piece], neighbour[piece] = near.max(1)
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i in cosine.argsort(descending=True, stable=True).tolist():
        j = int(neighbour[i])
        if len(pairs) < PAIRS and torch.isfinite(cosine[i]) and not {i, j} & taken:
            taken |= {i, j}
            pairs.append((i, j))
    ends = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    distance = (rows[ends[:, 0]] - rows[ends[:, 1]]).norm(dim=1)
    return chosen[ends].numpy(), distance.float().numpy()
