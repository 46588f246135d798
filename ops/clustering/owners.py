"""A table whose rows the workers have by parts: sums that do not depend on the number of workers, and rows of others.

Part p has the rows offsets[p] .. offsets[p + 1] - 1, and rank p % W of W workers has the part. All methods are
collective: every worker has to call them, with arrays on the CPU. A group of one exchanges nothing.

Axes: N rows of all workers, n rows of one worker, m requested row numbers, C columns, P parts, W workers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from ops.clustering.shards import Shard
from ops.distributed.process_group import ProcessGroup


@dataclass(frozen=True)
class Owners:
    """Which worker of `group` has which rows; part p begins at row `offsets[p]` (int64 [P + 1])."""

    offsets: NDArray[np.int64]
    group: ProcessGroup

    @classmethod
    def alone(cls, total: int) -> "Owners":
        """All rows in one part, in this process."""
        return cls(np.array([0, total], dtype=np.int64), ProcessGroup())

    @property
    def total(self) -> int:
        """N, the number of rows of all workers."""
        return int(self.offsets[-1])

    @property
    def parts(self) -> list[int]:
        """The parts of this worker."""
        return list(range(self.group.rank, len(self.offsets) - 1, self.group.world))

    @cached_property
    def shard(self) -> Shard:
        """The rows of this worker."""
        return Shard.of_parts(self.offsets.tolist(), self.parts)

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Each part of this worker, and the slice of its rows among the worker's rows."""
        start = 0
        for part, (_, count) in zip(self.parts, self.shard.pieces, strict=True):
            yield part, slice(start, start + count)
            start += count

    def ranks(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The worker that has each of these rows [m]."""
        parts = np.searchsorted(self.offsets, numbers, side="right") - 1
        return np.asarray(parts % self.group.world)

    def sum_(self, x: NDArray[Any]) -> NDArray[Any]:
        """The sum of all workers' arrays, in place."""
        self.group.sum_(torch.from_numpy(x))
        return x

    def sum_by_part(self, shape: tuple[int, ...], term: Callable[[slice], NDArray[Any]]) -> NDArray[np.float64]:
        """The sum of `term(rows of a part)` over all parts in order, the same for any number of workers."""
        terms = np.zeros((len(self.offsets) - 1, *shape))
        for part, rows in self.slices():
            terms[part] = term(rows)
        return np.asarray(self.sum_(terms).sum(0))

    def gather(self, local: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The rows [m ...] of the same `numbers` on every worker, out of the rows [n ...] of each."""
        place = self.shard.positions(numbers)
        rows = np.zeros((len(numbers), *local.shape[1:]), local.dtype)
        rows[place >= 0] = local[place[place >= 0]]
        return self.sum_(rows)

    def fetch(self, local: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The rows [m ...] of `numbers`, which differ between workers, out of the rows [n ...] of each."""
        route = Route(self.group, self.ranks(numbers), numbers)
        return route.answered(local[self.shard.positions(route.asked)])

    def fetch_sparse(self, local: sp.csr_array, numbers: NDArray[np.int64]) -> sp.csr_array:
        """`fetch` of a matrix [n C] of 0 and 1."""
        if self.group.world == 1:
            return local[numbers]
        route = Route(self.group, self.ranks(numbers), numbers)
        rows = local[self.shard.positions(route.asked)]
        lengths = np.diff(rows.indptr).astype(np.int64)
        widths = route.exchanged(lengths, back=True)
        sent, received = (_sums(each, ends) for each, ends in ((lengths, route.received), (widths, route.sent)))
        columns = exchanged(self.group, rows.indices.astype(np.int64), sent, received)
        answer = sp.csr_array(
            (np.ones(len(columns)), columns, np.concatenate([[0], np.cumsum(widths)])),
            shape=(len(numbers), local.shape[1]),
        )
        return answer[np.argsort(route.order)]


class Route:
    """Questions of this worker to others, and of others to it.

    `asked` are the numbers that all workers ask this one for.
    """

    def __init__(self, group: ProcessGroup, ranks: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Ask worker ranks[i] for `numbers[i]` ([m] or [m C])."""
        self._group, self.order = group, np.argsort(ranks, kind="stable")
        self.sent = np.bincount(ranks, minlength=group.world).tolist()
        self.received = group.exchange_lengths(self.sent)
        self.asked = self.exchanged(numbers[self.order])

    def exchanged(self, rows: NDArray[Any], *, back: bool = False) -> NDArray[Any]:
        """Rows in the order of the questions, sorted by worker, to whom they are asked, or `back` from there."""
        ways = (self.received, self.sent) if back else (self.sent, self.received)
        return exchanged(self._group, rows, *ways)

    def answered(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The answers [m ...] to this worker's questions; `rows` are its own answers, one for each of `asked`."""
        answers = self.exchanged(rows, back=True)
        ordered = np.empty_like(answers)
        ordered[self.order] = answers
        return ordered


def exchanged(group: ProcessGroup, rows: NDArray[Any], sent: Sequence[int], received: Sequence[int]) -> NDArray[Any]:
    """The rows that all workers have for this one, in rank order; `rows` has `sent[r]` of them for each worker r."""
    if group.world == 1:
        return rows
    return group.exchange(torch.from_numpy(np.ascontiguousarray(rows)), sent, received).numpy()


def _sums(values: NDArray[np.int64], counts: Sequence[int]) -> list[int]:
    """The sums of consecutive groups of values with the given lengths."""
    ends = np.concatenate([[0], np.cumsum(values)])
    return [int(each) for each in np.diff(ends[np.concatenate([[0], np.cumsum(counts)])])]
