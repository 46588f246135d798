"""Which nodes a step trains on when a graph is too large for all pairs: every node once an epoch, keyed draws.

Axes: N nodes, E directed edges, B nodes of a batch, P parts, q parts of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops.errors import SettingsError
from ops.graph.partition.metis import cut_share
from ops.rng import generator


@dataclass(frozen=True)
class Batch:
    """The nodes of one step, int64 [B] sorted, and whether it sees only the edges inside (parts) or all of theirs."""

    nodes: NDArray[np.int64]
    inside: bool

    def adjacency(self, a: sp.csr_array) -> sp.csr_array:
        """What the step sees of A [N, N]: [B, B] where only edges inside count, else the batch's rows [B, N]."""
        return sub_adjacency(a, self.nodes) if self.inside else row_adjacency(a, self.nodes)


def batches_of_nodes(n_nodes: int, batch_nodes: int, seed: int, epoch: int) -> list[Batch]:
    """A keyed permutation of N nodes cut into ceil(N / batch_nodes) batches whose sizes differ by one at most.

    Raises SettingsError for batch_nodes < 1.
    """
    if batch_nodes < 1:
        raise SettingsError(f"--batch-nodes: batch_nodes={batch_nodes} must be >= 1")
    order = generator(seed, "batches", epoch).permutation(n_nodes).astype(np.int64)
    return [Batch(np.sort(nodes), inside=False) for nodes in np.array_split(order, -(-n_nodes // batch_nodes))]


def batches_of_parts(part: NDArray[np.int64], blocks: int, seed: int, epoch: int) -> list[Batch]:
    """A keyed permutation of the parts of `part` [N], `blocks` of them a batch; the last batch takes what is left.

    `part` is what `partition` returns: no part is empty. Raises SettingsError unless 1 <= blocks <= P.
    """
    parts = _parts(part, blocks)
    group = np.empty(parts, dtype=np.int64)  # of each part
    group[generator(seed, "batches", epoch).permutation(parts)] = np.arange(parts) // blocks
    group_of_node = group[part]
    order = np.argsort(group_of_node, kind="stable").astype(np.int64)  # stable: nodes stay sorted within a group
    ends = np.cumsum(np.bincount(group_of_node))
    return [Batch(nodes, inside=True) for nodes in np.split(order, ends[:-1])]


def expected_edge_loss(edge_index: NDArray[np.int64], part: NDArray[np.int64], blocks: int) -> float:
    """Share of the undirected edges (self loops apart) that an epoch of `batches_of_parts` does not see, on average.

    An edge inside a part is always seen; one between two parts when both fall into the same group, which in a random
    permutation happens with the probability `sum_g s_g (s_g - 1) / (P (P - 1))`, s_g the parts of group g.
    `edge_index` [2, E], `part` [N] as for `cut_share`. Raises SettingsError unless 1 <= blocks <= P.
    """
    parts = _parts(part, blocks)
    if parts == 1:
        return 0.0
    whole, rest = divmod(parts, blocks)
    together = (whole * blocks * (blocks - 1) + rest * (rest - 1)) / (parts * (parts - 1))
    return cut_share(edge_index, part) * (1 - together)


def sub_adjacency(a: sp.csr_array, nodes: NDArray[np.int64]) -> sp.csr_array:
    """A's rows and columns of `nodes` [B]: [B, B], row i for nodes[i]."""
    return sp.csr_array(a[nodes][:, nodes])


def row_adjacency(a: sp.csr_array, nodes: NDArray[np.int64]) -> sp.csr_array:
    """A's rows of `nodes` [B]: [B, N], row i for nodes[i]."""
    return sp.csr_array(a[nodes])


def _parts(part: NDArray[np.int64], blocks: int) -> int:
    """P, once `blocks` is known to fit it."""
    parts = int(part.max()) + 1
    if not 1 <= blocks <= parts:
        raise SettingsError(f"--blocks: blocks={blocks} must be in [1, {parts}], the number of parts")
    return parts
