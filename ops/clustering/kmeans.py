"""The k-means of this program: Lloyd's algorithm over the shards of a table, the same bits for any number of workers.

All starts advance together: one pass over the rows assigns them for every start. Starts are k-means++ draws on all
rows. For a large table they are draws on a sample that every worker sees, and only the best start continues on all
rows.

Axes: N rows of all workers, n rows of one worker, D width, K clusters, S starts, m rows of the sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ops.clustering.lloyd import (
    Assignment,
    Points,
    Table,
    assign_starts,
    confidences,
    prepare,
    rows_at,
    squared_distances,
    step,
)
from ops.clustering.shards import Shard, gather_rows
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.rng import generator

START_ROWS, START_ROWS_A_CENTRE, START_VALUES = 4096, 64, 1 << 25  # of the sample: rows, rows a centre, values
START_ROUNDS = 15
RELEASED_SETS, RELEASED_ROUNDS, RELEASED_TOLERANCE = 20, 500, 1e-4
Init = Literal["k-means++", "released"]


@dataclass(frozen=True)
class Clustering:
    """Clusters: labels and confidence in [0, 1] of a worker's rows [n]; centres [K D], inertia and sizes of all rows.

    `confidence` is 1 - (distance to the nearest centre) / (distance to the next one). `inertia` is the sum of squared
    distances of all workers' rows (of unit length where `spherical`); `sizes` counts all workers' rows.
    """

    labels: Int64[Tensor, "n"]
    confidence: Float[Tensor, "n"]
    centres: Float[Tensor, "K D"]
    inertia: float
    sizes: Int64[Tensor, "K"]
    iterations: int


def kmeans(
    z: Table, n_clusters: int, seed: tuple[int, ...], *, shard: Shard | None = None, group: ProcessGroup | None = None,
    starts: int = 10, start_rows: int | None = None, spherical: bool = False, init: Init = "k-means++",
    first: Float[Tensor, "K D"] | None = None, max_iterations: int = 300, tolerance: float = 1e-4,
) -> Clustering:  # fmt: skip
    """Lloyd's k-means from `starts` k-means++ starts, the one with the lowest inertia (Arthur & Vassilvitskii 2007).

    `z` [n D] are the rows of `shard` that this worker of `group` holds (neither given: all rows, one worker); every
    worker has to call it. `seed` = (seed, position, ...) keys every draw. `start_rows`: tables of more rows (and more
    than 64 K) make their starts on a keyed sample of that size. `spherical` works on rows of unit length and keeps the
    centres so. `first` are centres to go on from instead of starts. A start ends when the squared shifts of its centres
    sum to at most `tolerance` times the mean column variance (scikit-learn's rule). An empty cluster takes the row
    farthest from its centre. `init="released"` is HSAN's released rule: 20 random sets of K rows, the set with the
    smallest sum of squared distances from all rows to all its K rows, then Lloyd once, until (sum of centre shifts)^2 <
    1e-4 or 500 rounds. Raises ValueError unless 1 <= K <= N, DataError for values that are not finite.
    """
    group = group or ProcessGroup()
    shard = Shard.even(len(z), group) if shard is None else shard
    if not 1 <= n_clusters <= shard.total:
        raise ValueError(f"n_clusters={n_clusters} must be between 1 and n_samples={shard.total}")
    points = prepare(z, shard, group, spherical)
    if init == "released":
        centres, max_iterations = _released_start(points, n_clusters, seed), RELEASED_ROUNDS
    elif first is not None:
        centres = (first.to(points.shift) - points.shift)[None]
    else:
        centres = _starts(points, n_clusters, seed, starts, start_rows)

    def at_rest(shifts: Tensor) -> Tensor:
        if init == "released":
            return shifts.sqrt().sum(1).square() < RELEASED_TOLERANCE
        return shifts.sum(1) <= tolerance * points.variance

    best, final, iterations = lloyd(points, centres, max_iterations, at_rest)
    confidence, sizes = confidences(points, final), best.counts.long()
    return Clustering(best.labels, confidence, final + points.shift, float(best.inertia), sizes, iterations)


def kmeans_gathered(
    z: Float[Tensor, "N D"], n_clusters: int, seed: tuple[int, ...], group: ProcessGroup, **options: Any
) -> Clustering:
    """`kmeans` of rows that every worker has; each works on its shard, and gets labels and confidence of all rows."""
    shard = Shard.even(len(z), group)
    ((first, count),) = shard.pieces
    clusters = kmeans(z[first : first + count], n_clusters, seed, shard=shard, group=group, **options)
    labels, confidence = (gather_rows(each, shard, group) for each in (clusters.labels, clusters.confidence))
    return replace(clusters, labels=labels, confidence=confidence)


def lloyd(
    points: Points,
    centres: Float[Tensor, "S K D"],
    max_iterations: int,
    at_rest: Callable[[Float[Tensor, "S K"]], Tensor],
) -> tuple[Assignment, Float[Tensor, "K D"], int]:
    """(assignment, its centres, rounds) of the start with the lowest inertia at its end.

    `at_rest` says from the squared shifts of each start's centres whether the start has ended. Rank 0's answer counts,
    since workers on different hardware must end in the same round.
    """
    best: tuple[Assignment, float, Tensor, int] | None = None
    for iteration in range(1, max_iterations + 1):
        assignments = assign_starts(points, centres)
        empty, inertias = torch.stack([torch.stack([(a.counts == 0).any(), a.inertia]) for a in assignments]).T.tolist()
        moved = torch.stack([step(points, *each) for each in zip(assignments, centres, map(bool, empty), strict=True)])
        ended = at_rest(points.group.broadcast_((moved - centres).double().square().sum(2))).tolist()
        last = iteration == max_iterations
        for s, has_ended in enumerate(ended):
            if (has_ended or last) and (best is None or inertias[s] < best[1]):
                # the labels belong to `centres`, not to `moved`
                best = assignments[s], inertias[s], centres[s], iteration
        if last or all(ended):
            break
        if any(ended):
            centres = torch.stack([each for each, has_ended in zip(moved, ended, strict=True) if not has_ended])
        else:
            centres = moved
    assert best is not None
    return best[0], best[2], best[3]


def sample(points: Points, count: int, seed: tuple[int, ...], purpose: str) -> Float[Tensor, "m D"]:
    """`count` rows (or all, where there are fewer), drawn by the key, in row order; the same on every worker."""
    total = points.shard.total
    if count >= total:
        return points.read(slice(None)) if points.group.world == 1 else rows_at(points, np.arange(total))
    chosen = generator(seed[0], purpose, *seed[1:]).choice(total, count, replace=False, shuffle=False)
    return rows_at(points, np.sort(chosen))


def _starts(
    points: Points, k: int, seed: tuple[int, ...], starts: int, start_rows: int | None
) -> Float[Tensor, "S K D"]:
    """k-means++ starts on all rows, or the best of them after some rounds on a sample."""
    total = points.shard.total
    count = total
    if start_rows is not None:
        count = max(min(start_rows, START_VALUES // points.shift.shape[1]), START_ROWS_A_CENTRE * k)
    drawn = sample(points, count, seed, "kmeans-sample")
    if count < total:
        best = kmeans(drawn, k, seed, starts=starts, spherical=points.spherical, max_iterations=START_ROUNDS)
        return points.group.broadcast_(best.centres)[None]
    return points.group.broadcast_(_plus_plus(drawn, k, seed, starts))


def _plus_plus(x: Float[Tensor, "m D"], k: int, seed: tuple[int, ...], starts: int) -> Float[Tensor, "S K D"]:
    """k-means++ for all starts at once: each next row is drawn in proportion to its squared distance."""
    draws = generator(seed[0], "kmeans++", *seed[1:]).random((k, starts))
    chosen = send((draws[0] * len(x)).astype(np.int64), x.device)
    shares = send(draws, x.device)
    centres = [x[chosen]]
    nearest = squared_distances(x, centres[0])
    for j in range(1, k):
        total = nearest.double().cumsum(0)
        target = shares[j] * total[-1]
        chosen = torch.searchsorted(total.T.contiguous(), target[:, None], right=True).flatten().clamp_max(len(x) - 1)
        centres.append(x[chosen])
        nearest = torch.minimum(nearest, squared_distances(x, centres[-1]))
    return torch.stack(centres, dim=1)


def _released_start(points: Points, k: int, seed: tuple[int, ...]) -> Float[Tensor, "1 K D"]:
    x = sample(points, points.shard.total, seed, "")
    rng = generator(seed[0], "kmeans-released", *seed[1:])
    sets = [send(rng.choice(len(x), k, replace=False), x.device) for _ in range(RELEASED_SETS)]
    spread = torch.stack([squared_distances(x, x[rows]).sum(dtype=torch.float64) for rows in sets])
    return points.group.broadcast_(x[torch.stack(sets)[spread.argmin()]])[None]
