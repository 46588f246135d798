"""DMoN's loss and network against their formulas on dense arrays."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small import of
from torch.nn.functional import selu

from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from trainers.dmon.model import Edges, Network, Whole, modularity_loss
from trainers.shared import features_of

settings_of, small_graph, _ = of("dmon")
CPU, ALONE = torch.device("cpu"), ProcessGroup()


def dense_loss(shares, a, collapse):
    """Equation 6 with N x N arrays."""
    n, k = shares.shape
    d, m2 = a.sum(1), a.sum()
    modularity = torch.trace(shares.T @ (a - torch.outer(d, d) / m2) @ shares) / m2
    return -modularity + collapse * (k**0.5 / n * shares.sum(0).norm() - 1)


@pytest.mark.parametrize("collapse", [0.0, 1.0, 3.0])
def test_value_and_gradient_are_those_of_the_dense_formula(collapse):
    data = small_graph()[0]
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    draws = torch.Generator().manual_seed(0)
    shares = torch.softmax(torch.randn(data.n_nodes, 3, generator=draws), 1).requires_grad_()
    ours = modularity_loss(shares, Edges(a, ALONE, CPU), collapse, ALONE)
    dense = dense_loss(shares, torch.from_numpy(a.toarray()), collapse)
    assert ours.item() == pytest.approx(dense.item(), abs=1e-6)
    gradients = [torch.autograd.grad(loss, shares)[0] for loss in (ours, dense)]
    assert torch.allclose(*gradients, atol=1e-7)


def test_a_step_of_all_nodes_is_the_whole_graph_and_of_a_part_moves_the_whole_sums():
    data = small_graph()[0]
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    edges, draws = Edges(a, ALONE, CPU), torch.Generator().manual_seed(0)
    before, now = (torch.softmax(torch.randn(data.n_nodes, 3, generator=draws), 1) for _ in range(2))
    whole = Whole(edges.total, data.n_nodes, edges.sums(before), edges.sums(before))
    alone = modularity_loss(now, edges, 2.0, ALONE)
    assert modularity_loss(now, edges, 2.0, ALONE, whole).item() == pytest.approx(alone.item(), abs=1e-6)
    nodes = np.arange(20)
    part = Edges(sp.csr_array(a[nodes][:, nodes]), ALONE, CPU, a.sum(1)[nodes].astype(np.float32))
    moved = Whole(edges.total, data.n_nodes, edges.sums(before), part.sums(before[:20]))
    inside = torch.from_numpy(a[nodes][:, nodes].toarray())
    sums = edges.sums(before) + data.n_nodes / 20 * (part.sums(now[:20]) - part.sums(before[:20]))
    expected = -torch.trace(now[:20].T @ inside @ now[:20]) / inside.sum() + (sums[0] / edges.total).square().sum()
    ours = modularity_loss(now[:20], part, 0.0, ALONE, moved)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_network_is_a_graph_convolution_with_a_skip_connection():
    data, settings = small_graph()[0], settings_of()
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    network = Network(data.n_features, settings, 0)
    rows, shares = network(features_of(data.x, ALONE, CPU), Edges(a, ALONE, CPU).smoothing, ALONE)
    dense, x = torch.from_numpy(a.toarray()), torch.from_numpy(data.x)
    scale = dense.sum(1).clamp(min=1).rsqrt()
    smoothed = (scale[:, None] * dense * scale) @ x
    assert torch.allclose(rows, selu(smoothed @ network.weight + x @ network.skip + network.bias), atol=1e-5)
    assert torch.allclose(shares, torch.softmax(rows @ network.head + network.head_bias, 1), atol=1e-6)
