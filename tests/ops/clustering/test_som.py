"""The self-organising map against MiniSom, against k-means and against dense formulas."""

import numpy as np
import pytest
import torch
from minisom import MiniSom
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from ops.clustering.lloyd import Rows, assign, means, prepare
from ops.clustering.som import (
    neighbourhood,
    radii,
    read_map,
    smooth,
    som,
    som_loss,
    som_step,
    umatrix,
    unit_clusters,
)
from ops.distributed.process_group import Team

GRID = (4, 5)


def blobs(n=600, k=5, d=6, spread=1.0, seed=0, dtype=torch.float32):
    x, y = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).to(dtype), y


def mapped(x, grid=GRID, k=5, seed=(0,), **more):
    return som(x, Rows.share(len(x), Team()), grid, k, seed, **more)


def oracle(x, weights, sigma, grid=GRID):
    made = MiniSom(*grid, x.shape[1], sigma=sigma, learning_rate=1.0)
    made._weights = weights.double().view(*grid, -1).numpy().copy()
    return made


@pytest.mark.parametrize("radius", [0.6, 1.0, 2.5])
def test_a_round_is_minisoms(radius):
    x, _ = blobs(dtype=torch.float64)
    first = x[:20] + 0.1
    theirs = oracle(x, first, radius)
    theirs.train_batch_offline(x.numpy(), 1)
    ours = mapped(x, first=first, rounds=1, last_radius=radius)
    assert np.allclose(ours.weights.numpy(), theirs._weights.reshape(20, -1), atol=1e-9)


def test_what_a_map_says_is_minisoms():
    x, _ = blobs(dtype=torch.float64, spread=3.0)
    ours = mapped(x, rounds=3, last_radius=0.6, init="sample")
    theirs = oracle(x, ours.weights, 1.0)
    assert ours.quantisation == pytest.approx(theirs.quantization_error(x.numpy()), rel=1e-5)
    assert ours.topographic == pytest.approx(theirs.topographic_error(x.numpy()))
    assert 0 < ours.topographic < 1
    assert np.allclose(ours.umatrix / ours.umatrix.max(), theirs.distance_map("mean"))
    assert np.array_equal(ours.hits.view(GRID).numpy(), theirs.activation_response(x.numpy()).astype(int))
    assert ours.bmu.tolist() == [int(np.ravel_multi_index(theirs.winner(row), GRID)) for row in x.numpy()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radius_zero_is_a_lloyd_iteration(dtype):
    x, _ = blobs(spread=3.0, dtype=dtype)
    points = prepare(x, Rows.share(len(x), Team()), Team())
    centres = points.z[:20].clone()
    found = assign(points, centres)
    assert found.counts.min() > 0
    lloyd = means(points, found, centres)
    assert torch.equal(som_step(found, centres, GRID, 0.0), lloyd)  # bit for bit
    assert torch.equal(mapped(x, first=x[:20], rounds=1, last_radius=0.0).weights,
                       _lloyd_once(x, x[:20]))  # fmt: skip


def _lloyd_once(x, first):
    points = prepare(x, Rows.share(len(x), Team()), Team())
    centres = first - points.shift
    return means(points, assign(points, centres), centres) + points.shift


@pytest.mark.parametrize("radius", [0.0, 0.7, 3.0])
def test_two_factors_are_the_whole_neighbourhood(radius):
    h = neighbourhood(GRID, radius)
    place = torch.tensor([[i, j] for i in range(4) for j in range(5)], dtype=torch.float64)
    if radius:
        assert torch.allclose(h, torch.exp(-torch.cdist(place, place).square() / (2 * radius**2)))
    values = torch.randn(20, 3, dtype=torch.float64)
    assert torch.allclose(smooth(values, GRID, radius), h @ values)


def test_units_that_nothing_reaches_stay():
    x = torch.zeros(10, 2)
    first = torch.tensor([[0.0, 0.0], [50.0, 0.0], [60.0, 0.0]])
    found = mapped(x, (1, 3), 1, first=first, rounds=1, last_radius=0.0)
    assert torch.equal(found.weights, first)
    assert found.hits.tolist() == [10, 0, 0]


def test_radii_shrink_from_half_the_grid_to_one():
    assert radii((4, 32), 5) == pytest.approx([16, 8, 4, 2, 1])
    assert radii((4, 10), 3, last=0.0) == pytest.approx([5, 2.5, 0])
    assert radii((4, 10), 1) == [1.0]
    assert radii((1, 1), 3) == [1.0] * 3


@pytest.mark.parametrize("init", ["pca", "sample"])
@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
def test_blobs_are_found_and_the_map_is_ordered(init, method):
    x, y = blobs(spread=0.7)
    found = mapped(x, (6, 6), 5, init=init, method=method)
    assert adjusted_rand_score(y, found.labels.numpy()) > 0.97
    assert found.topographic < 0.2
    assert torch.equal(found.labels, found.unit_clusters[found.bmu])
    assert found.hits.tolist() == np.bincount(found.bmu, minlength=36).tolist()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    labels, sure = read_map(x, found.weights, found.unit_clusters)
    assert (labels == found.labels).float().mean() > 0.995
    assert torch.allclose(sure, found.confidence, atol=1e-2)


def test_a_longer_training_fits_better_and_another_seed_draws_others():
    x, _ = blobs(spread=3.0)
    errors = [mapped(x, rounds=r).quantisation for r in (0, 3, 20)]
    assert errors[0] > errors[1] > errors[2]
    a, again, b = (mapped(x, seed=s, init="sample", rounds=1).weights for s in ((0,), (0,), (1,)))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)


@pytest.mark.parametrize(("grid", "d"), [((1, 1), 3), ((1, 4), 1), ((3, 1), 2), ((5, 5), 1)])
def test_narrow_grids_and_data(grid, d):
    x = torch.randn(12, d, generator=torch.Generator().manual_seed(0))
    for init in ("pca", "sample"):
        found = mapped(x, grid, 1, init=init, rounds=3)
        assert found.weights.isfinite().all()
        assert found.weights.shape == (grid[0] * grid[1], d)
        assert found.labels.tolist() == [0] * 12
        assert found.confidence.tolist() == [1.0] * 12


def test_spherical_maps_directions():
    x, y = blobs(spread=0.5)
    stretched = x * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0)).add(0.1) * 50
    found = mapped(stretched, (6, 6), 5, spherical=True)
    assert adjusted_rand_score(y, found.labels.numpy()) > 0.95
    assert (found.weights.norm(dim=1) <= 1 + 1e-5).all()
    labels, _ = read_map(stretched, found.weights, found.unit_clusters, spherical=True)
    assert (labels == found.labels).float().mean() > 0.995


def test_umatrix_by_hand():
    weights = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    expected = [[(1 + 3 + 7) / 3, (1 + 2 + 6) / 3], [(3 + 2 + 4) / 3, (7 + 6 + 4) / 3]]
    assert umatrix(weights, (2, 2)).numpy() == pytest.approx(np.array(expected))
    assert umatrix(weights, (1, 4)).flatten().tolist() == [1, 1.5, 3, 4]


def test_ward_with_equal_hits_is_scikit_learns():
    w = torch.randn(40, 3, generator=torch.Generator().manual_seed(3))
    ours = unit_clusters(w, torch.ones(40).double(), 6, (0,), "agglomerative")
    theirs = AgglomerativeClustering(6).fit_predict(w.numpy())
    assert adjusted_rand_score(theirs, ours.numpy()) == 1.0


def test_hits_weigh_units_as_rows_would():
    """Ward on weighted units is Ward on their rows from where the copies are joined."""
    w = torch.randn(15, 2, generator=torch.Generator().manual_seed(1))
    hits = torch.arange(1, 16) % 5 + 1
    theirs = AgglomerativeClustering(4).fit_predict(w.repeat_interleave(hits, dim=0).numpy())
    first = np.concatenate([[0], np.cumsum(hits.numpy())[:-1]])
    ours = unit_clusters(w, hits.double(), 4, (0,), "agglomerative")
    assert adjusted_rand_score(theirs[first], ours.numpy()) == 1.0


@pytest.mark.parametrize("method", ["kmeans", "agglomerative"])
def test_empty_units_pull_nothing_and_join_the_nearest(method):
    w = torch.tensor([[0.0], [1.0], [10.0], [11.0], [100.0]])
    found = unit_clusters(w, torch.tensor([5.0, 5.0, 5.0, 5.0, 0.0]).double(), 2, (0,), method)
    assert found[0] == found[1] != found[2]
    assert found[2] == found[3] == found[4]
    few = unit_clusters(w, torch.tensor([5.0, 0.0, 0.0, 5.0, 0.0]).double(), 4, (0,), method)
    assert sorted(few.unique().tolist()) == [0, 1]


def test_the_loss_and_its_gradient_are_the_dense_ones():
    g = torch.Generator().manual_seed(0)
    z = torch.randn(30, 4, dtype=torch.float64, generator=g, requires_grad=True)
    w = (torch.randn(20, 4, dtype=torch.float64, generator=g) + 5).requires_grad_()
    bmu = torch.randint(20, (30,), generator=g)
    for radius in (0.0, 0.8, 2.0):
        h = neighbourhood(GRID, radius)
        dense = (h[bmu] * (z[:, None] - w).square().sum(2)).sum(1).mean()
        ours = som_loss(z, w, bmu, h)
        assert ours.item() == pytest.approx(dense.item(), rel=1e-10)
        for a, b in zip(torch.autograd.grad(ours, (z, w)), torch.autograd.grad(dense, (z, w)), strict=True):
            assert torch.allclose(a, b, atol=1e-10)


def test_the_loss_in_single_precision_far_from_zero():
    z, w = torch.randn(50, 8) + 100, torch.randn(20, 8) + 100
    bmu, h = torch.randint(20, (50,)), neighbourhood(GRID, 1.0)
    dense = (h[bmu] * (z.double()[:, None] - w.double()).square().sum(2)).sum(1).mean()
    assert float(som_loss(z, w, bmu, h.float())) == pytest.approx(float(dense), rel=1e-4)


@pytest.mark.parametrize(("grid", "k"), [((0, 3), 1), ((2, 2), 5), ((2, 2), 0)])
def test_impossible_grids_are_refused(grid, k):
    with pytest.raises(ValueError, match=f"n_clusters={k} must be between 1 and the"):
        mapped(torch.ones(5, 2), grid, k)
