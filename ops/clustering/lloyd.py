"""Rows of several workers against one set of centres: the assignment and the sums that k-means and the SOM share.

Every sum over rows is exact: rows are rounded to multiples of one power of two, so small against the largest value
(2^-35 of it at 100,000 rows, 2^-25 at 10^8) that float64 adds all of them without rounding. Neither the order of
the rows nor the blocks, the number of workers or a GPU's atomics can change a bit, and a pass costs one all-reduce
of (K D + K + 1) numbers (design decision 5; the idea is that of reproducible sums: Demmel & Nguyen, ARITH 2013).
Distances are taken in blocks that begin at fixed global row numbers, since a matrix product's bits depend on shape.

Axes: N rows of all workers, n rows of one worker, D width, K centres, C clusters, m chosen rows, B rows of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.kmeans import squared_distances
from ops.distributed.process_group import Team
from ops.errors import DataError

BLOCK_ROWS = 4096
CHUNK_ROWS, CHUNK_VALUES = 2048, 1 << 21  # rows and distances at once: what the caches hold, 8 MB of float32 at most
EXACT_BITS = 52


@dataclass(frozen=True)
class Rows:
    """Which of all `total` rows a worker holds: (first global number, count) of each piece, ascending, as z holds them.

    Bits agree between numbers of workers if the pieces begin at multiples of BLOCK_ROWS (`share`) or are the same
    parts everywhere (`of_parts`).
    """

    total: int
    pieces: tuple[tuple[int, int], ...]

    @classmethod
    def share(cls, total: int, team: Team) -> Rows:
        """Whole blocks of BLOCK_ROWS rows for each worker of `team`, evenly, in rank order."""
        blocks = -(-total // BLOCK_ROWS)
        each = -(-blocks // team.world) * BLOCK_ROWS
        first = min(team.rank * each, total)
        return cls(total, ((first, min(each, total - first)),))

    @classmethod
    def of_parts(cls, offsets: Sequence[int], parts: Sequence[int]) -> Rows:
        """The rows of whole `parts` (ascending numbers); part p owns the rows offsets[p] .. offsets[p + 1] - 1."""
        return cls(int(offsets[-1]), tuple((int(offsets[p]), int(offsets[p + 1] - offsets[p])) for p in parts))

    @property
    def own(self) -> int:
        """How many rows this worker holds."""
        return sum(count for _, count in self.pieces)

    def blocks(self) -> Iterator[slice]:
        """Slices of the worker's rows, cut at each piece and at the global multiples of BLOCK_ROWS."""
        at = 0
        for first, count in self.pieces:
            row = first
            while row < first + count:
                end = min((row // BLOCK_ROWS + 1) * BLOCK_ROWS, first + count)
                yield slice(at + row - first, at + end - first)
                row = end
            at += count

    def local(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the worker's z holds the rows of these global `numbers`, -1 for rows of other workers: int64 [m]."""
        found, at = np.full(len(numbers), -1, dtype=np.int64), 0
        for first, count in self.pieces:
            inside = (numbers >= first) & (numbers < first + count)
            found[inside] = numbers[inside] - first + at
            at += count
        return found

    def numbers(self) -> NDArray[np.int64]:
        """The global number of each own row: int64 [n]."""
        return np.concatenate([np.arange(f, f + c) for f, c in self.pieces] or [np.zeros(0, np.int64)])


@dataclass(frozen=True)
class Points:
    """A worker's rows ready to be summed: centred or of unit length, and on the grid that makes sums exact.

    `shift` [1 D] was subtracted (0 for spherical), `norms` [n] are squared lengths, `variance` is the mean variance of
    a column over all rows, `step` the grid of squared distances.
    """

    z: Float[Tensor, "n D"]
    rows: Rows
    team: Team
    shift: Float[Tensor, "1 D"]
    norms: Float[Tensor, "n"]
    variance: float
    step: float


@dataclass(frozen=True)
class Pass:
    """One assignment: own labels and squared distances [n]; sums, counts [K] and inertia over all workers' rows."""

    labels: Int64[Tensor, "n"]
    nearest: Float[Tensor, "n"]
    sums: Float64[Tensor, "K D"]
    counts: Float64[Tensor, "K"]
    inertia: float


def prepare(z: Float[Tensor, "n D"], rows: Rows, team: Team, spherical: bool = False) -> Points:
    """Own rows `z` of unit length (`spherical`) or around the mean of all rows, on the grid; z itself is left alone.

    Raises ValueError if z has not the rows that `rows` says, DataError if any worker's value is not finite.
    """
    if z.shape[0] != rows.own:
        raise ValueError(f"{z.shape[0]} rows given, but the pieces hold {rows.own}")
    if not 0 < rows.total < 2**40:
        raise ValueError(f"{rows.total} rows in all: need 1 to 2^40")
    z = normalize(z.detach()) if spherical else z.detach().clone()  # the one copy: all else is in place
    shift = z.new_zeros(1, z.shape[1])
    _on_grid_(z, rows, team)
    if not spherical:
        shift = (_exact_sum(z, rows, team) / rows.total).to(z.dtype)[None]
        _on_grid_(z.sub_(shift), rows, team)
    norms = torch.cat([z[block].square().sum(1) for block in rows.blocks()] or [z.new_zeros(0)])
    longest = float(team.maximum_(torch.cat([norms.double(), norms.new_zeros(1).double()]).max()))
    step = _step(4 * longest, rows.total)  # a centre lies among the rows: no distance is above twice the longest
    total = float(team.sum_(_rounded(norms, step).sum()))
    mean = _exact_sum(z, rows, team) / rows.total
    variance = max(total / rows.total - float(mean.square().sum()), 0.0) / z.shape[1]
    return Points(z, rows, team, shift, norms, variance, step)


def _step(largest: float, total: int) -> float:
    """The grid on which float64 adds `total` values up to `largest` without rounding."""
    return math.ldexp(1.0, max(math.frexp(largest)[1] + total.bit_length() - EXACT_BITS, -1000))


def _rounded(values: Tensor, step: float) -> Tensor:
    """`values` in float64, to the nearest multiple of `step`."""
    return values.to(torch.float64, copy=True).mul_(1 / step).round_().mul_(step)


def _on_grid_(z: Tensor, rows: Rows, team: Team) -> None:
    """Round z in place to the grid on which sums of all workers' rows are exact."""
    ends = torch.stack(z.aminmax()).abs() if z.numel() else z.new_zeros(1)
    largest = team.maximum_(ends.double().nan_to_num(nan=math.inf, posinf=math.inf).max())
    if not math.isfinite(float(largest)):
        raise DataError("embeddings to cluster hold values that are not finite: did the training diverge?")
    step = _step(float(largest), rows.total)
    for block in rows.blocks():
        z[block] = _rounded(z[block], step).to(z.dtype)  # fewer bits than before: exact in the narrower type


def _exact_sum(z: Tensor, rows: Rows, team: Team) -> Float64[Tensor, "D"]:
    total = torch.zeros(z.shape[1], dtype=torch.float64, device=z.device)
    for block in rows.blocks():
        total += z[block].sum(0, dtype=torch.float64)
    return team.sum_(total)


def chunks(block: slice, n_centres: int) -> Iterator[slice]:
    """Pieces of a block whose distances to all centres fit CHUNK_VALUES; they depend on K alone."""
    step = max(1, min(CHUNK_ROWS, CHUNK_VALUES // n_centres))
    for first in range(block.start, block.stop, step):
        yield slice(first, min(first + step, block.stop))


def aligned(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """The rows at an address that a matrix product treats as any other, wherever the worker holds them."""
    return rows.clone() if rows.data_ptr() % 64 else rows


def assign(points: Points, centres: Float[Tensor, "K D"]) -> Pass:
    """Nearest centre (ties: the lowest) of every own row, and sums, counts and inertia over all workers.

    argmin |c|^2 / 2 - x c: the row's own length is added for the winner only.
    """
    k, d = centres.shape
    z = points.z
    packed = torch.zeros(k * (d + 1) + 1, dtype=torch.float64, device=z.device)  # one buffer, one all-reduce
    sums, counts = packed[: k * d].view(k, d), packed[k * d : -1]
    labels = torch.empty(len(z), dtype=torch.int64, device=z.device)
    nearest = z.new_empty(len(z))
    half = centres.square().sum(1) / 2
    for block in points.rows.blocks():
        for piece in chunks(block, k):
            distance = torch.addmm(half, aligned(z[piece]), centres.T, alpha=-1)
            torch.min(distance, 1, out=(nearest[piece], labels[piece]))
            sums.index_add_(0, labels[piece], z[piece].double())
    counts += torch.bincount(labels, minlength=k)
    nearest = nearest.mul_(2).add_(points.norms).clamp_min_(0)
    packed[-1] = _rounded(nearest, points.step).sum()
    points.team.sum_(packed)
    return Pass(labels, nearest, sums, counts, float(packed[-1]))


def take(points: Points, numbers: NDArray[np.int64]) -> Float[Tensor, "m D"]:
    """The rows of these global `numbers` from whichever workers hold them, on every worker."""
    place = points.rows.local(numbers)
    mine = torch.from_numpy(np.flatnonzero(place >= 0)).to(points.z.device)
    found = points.z.new_zeros(len(numbers), points.z.shape[1])
    found.index_add_(0, mine, points.z[torch.from_numpy(place[place >= 0]).to(points.z.device)])
    return points.team.sum_(found)


def farthest(points: Points, nearest: Float[Tensor, "n"], count: int) -> Float[Tensor, "m D"]:
    """The m = `count` rows of all workers farthest from their centres, farthest first, ties by row number."""
    best = torch.full((points.team.world, 2, count), 0.0, dtype=torch.float64, device=nearest.device)
    own = nearest.argsort(descending=True, stable=True)[:count]
    mine = best[points.team.rank]
    mine[0] = -1.0
    mine[0, : len(own)] = nearest[own].double()
    mine[1, : len(own)] = torch.from_numpy(points.rows.numbers()).to(own.device)[own].double()
    distance, number = points.team.sum_(best).transpose(0, 1).flatten(1).cpu().numpy()
    order = np.lexsort((number, -distance))[:count]
    return take(points, number[order].astype(np.int64))


def means(points: Points, found: Pass, centres: Float[Tensor, "K D"]) -> Float[Tensor, "K D"]:
    """The mean of each centre's rows; an empty one takes the row farthest from its centre (then the next farthest).

    Where no row is away from its centre (fewer distinct rows than centres) an empty one stays.
    """
    moved = (found.sums / found.counts.clamp_min(1)[:, None]).to(centres.dtype)
    empty = torch.nonzero(found.counts == 0).flatten()
    if len(empty):
        moved[empty] = centres[empty] if found.inertia == 0 else farthest(points, found.nearest, len(empty))
    return moved


def nearest_two(
    z: Float[Tensor, "B D"], centres: Float[Tensor, "K D"], clusters: Int64[Tensor, "K"] | None = None
) -> tuple[Int64[Tensor, "B"], Float[Tensor, "B"]]:
    """The cluster of each row and a confidence in [0, 1]: 1 - a / b, a the distance to the nearest centre and b to the
    nearest one of another cluster (the simplified silhouette; Hruschka et al. 2006). 1 where there is one cluster only,
    0 on a border. `clusters` [K] puts several centres into one cluster (the units of a SOM); else each is its own.
    """
    labels, sure = [], []
    for piece in chunks(slice(0, len(z)), len(centres)):
        distance = squared_distances(aligned(z[piece]), centres)
        if clusters is not None:
            by = z.new_full((len(distance), int(clusters.max()) + 1), math.inf)
            distance = by.scatter_reduce_(1, clusters.expand(len(distance), -1), distance, "amin")
        label = distance.argmin(1)
        a = distance.gather(1, label[:, None]).sqrt()[:, 0]
        b = distance.scatter(1, label[:, None], math.inf).min(1).values.sqrt()
        labels.append(label)
        sure.append(torch.where(b > 0, 1 - a / b, 0.0).clamp_(0, 1))
    return (torch.cat(labels), torch.cat(sure)) if labels else (z.new_zeros(0).long(), z.new_zeros(0))


def confidences(
    points: Points, centres: Float[Tensor, "K D"], clusters: Int64[Tensor, "K"] | None = None
) -> Float[Tensor, "n"]:
    """The confidence of `nearest_two` for a worker's own rows, by the blocks that do not depend on the workers."""
    sure = [nearest_two(points.z[block], centres, clusters)[1] for block in points.rows.blocks()]
    return torch.cat(sure) if sure else points.z.new_zeros(0)


def everyone(own: Tensor, rows: Rows, team: Team) -> Tensor:
    """All rows on every worker: [N ...] of each worker's own [n ...]."""
    full = own.new_zeros((rows.total, *own.shape[1:]))
    full[torch.from_numpy(rows.numbers())] = own
    return team.sum_(full)
