"""Subspaces of filtered features by randomised SVD, and the rounding of their vectors to clusters.

Each subspace is a matrix W [F, D] with `rows = Z W`, so that rows of another graph can be placed in it.

Axes: N nodes, F features, D width, K clusters, M columns of the feature map.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ops.distributed.process_group import ProcessGroup
from ops.graph.filters import Filtered
from ops.rng import torch_generator

OVERSAMPLING, POWER_ITERATIONS = 10, 5
SMALLEST = 1e-5  # share of the largest singular value; smaller directions are rounding
SNEM_ROUNDS = 100


def orthonormal(y: Float[Tensor, "N D"], group: ProcessGroup) -> Float[Tensor, "N D"]:
    """An orthonormal basis of the columns of y, as rank 0 computes it."""
    return group.broadcast_(torch.linalg.qr(y).Q.contiguous())


def leading_vectors(
    z: Filtered, count: int, seed: tuple[int, ...], first: int = 0
) -> tuple[Float[Tensor, "F D"], Float[Tensor, "D"]]:
    """(W, singular values) of the left singular vectors `first` .. `first + count - 1` of Z, which are `Z W`.

    Randomised SVD (Halko, Martinsson & Tropp 2011), draws keyed by `seed`. At most min(N, F) - first columns.
    """
    n, f = z.features.total, z.transposed.total
    width, group = min(first + count + OVERSAMPLING, n, f), z.features.group
    draws = torch.randn(f, width, generator=torch_generator(seed[0], "spectral", *seed[1:]))
    q = orthonormal(z @ draws.to(z.smoothing.root_degree), group)
    for _ in range(POWER_ITERATIONS):
        q = orthonormal(z @ orthonormal(z.adjoint(q), group), group)
    right, values, _ = (group.broadcast_(each.contiguous()) for each in torch.linalg.svd(z.adjoint(q), False))
    chosen = slice(first, min(first + count, width))
    kept = values[chosen] > SMALLEST * values[0]
    return right[:, chosen] * torch.where(kept, 1 / values[chosen].clamp_min(1e-30), 0.0), values[chosen]


def modularity_vectors(
    z: Filtered, count: int, gamma: float, rounds: int, seed: tuple[int, ...]
) -> Float[Tensor, "F D"]:
    """W of the leading eigenvectors `Z W` of `Z Z^T - gamma d d^T / sum d`, `d = Z Z^T 1`, by subspace iteration.

    The modularity of the graph with weights Z Z^T, whose null model is weighted by gamma (M-S2CAG, KDD 2025). Where
    there are fewer directions than `count`, the columns of the others are 0.
    """
    group, ones = z.features.group, torch.ones_like(z.smoothing.root_degree)
    columns = z.adjoint(ones)
    degree = z @ columns
    width = min(count, z.features.total, z.transposed.total)
    draws = torch.randn(z.features.total, width, generator=torch_generator(seed[0], "modularity", *seed[1:]))
    q = orthonormal(draws.to(ones), group)
    w = columns.new_zeros(len(columns), width)
    for _ in range(rounds):
        w = z.adjoint(q) - gamma * columns @ (degree.T @ q) / degree.sum().clamp_min(1e-30)
        q, r = (group.broadcast_(each.contiguous()) for each in torch.linalg.qr(z @ w))
        w = torch.linalg.solve_triangular(r, w, upper=True, left=False)
    sizes = r.diagonal().abs()
    return torch.where(sizes > SMALLEST * sizes.max(), w, 0.0)


def quadratic_map(u: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
    """Rows phi with `phi(u) . phi(v) = (u . v + c)^2`, c = 2^-1/2: a constant, u, its squares and products."""
    c, d = 2**-0.5, u.shape[1]
    i, j = torch.triu_indices(d, d, 1, device=u.device)
    constant = torch.full_like(u[:, :1], c)
    return torch.cat([constant, (2 * c) ** 0.5 * u, u.square(), 2**0.5 * u[:, i] * u[:, j]], 1)


def snem(v: Float[Tensor, "N K"], group: ProcessGroup) -> tuple[Int64[Tensor, "N"], Float[Tensor, "K K"]]:
    """(clusters, M) of orthonormal vectors v: from the arg max of each row, repeat `argmax v M^T` until nothing moves.

    `M^T = V^T Y C^-1/2`, with the one-hot clusters Y and their sizes C: the rounding of S2CAG (KDD 2025).
    """
    k = v.shape[1]
    signs = torch.where(v.gather(0, v.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)  # the largest entry is positive
    labels = (v * signs).argmax(1)
    m = v.new_zeros(k, k)
    for _ in range(SNEM_ROUNDS):
        sums = v.new_zeros(k, k).index_add_(0, labels, v)
        m = group.broadcast_(sums / torch.bincount(labels, minlength=k).clamp_min(1).sqrt()[:, None])
        moved = (v @ m.T).argmax(1)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels, m
