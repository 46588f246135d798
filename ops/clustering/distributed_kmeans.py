"""k-means of rows that several workers hold; the same bits for any number of workers.

Starts are made on a sample that every worker sees, by `ops.clustering.kmeans` (k-means++, several at once, a few rounds
of Lloyd, the best one); Lloyd on all rows goes on from there, one assignment and one all-reduce a round.

Axes: N rows of all workers, n rows of one worker, D width, K clusters, m rows of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.kmeans import kmeans
from ops.clustering.lloyd import Pass, Points, Rows, assign, confidences, means, prepare, take
from ops.distributed.process_group import Team
from ops.rng import generator

SAMPLE_ROWS, ROWS_A_CENTRE = 4096, 64  # the sample's size: the larger of the first and the second times K
START_ROUNDS = 15


@dataclass(frozen=True)
class Clustering:
    """Clusters of a worker's own rows: labels and confidence in [0, 1] [n]; centres [K D] and the rest of all rows.

    `confidence` is 1 - (distance to the own centre) / (distance to the next one). `inertia` is the sum of squared
    distances of all workers' rows (of unit length where `spherical`); `sizes` counts all workers' rows.
    """

    labels: Int64[Tensor, "n"]
    confidence: Float[Tensor, "n"]
    centres: Float[Tensor, "K D"]
    inertia: float
    sizes: Int64[Tensor, "K"]
    iterations: int


def sample(points: Points, count: int, seed: tuple[int, ...], purpose: str) -> Float[Tensor, "m D"]:
    """`count` of all rows (or all), drawn by the key, in row order; the same on every worker."""
    total = points.rows.total
    if count >= total:
        return take(points, np.arange(total))
    chosen = generator(seed[0], purpose, *seed[1:]).choice(total, count, replace=False, shuffle=False)
    return take(points, np.sort(chosen))


def team_kmeans(
    z: Float[Tensor, "n D"],
    rows: Rows,
    n_clusters: int,
    seed: tuple[int, ...],
    *,
    team: Team | None = None,
    starts: int = 10,
    spherical: bool = False,
    max_iterations: int = 100,
    tolerance: float = 1e-4,
    first: Float[Tensor, "K D"] | None = None,
) -> Clustering:
    """k-means of all workers' rows, of which this one holds `z` (`rows` says which; `team` None: it holds all).

    `seed` = (seed, position, ...) keys every draw. `spherical` works on rows of unit length and keeps the centres so.
    `first` are centres to go on from instead of starts. Ends when the squared shifts of the centres sum to at most
    `tolerance` times the mean column variance (scikit-learn's rule). An empty cluster takes the row farthest from its
    centre. Every worker has to call it. Raises ValueError unless 1 <= K <= N, DataError for values not finite.
    """
    team = team or Team()
    if not 1 <= n_clusters <= rows.total:
        raise ValueError(f"n_clusters={n_clusters} must be between 1 and n_samples={rows.total}")
    points = prepare(z, rows, team, spherical)
    centres = _start(points, n_clusters, seed, starts, spherical) if first is None else first.to(z) - points.shift
    for iteration in range(1, max_iterations + 1):
        found = assign(points, centres)
        moved = step(points, found, centres, spherical)
        if iteration == max_iterations or _shift(moved, centres, team) <= tolerance * points.variance:
            break  # the labels belong to `centres`, not to `moved`
        centres = moved
    sure, sizes = confidences(points, centres), found.counts.long()
    return Clustering(found.labels, sure, centres + points.shift, found.inertia, sizes, iteration)


def step(points: Points, found: Pass, centres: Float[Tensor, "K D"], spherical: bool = False) -> Float[Tensor, "K D"]:
    """Lloyd's step: the means of a pass (of unit length for `spherical`), as rank 0 has them."""
    moved = means(points, found, centres)
    return points.team.from_first_(normalize(moved) if spherical else moved)


def _shift(moved: Tensor, centres: Tensor, team: Team) -> float:
    # rank 0 decides: workers on unlike hardware must end in the same round
    return float(team.from_first_((moved - centres).double().square().sum()))


def _start(points: Points, k: int, seed: tuple[int, ...], starts: int, spherical: bool) -> Float[Tensor, "K D"]:
    drawn = sample(points, max(SAMPLE_ROWS, ROWS_A_CENTRE * k), seed, "kmeans-sample")
    best = kmeans(drawn, k, seed, starts=starts, spherical=spherical, max_iterations=START_ROUNDS)
    return points.team.from_first_(best.centres)
