"""Which rows of a table a worker has, and the rows of all workers together.

Axes: N rows of all workers, n rows of one worker, m chosen rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ops.device import send
from ops.distributed.process_group import ProcessGroup

BLOCK_ROWS = 4096


@dataclass(frozen=True)
class Shard:
    """One worker's rows of a table of `total` rows: (first global number, count) of each piece, ascending.

    Results are the same to the bit for any number of workers if the pieces begin at multiples of BLOCK_ROWS (`even`) or
    are the same parts everywhere (`of_parts`).
    """

    total: int
    pieces: tuple[tuple[int, int], ...]

    @classmethod
    def even(cls, total: int, group: ProcessGroup) -> "Shard":
        """Whole blocks of BLOCK_ROWS rows for each worker, as evenly as possible, in rank order."""
        blocks = -(-total // BLOCK_ROWS)
        each = -(-blocks // group.world) * BLOCK_ROWS
        first = min(group.rank * each, total)
        return cls(total, ((first, min(each, total - first)),))

    @classmethod
    def of_parts(cls, offsets: Sequence[int], parts: Sequence[int]) -> "Shard":
        """The rows of whole `parts` (ascending); part p has the rows offsets[p] .. offsets[p + 1] - 1."""
        return cls(int(offsets[-1]), tuple((int(offsets[p]), int(offsets[p + 1] - offsets[p])) for p in parts))

    @property
    def count(self) -> int:
        """n, the number of rows of this worker."""
        return sum(count for _, count in self.pieces)

    def blocks(self) -> Iterator[slice]:
        """Slices of the worker's rows, cut at each piece and at the global multiples of BLOCK_ROWS."""
        start = 0
        for first, count in self.pieces:
            row = first
            while row < first + count:
                end = min((row // BLOCK_ROWS + 1) * BLOCK_ROWS, first + count)
                yield slice(start + row - first, start + end - first)
                row = end
            start += count

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each of these global `numbers` among the worker's rows, -1 for rows of other workers: [m]."""
        places, start = np.full(len(numbers), -1, dtype=np.int64), 0
        for first, count in self.pieces:
            inside = (numbers >= first) & (numbers < first + count)
            places[inside] = numbers[inside] - first + start
            start += count
        return places

    def numbers(self) -> NDArray[np.int64]:
        """The global number of each row of the worker: [n]."""
        return np.concatenate([np.arange(f, f + c) for f, c in self.pieces] or [np.zeros(0, np.int64)])


def gather_rows(local: Tensor, shard: Shard, group: ProcessGroup) -> Tensor:
    """The rows [N ...] of all workers on every worker, out of the rows [n ...] of each."""
    if group.world == 1:
        return local
    full = local.new_zeros((shard.total, *local.shape[1:]))
    full[send(shard.numbers(), full.device)] = local
    return group.sum_(full)
