"""What the steps of an epoch draw from when the graph is too large for all pairs.

Axes: N nodes, F features (after PCA where set).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.graph import AttributedGraph
from ops.graph.sampling.batches import Batch, epoch_batches, part_of
from trainers.hsan.settings import Settings


@dataclass(frozen=True)
class Source:
    """X~, A and, where the graph is cut, the part of every node; `batches` are keyed by seed and epoch."""

    settings: Settings
    x: Float[Tensor, "N F"]
    a: sp.csr_array
    part: NDArray[np.int64] | None

    def batches(self, seed: int, epoch: int) -> list[Batch]:
        """The epoch's batches; together they hold every node once."""
        return epoch_batches(self.settings, self.x.shape[0], self.part, seed, epoch)


def source_of(settings: Settings, data: AttributedGraph, x: Float[Tensor, "N F"], a: sp.csr_array) -> Source | None:
    """The source of batches, or None where a step takes all pairs."""
    if not settings.batch_nodes and not settings.parts:
        return None
    return Source(settings, x, a, part_of(settings, data))
