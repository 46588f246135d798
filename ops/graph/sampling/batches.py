"""Which nodes a step trains on where an attributed graph is too large for all pairs. Every node comes once an epoch.

Draws are keyed. Axes: N nodes, E directed edges, B nodes of a batch, P parts, q parts of a batch.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops.data.types.graph import AttributedGraph
from ops.errors import SettingsError
from ops.graph.partition.metis import cut_share, partition
from ops.rng import generator

PARTITION_SEED = 0  # parts belong to the data: they are the same for every seed of a training


@runtime_checkable  # the tests check every annotation
class Batching(Protocol):
    """The settings of a method that can train in batches; with 0 parts and 0 nodes it does not."""

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


@dataclass(frozen=True)
class Batch:
    """The nodes of one step, int64 [B] sorted.

    `inside`: the step sees only the edges among its nodes (parts), otherwise all edges of its nodes.
    """

    nodes: NDArray[np.int64]
    inside: bool

    def adjacency(self, a: sp.csr_array) -> sp.csr_array:
        """What the step sees of A [N, N]: [B, B] where only edges inside count, otherwise the batch's rows [B, N]."""
        rows = a[self.nodes]
        return sp.csr_array(rows[:, self.nodes] if self.inside else rows)


def epoch_batches(
    settings: Batching, n_nodes: int, part: NDArray[np.int64] | None, seed: int, epoch: int
) -> list[Batch]:
    """The batches of an epoch, keyed; together they have every node once. A graph that is cut has `part` [N]."""
    if part is None:
        return batches_of_nodes(n_nodes, settings.batch_nodes, seed, epoch)
    return batches_of_parts(part, settings.blocks, seed, epoch)


def batches_of_nodes(n_nodes: int, batch_nodes: int, seed: int, epoch: int) -> list[Batch]:
    """A keyed permutation of N nodes, cut into ceil(N / batch_nodes) batches whose sizes differ by at most one.

    Raises SettingsError for batch_nodes < 1.
    """
    if batch_nodes < 1:
        raise SettingsError(f"--batch-nodes: batch_nodes={batch_nodes} must be >= 1")
    order = generator(seed, "batches", epoch).permutation(n_nodes).astype(np.int64)
    return [Batch(np.sort(nodes), inside=False) for nodes in np.array_split(order, -(-n_nodes // batch_nodes))]


def batches_of_parts(part: NDArray[np.int64], blocks: int, seed: int, epoch: int) -> list[Batch]:
    """A keyed permutation of the parts of `part` [N], `blocks` of them a batch; the last batch takes the rest.

    `part` is what `partition` returns: no part is empty. Raises SettingsError unless 1 <= blocks <= P.
    """
    parts = _count_parts(part, blocks)
    group = np.empty(parts, dtype=np.int64)  # the batch of each part
    group[generator(seed, "batches", epoch).permutation(parts)] = np.arange(parts) // blocks
    group_of_node = group[part]
    order = np.argsort(group_of_node, kind="stable").astype(np.int64)  # stable: nodes stay sorted within a batch
    ends = np.cumsum(np.bincount(group_of_node))
    return [Batch(nodes, inside=True) for nodes in np.split(order, ends[:-1])]


def expected_edge_loss(edge_index: NDArray[np.int64], part: NDArray[np.int64], blocks: int) -> float:
    """The average share of the undirected edges, without self loops, that an epoch of `batches_of_parts` does not see.

    An edge inside a part is always seen. An edge between two parts is seen when both fall into the same batch, which in
    a random permutation has the probability `sum_g s_g (s_g - 1) / (P (P - 1))`, where s_g counts the parts of batch g.
    `edge_index` [2, E] and `part` [N] are as for `cut_share`. Raises SettingsError unless 1 <= blocks <= P.
    """
    parts = _count_parts(part, blocks)
    if parts == 1:
        return 0.0
    whole, rest = divmod(parts, blocks)
    together = (whole * blocks * (blocks - 1) + rest * (rest - 1)) / (parts * (parts - 1))
    return cut_share(edge_index, part) * (1 - together)


def _count_parts(part: NDArray[np.int64], blocks: int) -> int:
    """P, the number of parts. Raises SettingsError unless `blocks` fits it."""
    parts = int(part.max()) + 1
    if not 1 <= blocks <= parts:
        raise SettingsError(f"--blocks: blocks={blocks} must be in [1, {parts}], the number of parts")
    return parts


def part_of(settings: Batching, data: AttributedGraph) -> NDArray[np.int64] | None:
    """The part of every node, or None where the graph is not cut; the parts of the data where it has any.

    Raises SettingsError where the data has another number of parts.
    """
    if not settings.parts:
        return None
    if data.part is None:
        return partition(data.edge_index, data.n_nodes, settings.parts, settings.partition, PARTITION_SEED)
    have = int(data.part.max()) + 1
    if have != settings.parts:
        raise SettingsError(f"--parts {settings.parts}: {data.name} lies in {have} parts; give --parts {have}, or 0")
    return data.part


def remarks(settings: Batching, data: AttributedGraph) -> list[str]:
    """What the plan says about a training in batches: their size, and the edges that a step does not see."""
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
