"""Adjacency, the low-pass filter and the sparse product against dense formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.graph.adjacency import adjacency, low_pass, sparse_matrix, sparse_product, sparse_rows

CPU = torch.device("cpu")


def graph(n=12, e=20, f=5, seed=0):
    rng = np.random.default_rng(seed)
    return make_graph("g", rng.standard_normal((n, f)), rng.integers(0, n, (2, e)))


def dense(edge_index, n):
    a = np.zeros((n, n))
    a[edge_index[0], edge_index[1]] = 1
    return a


@pytest.mark.parametrize("self_loops", [True, False])
def test_adjacency(self_loops):
    g = make_graph("g", np.eye(4), np.array([[0, 1, 2, 2], [1, 1, 2, 3]]))
    expected = np.array([[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0]], dtype=np.float32)
    if not self_loops:
        np.fill_diagonal(expected, 0)
    result = adjacency(g.edge_index, 4, self_loops=self_loops)
    assert result.dtype == np.float32
    assert np.array_equal(result.toarray(), expected)


@pytest.mark.parametrize("order", [0, 1, 2, 6])
def test_filter_equals_the_dense_formula(order):
    g = graph()
    a = dense(g.edge_index, 12)
    np.fill_diagonal(a, 1)  # its own loops removed, one added
    scale = np.diag(a.sum(1) ** -0.5)
    expected = np.linalg.matrix_power(scale @ a @ scale, order) @ g.x
    result = low_pass(g.x, g.edge_index, order)
    assert result.dtype == np.float32
    assert np.allclose(result, expected, rtol=1e-6, atol=1e-6)


def test_order_of_edges_changes_no_bit_and_x_is_left_alone():
    g, _ = planted_graph(200, 4, 16, seed=2)
    shuffled = g.edge_index[:, np.random.default_rng(0).permutation(g.edge_index.shape[1])]
    before = g.x.copy()
    assert np.array_equal(low_pass(g.x, g.edge_index, 4), low_pass(g.x, shuffled, 4))
    assert np.array_equal(g.x, before)


def test_without_edges_features_stay():
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    assert np.array_equal(low_pass(x, np.empty((2, 0), dtype=np.int64), 5), x)
    isolated = low_pass(x, np.array([[0, 1], [1, 0]]), 2)
    assert np.array_equal(isolated[2:], x[2:])
    assert np.allclose(isolated[0], (x[0] + x[1]) / 2)


@given(n=st.integers(1, 15), e=st.integers(1, 40), order=st.integers(0, 8), seed=st.integers(0, 99))
def test_the_filter_keeps_its_fixed_vector_and_never_amplifies(n, e, order, seed):
    """The operator is symmetric with spectrum in (-1, 1]; D^(1/2) 1 is its eigenvector of eigenvalue 1."""
    g = graph(n, e, 2, seed)
    a = dense(g.edge_index, n)
    np.fill_diagonal(a, 1)
    fixed = np.sqrt(a.sum(1)).astype(np.float32)[:, None]
    assert np.allclose(low_pass(fixed, g.edge_index, order), fixed, rtol=1e-5)
    out = low_pass(g.x, g.edge_index, order)
    assert (np.linalg.norm(out, axis=0) <= np.linalg.norm(g.x, axis=0) * (1 + 1e-5)).all()


@pytest.mark.parametrize("rows", [slice(0, 30), slice(4, 11), slice(7, 7)])
def test_sparse_product_and_its_gradient_equal_the_dense_ones(rows):
    g = graph(30, 60)
    a = adjacency(g.edge_index, 30, self_loops=True)[rows]
    full = torch.from_numpy(a.toarray())
    assert torch.equal(sparse_matrix(a, CPU).to_dense(), full)
    results = []
    for product in (lambda w: sparse_product(sparse_rows(a, CPU), w), lambda w: full @ w):
        w = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
        out = product(w)
        (out * torch.linspace(-1, 1, 7)).square().sum().backward()
        results.append((out.detach(), w.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
