"""Losses that compute their gradients together with their value, so that no tile has to be kept after the call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Compute = Callable[[bool], tuple[Tensor, tuple[Tensor, ...]]]


def with_gradients(compute: Compute, *inputs: Tensor) -> Tensor:
    """The scalar that `compute(with_gradient)` returns, differentiable in `inputs`.

    `compute` returns (value, gradients of `inputs`); the gradients only where they are requested. The backward pass
    returns them, scaled by the gradient of the value; a second backward pass raises RuntimeError.
    """
    value: Tensor = _Precomputed.apply(compute, *inputs)
    return value


class _Precomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Compute, *inputs: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad[1:])
        value, gradients = compute(wanted)
        ctx.gradients = gradients if wanted else None
        return value

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the loss was differentiated already; its gradients are not kept for a second time")
        gradients, ctx.gradients = ctx.gradients, None
        return None, *(g.mul_(grad_outputs[0]) for g in gradients)
