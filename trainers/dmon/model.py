"""DMoN's network and its loss, both linear in nodes and edges.

Axes: N nodes, n of them on this worker, F features, D embedding width, K clusters.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import selu

from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import SparseRows, normalised, sparse_product, sparse_rows
from ops.rng import torch_generator
from trainers.dmon.settings import Settings
from trainers.shared import Features, aggregate, glorot_start


class Network(torch.nn.Module):
    """A graph convolution with a skip connection, `selu(A^ X W + X W_skip + b)`, and a softmax over K clusters."""

    def __init__(self, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        d, draws = settings.embedding_dim, torch_generator(seed, "dmon/network")
        self.weight = torch.nn.Parameter(glorot_start((n_features, d), draws))
        self.skip = torch.nn.Parameter(glorot_start((n_features, d), draws))
        self.bias = torch.nn.Parameter(torch.zeros(d))
        head = torch.linalg.qr(torch.randn(max(d, settings.k), min(d, settings.k), generator=draws))[0]
        self.head = torch.nn.Parameter((head if d >= settings.k else head.T).contiguous())
        self.head_bias = torch.nn.Parameter(torch.zeros(settings.k))

    def forward(
        self, features: Features, a: SparseRows, group: ProcessGroup
    ) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n K"]]:
        """Embeddings and cluster shares of this worker's rows; `a` has its rows of A^."""
        smoothed = aggregate(features.times(self.weight), a, features.total, group)
        rows = selu(smoothed + features.times(self.skip) + self.bias)
        return rows, torch.softmax(rows @ self.head + self.head_bias, dim=1)


def degrees_of(a: sp.csr_array) -> NDArray[np.float32]:
    """The degrees of the nodes [N] in A [N, N], or the sums of their edges' weights."""
    return np.asarray(a.sum(axis=1), dtype=np.float32)


class Edges:
    """This worker's rows of a graph: A^ = D^-1/2 A D^-1/2 for the network, and A with all degrees for the loss."""

    def __init__(
        self, a: sp.csr_array, group: ProcessGroup, device: torch.device, degrees: NDArray[np.float32] | None = None
    ) -> None:
        """`a` [N, N] is symmetric, without a diagonal; `degrees` [N] are the whole graph's where it is a part."""
        mine = group.shard(a.shape[0])
        self.smoothing = sparse_rows(sp.csr_array(normalised(a, self_loops=False)[mine]), device)
        self.links = sparse_rows(sp.csr_array(a[mine]), device)
        self.total = float(a.sum()) or 1.0
        degrees = degrees_of(a) if degrees is None else degrees
        self.weights = send(np.stack((degrees, np.ones_like(degrees))), device)  # [2, N]

    def sums(self, shares: Float[Tensor, "N K"]) -> Float[Tensor, "2 K"]:
        """The degrees and the nodes of each cluster, summed by shares: `d^T C` and `1^T C`."""
        sums: Tensor = self.weights @ shares
        return sums


@dataclass(frozen=True)
class Whole:
    """What a step on a part of the graph needs of the whole graph: edges, nodes, and sums of C at the epoch's start."""

    total: float
    nodes: int
    sums: Float[Tensor, "2 K"]
    step_sums: Float[Tensor, "2 K"]  # of these, the sums of the step's nodes


def modularity_loss(
    shares: Float[Tensor, "n K"], edges: Edges, collapse: float, group: ProcessGroup, whole: Whole | None = None
) -> Tensor:
    """This worker's share of eq. 6: `-Tr(C^T B C) / 2m + collapse (sqrt(K) / N |sum_i C_i| - 1)`, B = A - d d^T / 2m.

    `shares` are its rows of C [N, K]; the loss is the sum over all workers. With `whole` the rows are those of a step:
    its edges stand for all edges, and the change of its nodes' sums since the epoch's start, scaled up, for the change
    of all nodes' sums.
    """
    n, k = edges.weights.shape[1], shares.shape[1]
    every = group.gather(shares[None], n)
    within = (shares * sparse_product(edges.links, every[None])[0]).sum() / edges.total
    sums, total = edges.sums(every), edges.total
    if whole is not None:
        sums, total = whole.sums + whole.nodes / n * (sums - whole.step_sums), whole.total
        n = whole.nodes
    expected, uneven = (sums[0] / total).square().sum(), k**0.5 / n * sums[1].norm() - 1
    loss: Tensor = (expected + collapse * uneven) / group.world - within
    return loss
