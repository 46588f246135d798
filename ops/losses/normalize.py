"""Rows of unit length, with a backward pass that keeps only the output.

`torch.nn.functional.normalize` keeps its input too, which at M x D = 5,416 x 1,500 is 32 MB a call. Axes: M rows (of
any number of axes), D width.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

_EPS = 1e-12


def unit_rows(x: Float[Tensor, "*M D"], *, in_place: bool = False) -> Float[Tensor, "*M D"]:
    """`x_i / max(|x_i|, 1e-12)`, differentiable: dx = (g - y <y, g>) / |x|. A row of zeros stays so.

    `in_place` overwrites `x`, which must be a sum or product that nothing else reads (torch raises where a backward
    pass would).
    """
    y: Tensor = _UnitRows.apply(x, in_place)
    return y


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool) -> Tensor:
        length = x.norm(dim=-1, keepdim=True).clamp_min_(_EPS)
        if in_place:
            ctx.mark_dirty(x)
        y = x.div_(length) if in_place else x / length
        ctx.save_for_backward(y, length)
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        y, length = ctx.saved_tensors
        g = grad_outputs[0]
        along = torch.linalg.vecdot(y, g, dim=-1)[..., None]
        return torch.addcmul(g, y, along, value=-1).div_(length), None
