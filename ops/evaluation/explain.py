"""Which features set each cluster apart, on the original features and without labels.

One measure for all columns: d = (mean inside - mean outside) / standard deviation over all rows. It is finite wherever
a column varies at all, and within a cluster it ranks as the correlation of the column with belonging to the cluster
does (point-biserial; phi for 0/1 columns): r = d sqrt(p (1 - p)), p the cluster's share of the rows. Constant columns
are left out. For 0/1 columns the mean is the share of ones; the log-odds ratio stands beside it.

Axes: N rows, F features, K clusters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ops.data.types.scaling import Scaling

TOP = 8
BLOCK_ROWS = 4096
FAR, FARTHEST = 2.0, 5  # times a cluster's median distance from its mean; rows of a cluster
WEAK = 0.2  # a difference of less than a fifth of a standard deviation sets nothing apart (Cohen's "small")


@dataclass(frozen=True)
class FeatureDifference:
    """A feature's means in a cluster and in all other rows; `difference` in standard deviations over all rows.

    `log_odds`: natural log of the odds ratio with half a row added to each count, None unless `binary`.
    """

    feature: str
    binary: bool
    inside: float
    outside: float
    difference: float
    log_odds: float | None = None


@dataclass(frozen=True)
class FarRow:
    """A row, and how many times as far from its cluster's mean it lies as the median row."""

    row: int
    times: float


@dataclass(frozen=True)
class ExplainedCluster:
    """What sets one cluster apart, and its rows that are like no cluster."""

    cluster: int
    rows: int
    features: list[FeatureDifference]
    far: list[FarRow] = field(default_factory=list)


AsGiven = Callable[[NDArray[np.float32]], NDArray[np.floating]]  # features as they were given


def explain(
    x: NDArray[np.float32],
    assignment: NDArray[np.int64],
    n_clusters: int,
    names: Sequence[str] | None = None,
    top: int = TOP,
    scaling: Scaling | None = None,
) -> list[ExplainedCluster]:
    """What sets each cluster apart: at most `top` features (by name, or `column 7`), the largest |difference| first.

    Features under |d| = 0.2 are left out; an empty cluster, or one that holds all rows, has none. Means are of the
    features as they were before `scaling`.
    """
    n, f = x.shape
    as_given = scaling.undo if scaling else np.asarray
    sums, squares, binary = _moments(x, assignment, n_clusters, as_given)
    first = as_given(x[:1])[0]
    total, sizes = sums.sum(axis=0), np.bincount(assignment, minlength=n_clusters)
    deviation = np.sqrt(np.maximum(squares / n, 0))
    centres = sums / np.maximum(sizes, 1)[:, None]
    clusters, far = [], far_rows(x, assignment, centres, as_given, scaling.width if scaling else deviation)
    for k, size in enumerate(sizes.tolist()):
        features = []
        if 0 < size < n:
            inside, outside = sums[k] / size, (total - sums[k]) / (n - size)
            difference = np.divide(inside - outside, deviation, out=np.zeros(f), where=deviation > 0)
            for j in np.argsort(-np.abs(difference), kind="stable")[:top].tolist():
                if abs(difference[j]) >= WEAK:
                    a, b = float(inside[j] + first[j]), float(outside[j] + first[j])
                    odds = _log_odds(a, size, b, n - size) if binary[j] else None
                    name = names[j] if names else f"column {j}"
                    features.append(FeatureDifference(name, bool(binary[j]), a, b, float(difference[j]), odds))
        clusters.append(ExplainedCluster(k, size, features, far[k]))
    return clusters


def far_rows(
    x: NDArray[np.float32], assignment: NDArray[np.int64], centres: NDArray[np.float64],
    as_given: AsGiven, width: NDArray[np.float64],
) -> list[list[FarRow]]:  # fmt: skip
    """Per cluster at most five rows that lie twice as far from its mean as its median row, or more.

    Such rows may be confident ones: they are like no cluster, not between two. Columns are in units of their `width`;
    `centres` [K, F] are relative to the first row.
    """
    scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)
    shift, distance = as_given(x[:1])[0].astype(np.float64), np.empty(len(x))
    for first in range(0, len(x), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        moved = as_given(x[block]) - shift - centres[assignment[block]]
        distance[block] = np.linalg.norm(moved * scale, axis=1)
    far = []
    for k in range(len(centres)):
        rows = np.flatnonzero(assignment == k)
        middle = np.median(distance[rows]) if len(rows) else 0.0
        times = distance[rows] / middle if middle > 0 else np.zeros(len(rows))
        order = [i for i in np.argsort(-times, kind="stable")[:FARTHEST] if times[i] >= FAR]
        far.append([FarRow(int(rows[i]), float(times[i])) for i in order])
    return far


def _moments(
    x: NDArray[np.float32], assignment: NDArray[np.int64], k: int, as_given: AsGiven
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Sums a cluster [K, F] of x minus its first row (exact zeros for constant columns), sums of squares around the
    mean [F], and which columns hold only 0 and 1; by blocks of rows, in float64.
    """
    n, f = x.shape
    sums, squares, binary = np.zeros((k, f)), np.zeros(f), np.ones(f, dtype=np.bool_)
    shift = as_given(x[:1])[0].astype(np.float64)
    for first in range(0, n, BLOCK_ROWS):
        part = as_given(x[first : first + BLOCK_ROWS])
        binary &= ((part == 0) | (part == 1)).all(axis=0)
        moved = part.astype(np.float64) - shift
        one_hot = (assignment[first : first + BLOCK_ROWS, None] == np.arange(k)).astype(np.float64)
        sums += one_hot.T @ moved
    mean = sums.sum(axis=0) / n
    for first in range(0, n, BLOCK_ROWS):
        squares += np.square(as_given(x[first : first + BLOCK_ROWS]).astype(np.float64) - shift - mean).sum(axis=0)
    return sums, squares, binary


def _log_odds(inside: float, size: int, outside: float, rest: int) -> float:
    a, b = inside * size + 0.5, (1 - inside) * size + 0.5
    c, d = outside * rest + 0.5, (1 - outside) * rest + 0.5
    return math.log(a * d / (b * c))
