"""The workers of one training: which rows each has, what they exchange, and how many bytes that is.

Rows are gathered with their true gradient: forward an all-gather, backward a reduce-scatter, so that the gradients of
W workers sum to those of one process (design decision 5). Traffic is counted as ring collectives send it: a worker
sends (W - 1) / W of a gathered or scattered tensor and twice that of a reduced one.

Axes: N nodes, n nodes of one worker, V views, M = V N rows, D width, W workers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def traffic(gathered: int, reduced: int, world: int) -> int:
    """Bytes that one of `world` workers sends for that many gathered (or scattered) and reduced bytes."""
    return (gathered + 2 * reduced) * (world - 1) // world


@dataclass
class ProcessGroup:
    """Rank and size of torch's default process group; a group of one exchanges nothing and needs no torch group."""

    rank: int = 0
    world: int = 1
    gathered: int = 0  # bytes of all tensors gathered or scattered so far, at full size
    reduced: int = 0  # bytes of all tensors reduced so far
    exchanged: int = 0  # bytes that this worker has sent to others by `exchange`

    @property
    def counters(self) -> tuple[int, int, int]:
        """The bytes gathered, reduced and exchanged so far, for a later `sent_since`."""
        return self.gathered, self.reduced, self.exchanged

    def sent_since(self, gathered: int = 0, reduced: int = 0, exchanged: int = 0) -> int:
        """Bytes this worker has sent since its `counters` were these: all so far, by default."""
        sent = traffic(self.gathered - gathered, self.reduced - reduced, self.world)
        return sent + self.exchanged - exchanged

    def shard(self, n_rows: int) -> slice:
        """This worker's block of `n_rows` rows: ceil(N / W) each, the last ones fewer or none."""
        size = -(-n_rows // self.world)
        return slice(min(self.rank * size, n_rows), min((self.rank + 1) * size, n_rows))

    def sum_(self, x: Tensor) -> Tensor:
        """Sum over the workers, in place; every worker ends with the same bits."""
        return self._reduce(x, dist.ReduceOp.SUM)

    def maximum_(self, x: Tensor) -> Tensor:
        """Maximum over the workers, in place."""
        return self._reduce(x, dist.ReduceOp.MAX)

    def broadcast_(self, x: Tensor) -> Tensor:
        """Rank 0's values for all, in place: workers on unlike hardware must not differ in a single label."""
        if self.world > 1:
            self._contiguous(x, partial(dist.broadcast, src=0))
        return x

    def gather_lists(self, local: Sequence[Tensor], count: int, like: Tensor) -> list[Tensor]:
        """All workers' tensors in order: worker r has numbers r, r + W, ... of `count`; they differ in length only.

        `like` [0, ...] has their other sizes and dtype, for a worker that has none.
        """
        if self.world == 1:
            return list(local)
        lengths = torch.zeros(count, dtype=torch.int64)  # on the CPU, whatever the tensors are on: the host needs them
        lengths[self.rank :: self.world] = torch.tensor([len(x) for x in local], dtype=torch.int64)
        tensors = []
        for number, length in enumerate(self.sum_(lengths).tolist()):
            source, place = number % self.world, number // self.world
            sent = local[place].contiguous() if source == self.rank else like.new_empty(length, *like.shape[1:])
            dist.broadcast(sent, src=source)
            self.gathered += sent.nbytes
            tensors.append(sent)
        return tensors

    def exchange_lengths(self, sent: Sequence[int]) -> list[int]:
        """How many rows each worker will send to this one, which sends `sent[r]` rows to worker r."""
        received = torch.tensor(sent, dtype=torch.int64)
        if self.world > 1:
            dist.all_to_all_single(received, received.clone())
        return received.tolist()

    def exchange(self, x: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """The rows that all workers have for this one, in rank order; `x` has `sent[r]` rows for each worker r."""
        if self.world == 1:
            return x
        rows = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(rows, x.contiguous(), list(received), list(sent))
        self.exchanged += x.nbytes - x[: sent[self.rank]].nbytes
        return rows

    def _reduce(self, x: Tensor, how: Any) -> Tensor:
        if self.world > 1:
            self._contiguous(x, partial(dist.all_reduce, op=how))
            self.reduced += x.nbytes
        return x

    def _contiguous(self, x: Tensor, collective: Callable[[Tensor], Any]) -> None:
        """A collective in place on a tensor of any layout, of which NCCL takes one only."""
        rows = x.contiguous()
        collective(rows)
        if rows is not x:
            x.copy_(rows)

    def gather(self, views: Float[Tensor, "V n D"], n_nodes: int) -> Float[Tensor, "M D"]:
        """All workers' rows, view after view in node order; the gradient comes back to the row's owner."""
        if self.world == 1:
            return views.flatten(0, 1)
        rows: Tensor = _Gather.apply(views, self, n_nodes)
        return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, views: Tensor, group: ProcessGroup, n_nodes: int) -> Tensor:
        v, n, d = views.shape
        ctx.group, ctx.views, ctx.rows = group, v, n
        size = -(-n_nodes // group.world)
        sent = views.new_zeros(v, size, d)
        sent[:, :n] = views
        received = views.new_empty(group.world, v, size, d)
        dist.all_gather(list(received.unbind(0)), sent)
        group.gathered += received.nbytes
        return received.transpose(0, 1).reshape(v, -1, d)[:, :n_nodes].flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        group, v, rows = ctx.group, ctx.views, grad_outputs[0]
        d = rows.shape[1]
        per_view = rows.view(v, -1, d)
        size = -(-per_view.shape[1] // group.world)
        sent = rows.new_zeros(group.world, v, size, d)
        for rank in range(group.world):
            block = per_view[:, rank * size : (rank + 1) * size]
            sent[rank, :, : block.shape[1]] = block
        received = rows.new_empty(v, size, d)
        dist.reduce_scatter(received, list(sent.unbind(0)))
        group.gathered += sent.nbytes
        return received[:, : ctx.rows], None, None
