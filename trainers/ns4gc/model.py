"""NS4GC's network and the two views of the graph that it is trained on.

Axes: N nodes, n of them on this worker, F features, H hidden width, D embedding width, E undirected edges.
"""

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import selu

from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import SparseRows, normalised, sparse_rows
from ops.losses.normalize import unit_rows
from ops.rng import generator, torch_generator
from trainers.ns4gc.settings import Settings
from trainers.shared import Features, aggregate, glorot_start


class Network(torch.nn.Module):
    """Two graph convolutions, SELU between them, and rows of unit length: `S selu(S X W1 + b1) W2 + b2`."""

    def __init__(self, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        h, d, draws = settings.hidden, settings.embedding_dim, torch_generator(seed, "ns4gc/network")
        self.weight1 = torch.nn.Parameter(glorot_start((n_features, h), draws))
        self.weight2 = torch.nn.Parameter(glorot_start((h, d), draws))
        self.bias1, self.bias2 = torch.nn.Parameter(torch.zeros(h)), torch.nn.Parameter(torch.zeros(d))

    def forward(
        self, features: Features, a: SparseRows, group: ProcessGroup, mask: Float[Tensor, "F"] | None = None
    ) -> Float[Tensor, "n D"]:
        """Embeddings of this worker's rows; `a` has its rows of S; `mask` is 0 for columns that a view lacks."""
        weight = self.weight1 if mask is None else self.weight1 * mask[:, None]
        hidden = selu(aggregate(features.times(weight), a, features.total, group) + self.bias1)
        return unit_rows(aggregate(hidden @ self.weight2, a, features.total, group) + self.bias2)


def smoothing(a: sp.csr_array, group: ProcessGroup, device: torch.device) -> SparseRows:
    """This worker's rows of `S = D^-1/2 (A + I) D^-1/2`; A [N, N] has no diagonal."""
    return sparse_rows(sp.csr_array(normalised(a)[group.shard(a.shape[0])]), device)


def view(
    a: sp.csr_array, n_features: int, settings: Settings, seed: int, position: tuple[int, ...]
) -> tuple[sp.csr_array, Float[Tensor, "F"]]:
    """(A with some edges dropped in both directions, a 0/1 mask of the columns); `position` keys the draws."""
    draws = generator(seed, "ns4gc/view", *position)
    mask = draws.random(n_features) >= settings.mask_features
    upper = sp.triu(a, 1).tocoo()
    keep = draws.random(upper.nnz) >= settings.drop_edges
    half = sp.csr_array((upper.data[keep], (upper.row[keep], upper.col[keep])), shape=a.shape)
    return sp.csr_array(half + half.T), torch.from_numpy(mask.astype(np.float32))
