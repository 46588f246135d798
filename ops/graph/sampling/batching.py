"""Where the steps of an epoch come from when a graph is trained in batches, and what they do not see of it.

Axes: N nodes.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ops.data.types.graph import AttributedGraph
from ops.errors import SettingsError
from ops.graph.partition.metis import cut_share, partition
from ops.graph.sampling.minibatch import Batch, batches_of_nodes, batches_of_parts, expected_edge_loss

PARTITION_SEED = 0  # parts belong to the data: the same for every seed of a training


@runtime_checkable  # the tests check every annotation
class Batching(Protocol):
    """The settings of a method that trains in batches; 0 parts and 0 nodes: it does not."""

    @property
    def batch_nodes(self) -> int:
        """Nodes of a batch."""

    @property
    def parts(self) -> int:
        """Parts of the graph."""

    @property
    def blocks(self) -> int:
        """Parts of a batch."""

    @property
    def partition(self) -> Literal["metis", "hash"]:
        """How the graph is cut."""


def epoch_batches(
    settings: Batching, n_nodes: int, part: NDArray[np.int64] | None, seed: int, epoch: int
) -> list[Batch]:
    """The epoch's batches, keyed; together they hold every node once. `part` [N] where the graph is cut."""
    if part is None:
        return batches_of_nodes(n_nodes, settings.batch_nodes, seed, epoch)
    return batches_of_parts(part, settings.blocks, seed, epoch)


def part_of(settings: Batching, data: AttributedGraph) -> NDArray[np.int64] | None:
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


def remarks(settings: Batching, data: AttributedGraph) -> list[str]:
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
