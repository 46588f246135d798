"""Batch normalisation whose statistics are those of all workers' rows, on any device (Ioffe & Szegedy 2015).

`torch.nn.SyncBatchNorm` refuses the CPU. Here mean and variance are all-reduced forward and the two sums of the
gradient backward, so that W workers normalise and learn as one process with the whole batch does.

Axes: B rows of this worker, C channels, S places of an image (none for vectors).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import batch_norm

from ops.distributed.process_group import ProcessGroup


class BatchNorm(torch.nn.Module):
    """`(x - mean) / sqrt(var + eps) * weight + bias` over rows and places; in evaluation by the running statistics.

    `sync` takes mean and variance over the workers of `group`, else over this worker's rows. Weight and bias get the
    gradient of this worker's rows: the training sums it over the workers, as for all parameters.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        width: int,
        group: ProcessGroup | None = None,
        *,
        sync: bool = True,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.group, self.eps, self.momentum = group or ProcessGroup(), eps, momentum
        self.sync = sync and self.group.world > 1
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Float[Tensor, "B C *S"]) -> Float[Tensor, "B C *S"]:
        """Normalised rows; in training the running statistics follow."""
        if self.training and self.sync:
            mean, var, count = self._statistics(x)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (count / (count - 1).clamp_min(1)), self.momentum)
            out: Tensor = _Normalise.apply(x, self.weight, self.bias, mean, var, count, self)
            return out
        if self.training and x.numel() == x.shape[1]:  # torch refuses one value a channel; its variance is 0
            return self.bias.expand_as(x) + 0 * x
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, variance (of the population) and count over all workers.

        Around each worker's mean, then put together in float64: no cancellation far from the origin.
        """
        axes = [0, *range(2, x.dim())]
        local_var, local_mean = torch.var_mean(x.to(self.running_mean.dtype), axes, correction=0)
        count, c = x.numel() // x.shape[1], x.shape[1]
        mean = local_mean.double()
        packed = torch.cat([mean, local_var.double() + mean.square(), mean.new_ones(1)]).mul_(count)
        self.group.sum_(packed)
        total = packed[-1]
        mean = packed[:c] / total
        var = (packed[c : 2 * c] / total - mean.square()).clamp_min_(0)
        return mean.to(local_mean.dtype), var.to(local_mean.dtype), total


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, count: Tensor, norm: BatchNorm
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + norm.eps).rsqrt(), count)
        ctx.group = norm.group
        return batch_norm(x, mean, var, weight, bias, False, 0.0, norm.eps)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        g, c = grad_outputs[0], x.shape[1]
        axes, wide = [0, *range(2, x.dim())], (1, c, *(1,) * (x.dim() - 2))
        centred = x - mean.view(wide)
        sums = torch.cat([g.sum(axes, dtype=mean.dtype), (g * centred).sum(axes, dtype=mean.dtype)])
        gain, shift = sums[c:] * scale, sums[:c].clone()  # of weight and bias, from this worker's rows
        ctx.group.sum_(sums)
        slope = sums[c:] * scale.square() / count
        inner = g - (sums[:c] / count).view(wide) - centred.mul_(slope.view(wide))
        return (inner * (weight * scale).view(wide)).to(x.dtype), gain, shift, None, None, None, None


@torch.no_grad()
def average_statistics(model: torch.nn.Module, group: ProcessGroup) -> None:
    """Every worker's running statistics become the workers' mean; without `sync` they differ while training."""
    if group.world == 1:
        return
    for buffer in model.buffers():
        group.sum_(buffer).div_(group.world)
