"""The self-organising map against MiniSom, against k-means and against dense formulas."""

import numpy as np
import pytest
import torch
from minisom import MiniSom
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from ops.clustering.lloyd import assign, prepare, step
from ops.clustering.shards import Shard
from ops.clustering.som import neighbourhood, radii, read_map, smooth, som, som_loss, som_step, umatrix, unit_clusters
from ops.distributed.process_group import ProcessGroup

GRID = (4, 5)


def blobs(n=600, k=5, d=6, spread=1.0, seed=0, dtype=torch.float32):
    x, y = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).to(dtype), y


def mapped(x, grid=GRID, k=5, seed=(0,), **more):
    return som(x, Shard.even(len(x), ProcessGroup()), grid, k, seed, **more)


def oracle(x, weights, sigma, grid=GRID):
    minisom = MiniSom(*grid, x.shape[1], sigma=sigma, learning_rate=1.0)
    minisom._weights = weights.double().view(*grid, -1).numpy().copy()
    return minisom


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
    ours = mapped(x, rounds=3, last_radius=0.6, first=x[::30])
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
    points = prepare(x, Shard.even(len(x), ProcessGroup()), ProcessGroup())
    centres = points.read(slice(20)).clone()
    result = assign(points, centres)
    assert result.counts.min() > 0
    lloyd = step(points, result, centres)
    assert torch.equal(som_step(result, centres, GRID, 0.0), lloyd)  # bit for bit
    assert torch.equal(mapped(x, first=x[:20], rounds=1, last_radius=0.0).weights,
                       _lloyd_once(x, x[:20]))  # fmt: skip


def _lloyd_once(x, first):
    points = prepare(x, Shard.even(len(x), ProcessGroup()), ProcessGroup())
    centres = first - points.shift
    return step(points, assign(points, centres), centres) + points.shift


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
    result = mapped(x, (1, 3), 1, first=first, rounds=1, last_radius=0.0)
    assert torch.equal(result.weights, first)
    assert result.hits.tolist() == [10, 0, 0]


def test_radii_shrink_from_half_the_grid_to_one():
    assert radii((4, 32), 5) == pytest.approx([16, 8, 4, 2, 1])
    assert radii((4, 10), 3, last=0.0) == pytest.approx([5, 2.5, 0])
    assert radii((4, 10), 1) == [1.0]
    assert radii((1, 1), 3) == [1.0] * 3


def test_blobs_are_separated_and_the_map_is_ordered():
    x, y = blobs(spread=0.7)
    result = mapped(x, (6, 6), 5)
    assert adjusted_rand_score(y, result.labels.numpy()) > 0.97
    assert result.topographic < 0.2
    assert torch.equal(result.labels, result.unit_clusters[result.bmu])
    assert result.hits.tolist() == np.bincount(result.bmu, minlength=36).tolist()
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()
    labels, sure = read_map(x, result.weights, result.unit_clusters)
    assert (labels == result.labels).float().mean() > 0.995
    assert torch.allclose(sure, result.confidence, atol=1e-2)


@pytest.mark.parametrize(("grid", "d"), [((1, 1), 3), ((1, 4), 1), ((3, 1), 2), ((5, 5), 1)])
def test_narrow_grids_and_data(grid, d):
    x = torch.randn(12, d, generator=torch.Generator().manual_seed(0))
    result = mapped(x, grid, 1, rounds=3)
    assert result.weights.isfinite().all()
    assert result.weights.shape == (grid[0] * grid[1], d)
    assert result.labels.tolist() == [0] * 12
    assert result.confidence.tolist() == [1.0] * 12


def test_spherical_maps_directions():
    x, y = blobs(spread=0.5)
    stretched = x * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0)).add(0.1) * 50
    result = mapped(stretched, (6, 6), 5, spherical=True)
    assert adjusted_rand_score(y, result.labels.numpy()) > 0.95
    assert (result.weights.norm(dim=1) <= 1 + 1e-5).all()
    labels, _ = read_map(stretched, result.weights, result.unit_clusters, spherical=True)
    assert (labels == result.labels).float().mean() > 0.995


def test_umatrix_by_hand():
    weights = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    expected = [[(1 + 3 + 7) / 3, (1 + 2 + 6) / 3], [(3 + 2 + 4) / 3, (7 + 6 + 4) / 3]]
    assert umatrix(weights, (2, 2)).numpy() == pytest.approx(np.array(expected))
    assert umatrix(weights, (1, 4)).flatten().tolist() == [1, 1.5, 3, 4]


def test_hits_weigh_units_as_rows_would():
    w = torch.randn(15, 2, generator=torch.Generator().manual_seed(1))
    hits = torch.arange(1, 16) % 5 + 1
    rows = w.repeat_interleave(hits, dim=0)
    theirs = KMeans(4, n_init=50, random_state=0).fit(rows.numpy())
    ours = unit_clusters(w, hits.double(), 4, (0,)).repeat_interleave(hits)
    middles = torch.stack([rows[ours == c].mean(0) for c in range(4)])
    assert float((rows - middles[ours]).square().sum()) <= theirs.inertia_ * 1.05


def test_empty_units_pull_nothing_and_join_the_nearest():
    w = torch.tensor([[0.0], [1.0], [10.0], [11.0], [100.0]])
    result = unit_clusters(w, torch.tensor([5.0, 5.0, 5.0, 5.0, 0.0]).double(), 2, (0,))
    assert result[0] == result[1] != result[2]
    assert result[2] == result[3] == result[4]
    few = unit_clusters(w, torch.tensor([5.0, 0.0, 0.0, 5.0, 0.0]).double(), 4, (0,))
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
