"""Linear filters of a graph as operators: products with the filtered features, which are never formed.

With `S = D^-1/2 (A + I) D^-1/2` and a polynomial g the filtered features are `Z = g(S) X`, or for a random walk `P =
D^-1 (A + I)`, `Z = g(P) X = D^-1/2 g(S) D^1/2 X`. `Z W` and `Z^T Q` cost a product with S for each power and one with
X, which is linear in the edges and in the features that are not 0. With several workers each has its rows of the
matrices.

Axes: N nodes, F features, L columns.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency, normalised, sparse_matrix
from ops.graph.features import Table
from ops.rng import torch_generator

EXACT_LENGTHS = 4096  # up to so many features the lengths of Z's rows are exact, else by a projection
LENGTH_COLUMNS, BLOCK_COLUMNS = 1024, 256


@dataclass(frozen=True)
class SplitRows:
    """This worker's rows of a matrix with `total` rows; a product gives the rows of all workers on every worker."""

    rows: Tensor
    total: int
    group: ProcessGroup

    def __matmul__(self, w: Float[Tensor, "C L"]) -> Float[Tensor, "R L"]:
        """The product, with the rows of all workers."""
        return self.group.gather((self.rows @ w)[None], self.total)


def split_rows(matrix: Table, group: ProcessGroup, device: torch.device) -> SplitRows:
    """The rows of `matrix` that this worker of `group` has, on `device`."""
    shard, total = group.shard(matrix.shape[0]), matrix.shape[0]
    if isinstance(matrix, np.ndarray):
        return SplitRows(torch.from_numpy(np.ascontiguousarray(matrix[shard])).to(device), total, group)
    return SplitRows(sparse_matrix(sp.csr_array(matrix[shard]), device), total, group)


@dataclass(frozen=True)
class Smoothing:
    """S of a graph, and sqrt(D) [N, 1] of A + I."""

    steps: SplitRows
    root_degree: Float[Tensor, "N 1"]


def smoothing_of(
    edge_index: NDArray[np.int64], n_nodes: int, group: ProcessGroup, device: torch.device,
    weight: NDArray[np.float32] | None = None,
) -> Smoothing:  # fmt: skip
    """S of the graph `edge_index` [2, E] with `weight` [E]; its self loops do not count."""
    a = adjacency(edge_index, n_nodes, self_loops=False, weight=weight)
    degree = torch.from_numpy(np.asarray(a.sum(axis=1) + 1, dtype=np.float32))[:, None]
    return Smoothing(split_rows(normalised(a), group, device), degree.sqrt().to(device))


@dataclass(frozen=True)
class Filtered:
    """Z [N, F] as an operator: features and their transpose, S, and the `weights` of S^0, S^1, ... in g.

    `walk` says that g is of P and not of S. `centred` subtracts the mean of every column. `scale` [N, 1] multiplies the
    rows.
    """

    features: SplitRows
    transposed: SplitRows
    smoothing: Smoothing
    weights: tuple[float, ...]
    walk: bool = False
    centred: bool = False
    scale: Float[Tensor, "N 1"] | None = None

    def __matmul__(self, w: Float[Tensor, "F L"]) -> Float[Tensor, "N L"]:
        """`Z W`."""
        return self._centre(self.raw(w))

    def raw(self, w: Float[Tensor, "F L"]) -> Float[Tensor, "N L"]:
        """`Z W`, without centring."""
        y, root = self.features @ w, self.smoothing.root_degree
        y = self._smooth(y * root) / root if self.walk else self._smooth(y)
        return y if self.scale is None else y * self.scale

    def adjoint(self, q: Float[Tensor, "N L"]) -> Float[Tensor, "F L"]:
        """`Z^T Q`."""
        q, root = self._centre(q), self.smoothing.root_degree
        if self.scale is not None:
            q = q * self.scale
        return self.transposed @ (self._smooth(q / root) * root if self.walk else self._smooth(q))

    def with_unit_rows(self) -> "Filtered":
        """Z with rows of unit length, without centring.

        Above 4,096 features the lengths are those of a projection by 1,024 random signs, within 5 % of the exact ones.
        """
        f, like = self.transposed.total, self.smoothing.root_degree
        squares = torch.zeros_like(like)
        for first in range(0, LENGTH_COLUMNS if f > EXACT_LENGTHS else f, BLOCK_COLUMNS):
            if f > EXACT_LENGTHS:
                draws = torch_generator(0, "filters/lengths", first)
                block = torch.randint(0, 2, (f, BLOCK_COLUMNS), generator=draws).to(like) * 2 - 1
                block /= LENGTH_COLUMNS**0.5
            else:
                block = like.new_zeros(f, min(BLOCK_COLUMNS, f - first))
                block[first : first + block.shape[1]].fill_diagonal_(1.0)
            squares += self.raw(block).square().sum(1, keepdim=True)
        return replace(self, scale=squares.sqrt().clamp_min(1e-12).reciprocal())

    def _centre(self, y: Float[Tensor, "N L"]) -> Float[Tensor, "N L"]:
        return y - y.mean(0) if self.centred else y

    def _smooth(self, y: Float[Tensor, "N L"]) -> Float[Tensor, "N L"]:
        """`g(S) Y` by Horner's rule."""
        out = y * self.weights[-1]
        for weight in self.weights[-2::-1]:
            out = self.smoothing.steps @ out
            if weight:
                out += weight * y
        return out
