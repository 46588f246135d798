"""Adjacency matrices, the low-pass filter, and a sparse product that has a gradient.

Axes: N nodes, n of them, F features, D width, E directed edges, V views.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from ops.device import send


def adjacency(
    edge_index: NDArray[np.int64], n_nodes: int, *, self_loops: bool, weight: NDArray[np.float32] | None = None
) -> sp.csr_array:
    """The 0/1 adjacency matrix A [N, N] (CSR float32), or the matrix of `weight` [E] in units of its mean.

    In these units a loop of A + I weighs as much as an average edge. `self_loops=False` removes the diagonal of A.
    """
    source, target = edge_index
    if not self_loops:
        keep = source != target
        source, target = source[keep], target[keep]
        weight = None if weight is None else weight[keep]
    values = np.ones(len(source), dtype=np.float32)
    if weight is not None and weight.size:
        values = (weight / weight.mean(dtype=np.float64)).astype(np.float32)
    return sp.csr_array((values, (source, target)), shape=(n_nodes, n_nodes))


def normalised(a: sp.csr_array, *, self_loops: bool = True) -> sp.csr_array:
    """`D^-1/2 (A + I) D^-1/2` in float64, of a matrix A [N, N] without a diagonal (Kipf & Welling).

    `self_loops=False`: `D^-1/2 A D^-1/2`, in which a node without edges has a row of zeros.
    """
    looped = a.astype(np.float64) + sp.eye_array(a.shape[0]) if self_loops else a.astype(np.float64)
    degrees = looped.sum(axis=1)
    scale = 1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0))
    return sp.csr_array(looped.multiply(scale[:, None]).multiply(scale[None, :]))


def low_pass(
    x: NDArray[np.float32], edge_index: NDArray[np.int64], order: int, weight: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """`(D^-1/2 (A + I) D^-1/2)^order X` [N, F], where the diagonal of A is removed first (HSAN eq. 1; SGC).

    A node without edges keeps its features. Sums are in float64, so that the result does not depend on the order of the
    edges.
    """
    step = normalised(adjacency(edge_index, x.shape[0], self_loops=False, weight=weight))
    out = x.astype(np.float64)
    for _ in range(order):
        out = step @ out
    return np.asarray(out, dtype=np.float32)


def sparse_matrix(a: sp.csr_array, device: torch.device) -> Tensor:
    """A SciPy CSR matrix as a torch CSR tensor (float32) on `device`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            send(a.indptr.astype(np.int64), device),
            send(a.indices.astype(np.int64), device),
            send(np.asarray(a.data, dtype=np.float32), device),
            size=a.shape,
            check_invariants=False,  # SciPy has just built the matrix
        )


@dataclass(frozen=True)
class SparseRows:
    """Some rows of A for a product with gradient: torch CSR `rows` [n, N] and its transpose [N, n]."""

    rows: Tensor
    transposed: Tensor


def sparse_rows(a: sp.csr_array, device: torch.device) -> SparseRows:
    """Rows of a SciPy matrix [n, N] on `device`, ready for `sparse_product`."""
    return SparseRows(sparse_matrix(a, device), sparse_matrix(sp.csr_array(a.T), device))


def sparse_product(a: SparseRows, w: Float32[Tensor, "V N D"]) -> Float32[Tensor, "V n D"]:
    """`A W_v` for the rows of A that `a` holds, differentiable in W only (the gradient is `A^T G_v`)."""
    out: Tensor = _SparseProduct.apply(a, w)
    return out


class _SparseProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: SparseRows, w: Tensor) -> Tensor:
        ctx.a = a
        return _each_view(a.rows, w)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, Tensor]:
        return None, _each_view(ctx.a.transposed, grad_outputs[0])


def _each_view(a: Tensor, w: Tensor) -> Tensor:
    out = w.new_empty(w.shape[0], a.shape[0], w.shape[2])
    for result, view in zip(out, w, strict=True):
        result.copy_(a @ view.contiguous())
    return out
