"""What the steps of an epoch draw from when the graph is too large for all pairs, and what they do not see of it.

Axes: N nodes, F features (after PCA where set).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types import AttributedGraph
from ops.errors import SettingsError
from ops.graph.batches import Batch, batches_of_nodes, batches_of_parts, expected_edge_loss
from ops.graph.partition import cut_share, partition
from trainers.hsan.settings import Settings

PARTITION_SEED = 0  # parts belong to the data: the same for every seed of a training


@dataclass(frozen=True)
class Source:
    """X~, A and, where the graph is cut, the part of every node; `batches` are keyed by seed and epoch."""

    settings: Settings
    x: Float[Tensor, "N F"]
    a: sp.csr_array
    part: NDArray[np.int64] | None

    def batches(self, seed: int, epoch: int) -> list[Batch]:
        """The epoch's batches; together they hold every node once."""
        if self.part is None:
            return batches_of_nodes(self.x.shape[0], self.settings.batch_nodes, seed, epoch)
        return batches_of_parts(self.part, self.settings.blocks, seed, epoch)


def source_of(settings: Settings, data: AttributedGraph, x: Float[Tensor, "N F"], a: sp.csr_array) -> Source | None:
    """The source of batches, or None where a step takes all pairs."""
    if not settings.batch_nodes and not settings.parts:
        return None
    return Source(settings, x, a, part_of(settings, data))


def part_of(settings: Settings, data: AttributedGraph) -> NDArray[np.int64] | None:
    """The part of every node, or None where the graph is not cut; the data's own parts where it has any.

    Raises SettingsError where it has another number of them.
    """
    if not settings.parts:
        return None
    if data.part is not None:
        have = int(data.part.max()) + 1
        if have != settings.parts:
            raise SettingsError(
                f"--parts {settings.parts}: {data.name} lies in {have} parts; give --parts {have}, or 0"
            )
        return data.part
    return partition(data.edge_index, data.n_nodes, settings.parts, settings.partition, PARTITION_SEED)


def remarks(settings: Settings, data: AttributedGraph) -> list[str]:
    """What the plan says of a training in batches: their size and the edges that a step does not see."""
    if settings.batch_nodes:
        steps = -(-data.n_nodes // settings.batch_nodes)
        return [f"batches of {-(-data.n_nodes // steps):,} nodes, {steps} steps an epoch: pairs within a batch only"]
    part = part_of(settings, data)
    if part is None:
        return []
    sizes = np.bincount(part)
    how = settings.partition if data.part is None else "the data's own partition,"
    lost = expected_edge_loss(data.edge_index, part, settings.blocks)
    return [
        f"{settings.parts} parts by {how} of {sizes.min():,}-{sizes.max():,} nodes, "
        f"{settings.blocks} a step, {-(-settings.parts // settings.blocks)} steps an epoch: "
        f"{cut_share(data.edge_index, part):.1%} of the edges lie between parts, {lost:.1%} are lost to a step"
    ]
