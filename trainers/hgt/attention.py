"""Scores and weighted sums over the edges of a block: compiled loops on CPUs, torch's gathers elsewhere.

For targets q and sources k, v, per head: `scores[b, j] = q_b . k_n(b,j)` and `sums[b] = sum_j share[b, j] v_n(b,j)`.
Masked edges score 0 and add nothing. Each function is the derivative of the other: d sums / d share is a score.

Axes: B targets, F neighbours a target, N sources, A heads of width d.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Gradients = tuple[Tensor | None, Tensor | None, None, None]


def edge_scores(
    query: Float[Tensor, "B A d"], key: Float[Tensor, "N A d"], neighbours: Int64[Tensor, "B F"],
    mask: Bool[Tensor, "B F"],
) -> Float[Tensor, "B F A"]:  # fmt: skip
    """The products of each target with its neighbours, 0 where the mask is False; differentiable in both."""
    if query.device.type != "cpu":
        return _scores_torch(query, key, neighbours, mask)
    scores: Tensor = _Scores.apply(query, key, neighbours, mask)
    return scores


def edge_sums(
    share: Float[Tensor, "B F A"], value: Float[Tensor, "N A d"], neighbours: Int64[Tensor, "B F"],
    mask: Bool[Tensor, "B F"],
) -> Float[Tensor, "B A d"]:  # fmt: skip
    """The sums of each target's neighbours, weighted by `share`, where the mask is True; differentiable in both."""
    if share.device.type != "cpu":
        return _sums_torch(share, value, neighbours, mask)
    sums: Tensor = _Sums.apply(share, value, neighbours, mask)
    return sums


def _scores_torch(query: Tensor, key: Tensor, neighbours: Tensor, mask: Tensor) -> Tensor:
    scores: Tensor = torch.linalg.vecdot(query[:, None].to(key), _rows(key, neighbours)) * mask[..., None]
    return scores


def _sums_torch(share: Tensor, value: Tensor, neighbours: Tensor, mask: Tensor) -> Tensor:
    return ((share * mask[..., None])[..., None] * _rows(value, neighbours)).sum(1)


def _rows(x: Tensor, neighbours: Tensor) -> Tensor:
    """[B F A d]"""
    return torch.nn.functional.embedding(neighbours, x.flatten(1)).view(*neighbours.shape, *x.shape[1:])


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, neighbours: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, neighbours, mask)
        return _dots(query, key, neighbours, mask)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Gradients:
        query, key, neighbours, mask = ctx.saved_tensors
        g, (for_query, for_key) = grad_outputs[0], ctx.needs_input_grad[:2]
        return (
            _loop("gathered", g, key, neighbours, mask, query) if for_query else None,
            _loop("scattered", g, query, neighbours, mask, key) if for_key else None,
            None,
            None,
        )


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, value: Tensor, neighbours: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(share, value, neighbours, mask)
        like = value.new_empty(len(share), *value.shape[1:])
        return _loop("gathered", share, value, neighbours, mask, like)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Gradients:
        share, value, neighbours, mask = ctx.saved_tensors
        g, (for_share, for_value) = grad_outputs[0], ctx.needs_input_grad[:2]
        return (
            _dots(g, value, neighbours, mask) if for_share else None,
            _loop("scattered", share, g, neighbours, mask, value) if for_value else None,
            None,
            None,
        )


def _dots(query: Tensor, key: Tensor, neighbours: Tensor, mask: Tensor) -> Tensor:
    from ops.graph.kernels import attention

    loop: Any = attention.dots
    scores = query.new_empty(*neighbours.shape, query.shape[1])
    loop(*_arrays(query, key, neighbours, mask), scores.numpy())
    return scores


def _loop(name: str, share: Tensor, rows: Tensor, neighbours: Tensor, mask: Tensor, like: Tensor) -> Tensor:
    """The loop `gathered` or `scattered`, run into zeros of the shape of `like`."""
    from ops.graph.kernels import attention

    total = torch.zeros(like.shape, dtype=like.dtype)
    getattr(attention, name)(*_arrays(share, rows, neighbours, mask), total.numpy())
    return total


def _arrays(*tensors: Tensor) -> list[Any]:
    """Contiguous arrays; the loops are compiled once, for these."""
    return [x.detach().contiguous().numpy() for x in tensors]
