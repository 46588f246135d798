"""Projections of all images over the workers, and what is found in them: clusters, hardest pairs.

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

from ops.clustering.distributed_kmeans import Clustering, team_kmeans
from ops.clustering.gmm import Mixture, responsibilities, team_gmm
from ops.clustering.lloyd import Rows, everyone, nearest_two
from ops.distributed.process_group import Team
from ops.rng import generator
from trainers.hadis.settings import Settings

CHUNK = 512  # images at a time; divides the blocks that workers hold, so that a row's bits do not depend on them
COPIES = 8192  # images of which augmented copies are clustered
PAIRS, SEARCHED = 64, 4096  # hardest pairs kept, and images among which they are looked for


@dataclass(frozen=True)
class Found:
    """Clusters of all images on every worker: labels, confidence [N], k-means' centres [K D], a mixture where asked."""

    labels: Int64[Tensor, "N"]
    confidence: Float32[Tensor, "N"]
    centres: Float[Tensor, "K D"]
    mixture: Mixture | None

    def tensors(self) -> dict[str, Tensor]:
        """What `assign` needs of it, by name."""
        named = {} if self.mixture is None else {f"mixture.{k}": v for k, v in vars(self.mixture).items()}
        return {name: t.cpu() for name, t in ({"centres": self.centres} | named).items()}


def projected(
    count: int, team: Team, width: int, project: Callable[[slice], Float[Tensor, "_ D"]]
) -> tuple[Rows, Float[Tensor, "n D"]]:
    """This worker's share of `count` projections; `project` makes those of a slice of all rows."""
    rows = Rows.share(count, team)
    ((first, own),) = rows.pieces
    found = [project(slice(i, min(i + CHUNK, first + own))) for i in range(first, first + own, CHUNK)]
    return rows, torch.cat(found) if found else torch.zeros(0, width)


def kmeans_of(z: Float[Tensor, "n D"], rows: Rows, settings: Settings, seed: int, epoch: int, team: Team) -> Clustering:
    """Spherical k-means of all workers' projections, keyed by seed and epoch."""
    key = seed, epoch
    return team_kmeans(z, rows, settings.k, key, team=team, starts=settings.kmeans_starts, spherical=True)


def cluster(
    z: Float[Tensor, "n D"], rows: Rows, settings: Settings, seed: int, epoch: int, team: Team
) -> tuple[Found, Int64[Tensor, "N"]]:
    """(clusters to report, k-means' labels [N] to train with); every worker has to call it."""
    made = kmeans_of(z, rows, settings, seed, epoch, team)
    pseudo = everyone(made.labels, rows, team)
    if settings.cluster == "kmeans":
        return Found(pseudo, everyone(made.confidence.float(), rows, team), made.centres, None), pseudo
    mixture = team_gmm(z, rows, made, team)
    sure, labels = responsibilities(z, mixture).max(1)
    return Found(everyone(labels, rows, team), everyone(sure.float(), rows, team), made.centres, mixture), pseudo


def assign(z: Float[Tensor, "n D"], tensors: dict[str, Tensor]) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """Clusters and confidences of projections by what a model has stored."""
    if "mixture.means" not in tensors:
        return nearest_two(normalize(z), tensors["centres"])
    parts = {k.removeprefix("mixture."): v for k, v in tensors.items() if k.startswith("mixture.")}
    sure, labels = responsibilities(z, Mixture(**parts)).max(1)
    return labels, sure.float()


def sampled(n: int, count: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """`count` of n rows (all of fewer) in order; the same in every epoch."""
    if n <= count:
        return np.arange(n)
    return np.sort(generator(seed, purpose).choice(n, count, replace=False, shuffle=False))


def hard_pairs(
    z: Float[Tensor, "N D"], labels: Int64[Tensor, "N"], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest pairs of images in different clusters [P 2], nearest first, and their distances [P].

    An image is in one pair at most; more than `SEARCHED` images are sampled.
    """
    chosen = torch.from_numpy(sampled(len(z), SEARCHED, seed, "hadis/pairs"))
    rows, own = normalize(z[chosen]), labels[chosen]
    other = rows.new_full((len(rows),), -torch.inf)
    place = torch.zeros(len(rows), dtype=torch.int64)
    for piece in torch.split(torch.arange(len(rows)), CHUNK):
        near = (rows[piece] @ rows.T).masked_fill_(own[piece, None] == own, -torch.inf)
        other[piece], place[piece] = near.max(1)
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    for i in other.argsort(descending=True, stable=True).tolist():
        j = int(place[i])
        if len(pairs) < PAIRS and torch.isfinite(other[i]) and not {i, j} & taken:
            taken |= {i, j}
            pairs.append((i, j))
    found = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    distance = (rows[found[:, 0]] - rows[found[:, 1]]).norm(dim=1)
    return chosen[found].numpy(), distance.float().numpy()
