"""Soft assignments by Student's t around centres, and the sharpened target that they are trained towards (DEC, SDCN).

Axes: N rows, n of them on this worker, D width, K clusters.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ops.distributed.process_group import ProcessGroup


def student_t(z: Float[Tensor, "n D"], centres: Float[Tensor, "K D"], freedom: float = 1.0) -> Float[Tensor, "n K"]:
    """`q_ij` in proportion to `(1 + |z_i - mu_j|^2 / v)^(-(v + 1) / 2)`, rows summing to 1; v = `freedom`.

    Differentiable in both (van der Maaten & Hinton 2008; Xie et al. 2016, eq. 1; v is 1 there).
    """
    distance = (z[:, None] - centres).square().sum(2)  # K is small; |z|^2 - 2 z mu + |mu|^2 would lose digits
    return torch.softmax(-(freedom + 1) / 2 * torch.log1p(distance / freedom), dim=1)


def column_sums(q: Float[Tensor, "n K"], group: ProcessGroup | None = None) -> Float[Tensor, "K"]:
    """`f_j = sum_i q_ij` over the rows of all workers, without gradient."""
    sums: Tensor = q.detach().sum(0, dtype=torch.float64)
    return (group or ProcessGroup()).sum_(sums).to(q.dtype)


def target(q: Float[Tensor, "n K"], sums: Float[Tensor, "K"]) -> Float[Tensor, "n K"]:
    """`p_ij = (q_ij^2 / f_j) / sum_j' (q_ij'^2 / f_j')` with `sums` = f, without gradient (Xie et al. 2016, eq. 3)."""
    weight = q.detach().square() / sums
    return weight / weight.sum(1, keepdim=True)


def kl_rows(p: Float[Tensor, "n K"], log_q: Float[Tensor, "n K"], n_rows: int) -> Float[Tensor, ""]:
    """`KL(p || q)` summed over the clusters and this worker's rows, divided by `n_rows` of all; differentiable in q."""
    return (torch.xlogy(p, p) - p * log_q).sum() / n_rows
