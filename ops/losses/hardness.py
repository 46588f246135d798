"""Hardness-aware self-distillation of HaDis (Zhang & Huang, arXiv 2401.14038): the hardest pairs of a batch.

Teacher distances `d_t[i, j] = |k_i - k_j|`, student distances `d[i, j] = |k_i - p_j|`, all rows of unit length.
Negatives of anchor i are the j with `d_t[i, j] > d[i, i]`, positives the others (i among them). The nearest negative n
and the farthest positive m of the student get the weights `w_n = relu(d_t[i, n] - d[i, n])`, `w_m = relu(d[i, m] -
d_t[i, m])` (no gradient; w_n = 0 without negatives) and the loss
`-log(exp(w_n d[i, n] / tau) / (exp(w_n d[i, n] / tau) + exp(w_m d[i, m] / tau)))`.

The pairs are chosen on matrix products without gradient; the four distances of a row are then taken from differences,
exact where 2 - 2 cos cancels, and the backward pass has no B x B array.

Axes: B rows of the global batch, n anchors of this worker, D width.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import relu, softplus


def hardness_loss(
    k: Float[Tensor, "B D"], p: Float[Tensor, "B D"], tau: float, rows: slice = slice(None)
) -> Float[Tensor, ""]:
    """Sum over the anchors `rows`, divided by B.

    Workers that all have the B rows and share the anchors have shares whose sum is the mean of the batch. `k` (no
    gradient) and `p` have rows of unit length.
    """
    k = k.detach()
    anchors = k[rows]
    near, far, has = hardest(k, p.detach(), rows)
    d_near, d_far = vector_norm(anchors - p[near], dim=1), vector_norm(anchors - p[far], dim=1)
    with torch.no_grad():
        w_near = relu(vector_norm(anchors - k[near], dim=1) - d_near) * has
        w_far = relu(d_far - vector_norm(anchors - k[far], dim=1))
    return softplus((w_far * d_far - w_near * d_near) / tau).sum() / len(k)


@torch.no_grad()
def hardest(
    k: Float[Tensor, "B D"], p: Float[Tensor, "B D"], rows: slice = slice(None)
) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"], Bool[Tensor, "n"]]:
    """For each anchor of `rows`: its nearest negative, its farthest positive, and whether it has a negative at all."""
    anchors = k[rows]
    limit = vector_norm(anchors - p[rows], dim=1, keepdim=True)
    teacher = torch.addmm(k.new_full((1, 1), 2.0), anchors, k.T, alpha=-2).clamp_min_(0).sqrt_()
    negative = teacher > limit
    number = torch.arange(len(anchors), device=k.device)
    negative[number, number + (rows.start or 0)] = False  # a row's distance to itself is 0 but for rounding
    student = torch.mm(anchors, p.T).neg_()  # grows with the distance
    near = student.masked_fill(~negative, torch.inf).argmin(1)
    far = student.masked_fill_(negative, -torch.inf).argmax(1)
    return near, far, negative.any(1)
