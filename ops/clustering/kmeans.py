"""k-means by blocks of rows, all starts at once.

Assignments run in the input's precision; the sums behind each centre are taken per fixed block of rows in float64
and added in block order, so that they do not depend on how blocks are spread over workers (design decision 5).

Axes: N rows, D width, K clusters, S starts, B rows of a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ops.rng import generator

BLOCK_ROWS = 4096
Init = Literal["k-means++", "released"]


@dataclass(frozen=True)
class KMeans:
    """The best start: labels int64 [N], centres [K, D], inertia = sum of squared distances, iterations it took."""

    labels: Int64[Tensor, "N"]
    centres: Float[Tensor, "K D"]
    inertia: float
    iterations: int


def squared_distances(x: Float[Tensor, "N D"], centres: Float[Tensor, "K D"]) -> Float[Tensor, "N K"]:
    """Squared Euclidean distances; small negative rounding is clamped to 0."""
    cross = x @ centres.T
    return cross.mul_(-2).add_(x.square().sum(1, keepdim=True)).add_(centres.square().sum(1)).clamp_min_(0)


def kmeans(
    x: Float[Tensor, "N D"],
    n_clusters: int,
    seed: tuple[int, ...],
    *,
    starts: int = 10,
    spherical: bool = False,
    init: Init = "k-means++",
    max_iterations: int = 300,
    tolerance: float = 1e-4,
) -> KMeans:
    """Lloyd's k-means from `starts` k-means++ starts, the one with the lowest inertia (Arthur & Vassilvitskii 2007).

    `seed` = (seed, position, ...) keys every draw. `spherical` works on rows of unit length and keeps the centres so.
    A start ends when its centres move by less than `tolerance` times the mean column variance (scikit-learn's rule).
    `init="released"` is HSAN's released rule: 20 random sets of K rows, the set with the smallest sum of squared
    distances from all rows to all its K rows, then Lloyd once, until (sum of centre shifts)^2 < 1e-4 or 500 rounds.
    An empty cluster takes the row farthest from its centre. Raises ValueError if K > N.
    """
    n = x.shape[0]
    if not 1 <= n_clusters <= n:
        raise ValueError(f"n_clusters={n_clusters} must be between 1 and n_samples={n}")
    # far from the origin |x|^2 - 2 x c + |c|^2 cancels: Euclidean distances are taken around the mean
    shift = torch.zeros_like(x[:1]) if spherical else x.mean(0, keepdim=True)
    x = normalize(x) if spherical else x - shift
    if init == "released":
        centres = _released_start(x, n_clusters, seed)[None]
        limit, bound = 500, None
    else:
        centres = _plus_plus(x, n_clusters, seed, starts)
        limit, bound = max_iterations, tolerance * float(x.var(dim=0, correction=0).mean())
    found = _lloyd(x, centres, spherical, limit, bound)
    return replace(found, centres=found.centres + shift)


def _lloyd(x: Tensor, centres: Float[Tensor, "S K D"], spherical: bool, limit: int, bound: float | None) -> KMeans:
    best: KMeans | None = None
    active = centres
    for iteration in range(1, limit + 1):
        labels, sums, counts, inertia, farthest = _pass(x, active)
        moved = _centres(x, sums, counts, farthest).to(x.dtype)
        moved = normalize(moved, dim=-1) if spherical else moved
        shift = (moved - active).square().sum(2)
        done = shift.sqrt().sum(1).square() < 1e-4 if bound is None else shift.sum(1) <= bound
        if iteration == limit:
            done = torch.ones_like(done)
        for s in torch.nonzero(done).flatten().tolist():
            if best is None or float(inertia[s]) < best.inertia:
                # the labels belong to the centres they were computed from: `active`, not `moved`
                best = KMeans(labels[:, s].clone(), active[s].clone(), float(inertia[s]), iteration)
        active = moved[~done]
        if len(active) == 0:
            break
    assert best is not None
    return best


def _pass(
    x: Tensor, centres: Float[Tensor, "S K D"]
) -> tuple[Int64[Tensor, "N S"], Float64[Tensor, "S K D"], Float64[Tensor, "S K"], Float64[Tensor, "S"], list[Tensor]]:
    """One assignment of all rows for all starts: labels, sums and counts a cluster, inertia, rows from far to near."""
    s, k, d = centres.shape
    sums = torch.zeros(s * k, d, dtype=torch.float64, device=x.device)
    counts = torch.zeros(s * k, dtype=torch.float64, device=x.device)
    inertia = torch.zeros(s, dtype=torch.float64, device=x.device)
    labels, nearest = [], []
    for block in torch.split(x, BLOCK_ROWS):
        distance, label = squared_distances(block, centres.reshape(s * k, d)).view(-1, s, k).min(2)
        one_hot = torch.nn.functional.one_hot(label, k).view(-1, s * k).double()
        sums.addmm_(one_hot.T, block.double())
        counts += one_hot.sum(0)
        inertia += distance.sum(0, dtype=torch.float64)
        labels.append(label)
        nearest.append(distance)
    distances = torch.cat(nearest)
    has_empty = (counts.view(s, k) == 0).any(1)
    farthest = [distances[:, i].argsort(descending=True, stable=True)[:k] if has_empty[i] else x.new_empty(0).long()
                for i in range(s)]  # fmt: skip
    return torch.cat(labels), sums.view(s, k, d), counts.view(s, k), inertia, farthest


def _centres(x: Tensor, sums: Tensor, counts: Tensor, farthest: list[Tensor]) -> Float64[Tensor, "S K D"]:
    means = sums / counts.clamp_min(1)[..., None]
    for start, cluster in torch.nonzero(counts == 0).tolist():
        empty = torch.nonzero(counts[start] == 0).flatten()
        place = int((empty == cluster).nonzero())
        means[start, cluster] = x[farthest[start][place]].double()
    return means


def _plus_plus(x: Tensor, k: int, seed: tuple[int, ...], starts: int) -> Float[Tensor, "S K D"]:
    """k-means++ for all starts at once: each next row is drawn in proportion to its squared distance."""
    n = x.shape[0]
    draws = generator(seed[0], "kmeans++", *seed[1:]).random((k, starts))
    chosen = torch.from_numpy((draws[0] * n).astype(np.int64)).to(x.device)
    centres = [x[chosen]]
    nearest = squared_distances(x, centres[0])
    for j in range(1, k):
        total = nearest.double().cumsum(0)
        target = torch.from_numpy(draws[j]).to(x.device) * total[-1]
        chosen = torch.searchsorted(total.T.contiguous(), target[:, None], right=True).flatten().clamp_max(n - 1)
        centres.append(x[chosen])
        nearest = torch.minimum(nearest, squared_distances(x, centres[-1]))
    return torch.stack(centres, dim=1)


def _released_start(x: Tensor, k: int, seed: tuple[int, ...]) -> Float[Tensor, "K D"]:
    rng = generator(seed[0], "kmeans-released", *seed[1:])
    sets = [torch.from_numpy(rng.choice(x.shape[0], k, replace=False)).to(x.device) for _ in range(20)]
    spread = [float(squared_distances(x, x[rows]).sum(dtype=torch.float64)) for rows in sets]
    return x[sets[int(np.argmin(spread))]]
