"""The squared error of a reconstruction, computed in the memory of the reconstruction.

Axes: n rows, F columns.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ops.losses.precomputed_grad import with_gradients


def squared_error_(output: Float[Tensor, "n F"], x: Float[Tensor, "n F"], entries: int) -> Float[Tensor, ""]:
    """`|output - x|^2 / entries`, differentiable in `output`, whose memory takes the difference and then its gradient.

    `output` must be the result of a product or sum that nothing else reads. Plain autograd would keep two more arrays
    of its size.
    """

    def compute(with_gradient: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        difference = output.detach().sub_(x)
        lengths = torch.linalg.vecdot(difference, difference).sum(dtype=torch.float64)
        return (lengths / entries).to(x.dtype), (difference.mul_(2 / entries),) if with_gradient else ()

    return with_gradients(compute, output)
