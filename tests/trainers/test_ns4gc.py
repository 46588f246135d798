"""NS4GC's loss, network and views against their formulas on dense arrays."""

import numpy as np
import pytest
import torch
from small import of
from torch.nn.functional import normalize, selu

from ops.data.synthetic.planted_partition import planted_graph
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency, normalised
from ops.losses.link_bce import links_of
from trainers.ns4gc.loss import similarity_loss
from trainers.ns4gc.model import Network, smoothing, view
from trainers.shared import features_of

settings_of, small_graph, _ = of("ns4gc")
CPU = torch.device("cpu")


def unit_views(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [normalize(torch.randn(n, 5, dtype=torch.float64, generator=g)).requires_grad_() for _ in range(2)]


def dense_loss(z1, z2, edges, s):
    """The formula with N x N arrays."""
    n = len(z1)
    similarity, linked = z1 @ z2.T, torch.eye(n, dtype=torch.bool)
    linked[edges[0], edges[1]] = True
    apart = torch.sigmoid((similarity - s.threshold) / s.temperature)[~linked]
    neighbours = similarity[edges[0], edges[1]].mean()
    return -similarity.diagonal().mean() - s.neighbours * neighbours + s.apart * apart.mean()


@pytest.mark.parametrize("words", [{}, {"threshold": 0.1, "temperature": 0.5, "neighbours": 2.0, "apart": 0.3}])
@pytest.mark.parametrize("tile_rows", [16, 64])
def test_value_and_gradients_are_those_of_the_dense_formula(words, tile_rows):
    data, settings = small_graph()[0], settings_of(tile_rows=tile_rows, **words)
    z1, z2 = unit_views(data.n_nodes)
    links = links_of(adjacency(data.edge_index, data.n_nodes, self_loops=False), ProcessGroup())
    ours = similarity_loss(z1, z2, links, settings, ProcessGroup())
    dense = dense_loss(z1, z2, torch.from_numpy(data.edge_index.copy()), settings)
    assert ours.item() == pytest.approx(dense.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, (z1, z2)), torch.autograd.grad(dense, (z1, z2)), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("zeros", [0.0, 0.97])
def test_the_network_is_two_graph_convolutions_on_dense_and_sparse_features(zeros):
    data, settings = small_graph()[0], settings_of()
    x = np.where(np.random.default_rng(0).random(data.x.shape) < zeros, 0, data.x).astype(np.float32)
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    network, mask = Network(x.shape[1], settings, 0), torch.tensor([1.0, 0.0] * 5)
    features = features_of(x, ProcessGroup(), CPU)
    assert isinstance(features.x, torch.Tensor) == (zeros == 0)
    ours = network(features, smoothing(a, ProcessGroup(), CPU), ProcessGroup(), mask)
    s = torch.from_numpy(normalised(a).toarray()).float()
    hidden = selu(s @ (torch.from_numpy(x) * mask) @ network.weight1 + network.bias1)
    assert torch.allclose(ours, normalize(s @ hidden @ network.weight2 + network.bias2), atol=1e-5)


def test_views_are_keyed_symmetric_and_lack_the_shares_asked_for():
    data, _ = planted_graph(400, 3, 200, degree=12, seed=0)
    a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
    settings = settings_of(drop_edges=0.3, mask_features=0.2)
    (first, mask), (again, same), (other, _) = (view(a, 200, settings, 0, key) for key in ((1, 0), (1, 0), (1, 1)))
    assert (first != again).nnz == 0
    assert torch.equal(mask, same)
    assert (first != other).nnz > 0
    assert (first != first.T).nnz == 0
    assert first.multiply(a).nnz == first.nnz
    assert first.nnz / a.nnz == pytest.approx(0.7, abs=0.03)
    assert float(mask.mean()) == pytest.approx(0.8, abs=0.1)
