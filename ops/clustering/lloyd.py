"""Lloyd's step over the shards of a table: nearest centres, and sums whose bits no order of adding can change.

Every sum over rows is exact. For that, rows are rounded to multiples of a power of two that is so small against the
largest value (2^-35 of it at 100,000 rows, 2^-25 at 10^8) that float64 adds all of them without rounding. So neither
the order of the rows nor the blocks, the number of workers or a GPU's atomics can change a bit (design decision 5; the
idea is that of reproducible sums: Demmel & Nguyen, ARITH 2013). Distances are computed in blocks that begin at fixed
global row numbers, since the bits of a matrix product depend on its shape. k-means and the SOM both use this module.

Axes: N rows of all workers, n rows of one worker, D width, K centres, S starts, C clusters, m chosen rows, B rows.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.shards import Shard
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError

CHUNK_ROWS, CHUNK_VALUES = 2048, 1 << 21  # rows and distances at a time: fits the caches, 8 MB of float32 at most
EXACT_BITS = 52
PRODUCT_CLUSTERS, PRODUCT_WIDTH = 16, 256  # up to so many clusters, from this width on, a product adds twice as fast

Table = Float[Tensor, "n D"] | NDArray[Any]  # an array may be a mapped file, which is read block by block


@dataclass(frozen=True)
class Points:
    """A worker's rows as k-means uses them: centred at the mean, or of unit length, on the grid that makes sums exact.

    `read(index)` gives rows [m D]. `shift` [1 D] was subtracted (0 for spherical). `norms` [n] are squared lengths.
    `variance` is the mean variance of a column over all rows. `step` is the grid of squared distances.
    """

    read: Callable[[Any], Float[Tensor, "_ D"]]
    shard: Shard
    group: ProcessGroup
    spherical: bool
    shift: Float[Tensor, "1 D"]
    norms: Float[Tensor, "n"]
    variance: float
    step: float


@dataclass(frozen=True)
class Assignment:
    """Nearest centres: labels and squared distances of this worker's rows; sums, counts and inertia of all workers."""

    labels: Int64[Tensor, "n"]
    nearest: Float[Tensor, "n"]
    sums: Float64[Tensor, "K D"]
    counts: Float64[Tensor, "K"]
    inertia: Float64[Tensor, ""]


def squared_distances(x: Float[Tensor, "N D"], centres: Float[Tensor, "K D"]) -> Float[Tensor, "N K"]:
    """Squared Euclidean distances; small negative values from rounding are set to 0."""
    cross = x @ centres.T
    return cross.mul_(-2).add_(x.square().sum(1, keepdim=True)).add_(centres.square().sum(1)).clamp_min_(0)


def prepare(z: Table, shard: Shard, group: ProcessGroup, spherical: bool = False) -> Points:
    """The worker's rows `z`, of unit length (`spherical`) or minus the mean of all rows; z itself is not changed.

    The mean is subtracted since |x|^2 - 2 x c + |c|^2 cancels far from the origin. A tensor is copied once, an array
    never. Raises ValueError unless z has as many rows as `shard`, DataError if any value is not finite.
    """
    if z.shape[0] != shard.count:
        raise ValueError(f"{z.shape[0]} rows given, but the pieces hold {shard.count}")
    if not 0 < shard.total < 2**40:
        raise ValueError(f"{shard.total} rows in all: need 1 to 2^40")
    like = z.detach()[:0] if isinstance(z, Tensor) else torch.zeros(0, z.shape[1])

    def raw(index: Any) -> Tensor:
        rows = z[index].detach() if isinstance(z, Tensor) else torch.from_numpy(z[index].astype(np.float32))
        return normalize(rows) if spherical else rows

    shift = like.new_zeros(1, like.shape[1])
    blocks = [piece for block in shard.blocks() for piece in chunks(block, like.shape[1])]
    step = grid(_largest((raw(block) for block in blocks), like, group), shard.total)
    if not spherical:
        shift = _mean((_rounded(raw(block), step) for block in blocks), like, shard, group).to(like.dtype)[None]
        step = grid(_largest((raw(block) - shift for block in blocks), like, group), shard.total)

    def on_grid(index: Any) -> Tensor:
        return _rounded(raw(index) - shift, step).to(like.dtype)  # few bits remain: exact in the narrower type

    read: Callable[[Any], Tensor] = on_grid
    if isinstance(z, Tensor):
        table = torch.cat([like, *(on_grid(block) for block in blocks)])

        def read(index: Any) -> Tensor:
            return table[index if isinstance(index, slice) else send(torch.as_tensor(index), table.device)]

    norms = torch.cat([like[:, 0], *(read(block).square().sum(1) for block in blocks)])
    longest = float(group.maximum_(torch.cat([norms.double(), norms.new_zeros(1).double()]).max()))
    square_step = grid(4 * longest, shard.total)  # centres lie among the rows: no distance exceeds twice the longest
    total = float(group.sum_(_rounded(norms, square_step).sum()))
    mean = _mean((read(block) for block in blocks), like, shard, group)
    variance = max(total / shard.total - float(mean.square().sum()), 0.0) / like.shape[1]
    return Points(read, shard, group, spherical, shift, norms, variance, square_step)


def grid(largest: float, total: int) -> float:
    """The step of a grid on which float64 adds `total` values up to `largest` without rounding."""
    return math.ldexp(1.0, max(math.frexp(largest)[1] + total.bit_length() - EXACT_BITS, -1000))


def _rounded(values: Tensor, step: float) -> Float64[Tensor, "*shape"]:
    """`values`, each rounded to the nearest multiple of `step`."""
    return values.to(torch.float64, copy=True).mul_(1 / step).round_().mul_(step)


def _largest(blocks: Iterator[Tensor], like: Tensor, group: ProcessGroup) -> float:
    """The largest absolute value in the blocks of all workers. Raises DataError where a value is not finite."""
    ends = [torch.stack(block.aminmax()).abs().max().double() for block in blocks if block.numel()]
    largest = torch.stack([like.new_zeros(()).double(), *ends]).nan_to_num(nan=math.inf, posinf=math.inf).max()
    if not math.isfinite(float(group.maximum_(largest))):
        raise DataError("embeddings to cluster hold values that are not finite: did the training diverge?")
    return float(largest)


def _mean(blocks: Iterator[Tensor], like: Tensor, shard: Shard, group: ProcessGroup) -> Float64[Tensor, "D"]:
    total = torch.zeros(like.shape[1], dtype=torch.float64, device=like.device)
    for block in blocks:
        total += block.sum(0, dtype=torch.float64)
    return group.sum_(total) / shard.total


def chunks(block: slice, width: int) -> Iterator[slice]:
    """Pieces of a block, so small that arrays of `width` columns fit CHUNK_VALUES; they depend on the width alone."""
    step = max(1, min(CHUNK_ROWS, CHUNK_VALUES // width))
    for first in range(block.start, block.stop, step):
        yield slice(first, min(first + step, block.stop))


def aligned(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """The rows at an aligned address, so that a matrix product gives the same bits wherever a worker stores them."""
    return rows.clone() if rows.data_ptr() % 64 else rows


def assign(points: Points, centres: Float[Tensor, "K D"]) -> Assignment:
    """The nearest centre of every row (ties: the lowest), with sums, counts and inertia over all workers."""
    return assign_starts(points, centres[None])[0]


def assign_starts(points: Points, centres: Float[Tensor, "S K D"]) -> list[Assignment]:
    """`assign` for S sets of centres at once, with one all-reduce of S (K D + K + 1) numbers.

    The nearest centre is argmin |c|^2 / 2 - x c; the squared length of the row is added only for that centre.
    """
    s, k, d = centres.shape
    n, flat = points.shard.count, centres.reshape(s * k, d)
    packed = torch.zeros(s, k * (d + 1) + 1, dtype=torch.float64, device=flat.device)
    sums, counts = packed[:, : k * d].view(s, k, d), packed[:, k * d : -1]
    labels = torch.empty(s, n, dtype=torch.int64, device=flat.device)
    nearest = flat.new_empty(s, n)
    half = flat.square().sum(1) / 2
    for block in points.shard.blocks():
        for piece in chunks(block, max(s * k, d)):
            rows = aligned(points.read(piece))
            least = torch.addmm(half, rows, flat.T, alpha=-1).view(-1, s, k).min(2)
            nearest[:, piece], labels[:, piece] = least.values.T, least.indices.T
            _add_rows(sums, labels[:, piece], rows.double())
    nearest.mul_(2).add_(points.norms).clamp_min_(0)
    for i in range(s):
        counts[i].index_add_(0, labels[i], counts.new_ones(1).expand(n))
        packed[i, -1] = _rounded(nearest[i], points.step).sum()
    points.group.sum_(packed)
    return [Assignment(labels[i], nearest[i], sums[i], counts[i], packed[i, -1]) for i in range(s)]


def _add_rows(sums: Float64[Tensor, "S K D"], labels: Int64[Tensor, "S B"], rows: Float64[Tensor, "B D"]) -> None:
    """Add each row to the sum of its cluster, for S labellings; both ways are exact and give the same bits."""
    s, k, d = sums.shape
    if k <= PRODUCT_CLUSTERS and d >= PRODUCT_WIDTH:
        members = rows.new_zeros(s, k, len(rows)).scatter_(1, labels[:, None], 1)
        sums += (members.view(s * k, -1) @ rows).view(s, k, d)
        return
    for i in range(s):
        sums[i].index_add_(0, labels[i], rows)


def rows_at(points: Points, numbers: NDArray[np.int64]) -> Float[Tensor, "m D"]:
    """The rows with these global `numbers`, whichever worker has them, on every worker."""
    place = points.shard.positions(numbers)
    rows = points.shift.new_zeros(len(numbers), points.shift.shape[1])
    local = send(np.flatnonzero(place >= 0), rows.device)
    rows.index_add_(0, local, points.read(place[place >= 0]))
    return points.group.sum_(rows)


def farthest(points: Points, nearest: Float[Tensor, "n"], count: int) -> Float[Tensor, "m D"]:
    """The `count` = m rows of all workers that are farthest from their centres, farthest first, ties by row number."""
    best = torch.zeros(points.group.world, 2, count, dtype=torch.float64, device=nearest.device)
    local = nearest.argsort(descending=True, stable=True)[:count]
    distances, numbers = best[points.group.rank]
    distances.fill_(-1.0)
    distances[: len(local)] = nearest[local].double()
    numbers[: len(local)] = torch.from_numpy(points.shard.numbers()).to(local.device)[local].double()
    distance, number = points.group.sum_(best).transpose(0, 1).flatten(1).cpu().numpy()
    order = np.lexsort((number, -distance))[:count]
    return rows_at(points, number[order].astype(np.int64))


def step(
    points: Points, assignment: Assignment, centres: Float[Tensor, "K D"], has_empty: bool | None = None
) -> Float[Tensor, "K D"]:
    """Lloyd's step: the mean of each centre's rows (scaled to unit length for spherical points), as rank 0 computes it.

    A centre without rows takes the row that is farthest from its centre (a second such centre the next one). Where no
    row is away from its centre (fewer distinct rows than centres) it stays. `has_empty` says whether there is such a
    centre, where the caller knows it; otherwise the host waits for the answer.
    """
    moved = (assignment.sums / assignment.counts.clamp_min(1)[:, None]).to(centres.dtype)
    if has_empty is None or has_empty:
        empty = torch.nonzero(assignment.counts == 0).flatten()
        if len(empty):
            stay = float(assignment.inertia) == 0
            moved[empty] = centres[empty] if stay else farthest(points, assignment.nearest, len(empty))
    return points.group.broadcast_(normalize(moved) if points.spherical else moved)


def nearest_two(
    z: Float[Tensor, "B D"], centres: Float[Tensor, "K D"], clusters: Int64[Tensor, "K"] | None = None
) -> tuple[Int64[Tensor, "B"], Float[Tensor, "B"]]:
    """The cluster of each row, and a confidence in [0, 1] (the simplified silhouette; Hruschka et al. 2006).

    The confidence is 1 - a / b, with the distance a to the nearest centre and b to the nearest one of another cluster.
    It is 1 where there is only one cluster, 0 on a border. `clusters` [K] puts several centres into one cluster (the
    units of a SOM); otherwise each centre is a cluster.
    """
    labels, confidence = [], []
    for piece in chunks(slice(0, len(z)), len(centres)):
        distance = squared_distances(aligned(z[piece]), centres)
        if clusters is not None:
            by_cluster = torch.full_like(distance, math.inf)  # one column a centre: as many as clusters at least
            distance = by_cluster.scatter_reduce_(1, clusters.expand(len(distance), -1), distance, "amin")
        label = distance.argmin(1)
        a = distance.gather(1, label[:, None]).sqrt()[:, 0]
        b = distance.scatter(1, label[:, None], math.inf).min(1).values.sqrt()
        labels.append(label)
        confidence.append(torch.where(b > 0, 1 - a / b, 0.0).clamp_(0, 1))
    return (torch.cat(labels), torch.cat(confidence)) if labels else (z.new_zeros(0).long(), z.new_zeros(0))


def confidences(
    points: Points, centres: Float[Tensor, "K D"], clusters: Int64[Tensor, "K"] | None = None
) -> Float[Tensor, "n"]:
    """The confidence of `nearest_two` for this worker's rows, in blocks that do not depend on the workers."""
    pieces = [nearest_two(points.read(block), centres, clusters)[1] for block in points.shard.blocks()]
    return torch.cat([points.norms[:0], *pieces])
