"""A Gaussian mixture with diagonal covariances over workers, from a k-means clustering (EM; Dempster et al. 1977).

Densities and sums are in float64. The sums of all workers are rounded to float32, after which the order of adding
cannot be seen any more.

Axes: N rows of all workers, n of this one, B of a block, D width, K parts.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import one_hot

from ops.clustering.kmeans import Clustering
from ops.clustering.shards import Shard
from ops.distributed.process_group import ProcessGroup

FLOOR = 1e-6  # added to variances, as scikit-learn does


@dataclass(frozen=True)
class Mixture:
    """Means and variances of every part, and the share of the rows that each part has."""

    means: Float[Tensor, "K D"]
    variances: Float[Tensor, "K D"]
    weights: Float[Tensor, "K"]


def log_densities(z: Float[Tensor, "B D"], mixture: Mixture) -> Float64[Tensor, "B K"]:
    """log(weight x density) of each row in each part."""
    x, m, v = z.double(), mixture.means.double(), mixture.variances.double()
    squares = x.square() @ (1 / v).T - 2 * x @ (m / v).T + (m.square() / v).sum(1)
    constant = v.log().sum(1) + z.shape[1] * math.log(2 * math.pi)
    return mixture.weights.double().clamp_min(1e-300).log() - (squares + constant) / 2


def responsibilities(z: Float[Tensor, "n D"], mixture: Mixture) -> Float64[Tensor, "n K"]:
    """The probability of every part for each row; rows sum to 1."""
    shares = [log_densities(piece, mixture).softmax(1) for piece in torch.split(z, 4096)]
    return torch.cat([z.new_zeros(0, len(mixture.means)).double(), *shares])


def fit_gmm(
    z: Float[Tensor, "n D"], shard: Shard, start: Clustering, group: ProcessGroup | None = None, *, rounds: int = 100,
    tolerance: float = 1e-3,
) -> Mixture:  # fmt: skip
    """EM on all workers' rows from the clusters of `start`, until the mean log likelihood grows by < `tolerance`.

    A part that loses its rows keeps its place. Every worker has to call it.
    """
    group, k = group or ProcessGroup(), len(start.sizes)
    mixture = _maximise(z, shard, one_hot(start.labels, k).double(), group, None)
    before = -math.inf
    for _ in range(rounds):
        logs = [log_densities(z[block], mixture) for block in shard.blocks()]
        likelihood = torch.stack([*(each.logsumexp(1).sum() for each in logs), z.new_zeros(()).double()]).sum()
        now = float(group.broadcast_(group.sum_(likelihood))) / shard.total
        if now - before < tolerance:
            break
        before = now
        shares = torch.cat([z.new_zeros(0, k).double(), *(each.softmax(1) for each in logs)])
        mixture = _maximise(z, shard, shares, group, mixture)
    return mixture


def _maximise(
    z: Float[Tensor, "n D"], shard: Shard, shares: Float64[Tensor, "n K"], group: ProcessGroup, last: Mixture | None
) -> Mixture:
    """The mixture of highest likelihood for the given shares of the rows."""
    k, d = shares.shape[1], z.shape[1]
    sums = torch.zeros(k, 2 * d + 1, dtype=torch.float64, device=z.device)
    for block in shard.blocks():
        x = z[block].double()
        sums += shares[block].T @ torch.cat([x, x.square(), x.new_ones(len(x), 1)], 1)
    group.sum_(sums)
    counts = sums[:, -1:].clamp_min(1e-10)
    means = sums[:, :d] / counts
    variances = (sums[:, d:-1] / counts - means.square()).clamp_min(0) + FLOOR
    if last is not None:
        gone = sums[:, -1:] < 1e-6
        means = torch.where(gone, last.means.double(), means)
        variances = torch.where(gone, last.variances.double(), variances)
    return Mixture(means.float(), variances.float(), (sums[:, -1] / shard.total).float())
