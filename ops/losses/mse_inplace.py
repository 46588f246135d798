"""The squared error of a reconstruction in the memory of the reconstruction itself.

Axes: n rows, F columns.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ops.losses.precomputed_grad import handed


def squared_error_(made: Float[Tensor, "n F"], x: Float[Tensor, "n F"], entries: int) -> Float[Tensor, ""]:
    """`|made - x|^2 / entries`, differentiable in `made`, which is overwritten: by the difference, then its gradient.

    For what a product or sum has just made and nothing else reads; plain autograd holds two more arrays of its size.
    """

    def compute(with_gradient: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        difference = made.detach().sub_(x)
        lengths = torch.linalg.vecdot(difference, difference).sum(dtype=torch.float64)
        return (lengths / entries).to(x.dtype), (difference.mul_(2 / entries),) if with_gradient else ()

    return handed(compute, made)
