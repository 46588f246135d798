"""k-means against scikit-learn, and the properties that any k-means must have."""

from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans as Oracle
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch.nn.functional import normalize

from ops.clustering import kmeans as module
from ops.clustering.kmeans import START_ROWS, kmeans, sample
from ops.clustering.lloyd import prepare, squared_distances
from ops.clustering.shards import Shard
from ops.distributed.process_group import ProcessGroup


def blobs(n=400, k=5, d=8, spread=1.0, seed=0, dtype=torch.float32):
    x, y = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).to(dtype), y


def inertia(x, labels, centres):
    return float((x.double() - centres.double()[labels]).square().sum())


@pytest.mark.parametrize("spread", [1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_inertia_is_scikit_learns(spread, seed):
    """Overlapping blobs have many local optima: ten starts each may end in other ones, but near the same height."""
    x, _ = blobs(spread=spread, seed=seed)
    ours = kmeans(x, 5, (seed, 0))
    theirs = Oracle(5, n_init=10, random_state=seed).fit(x.numpy())
    bar = 1e-4 if spread == 1.0 else 0.01
    assert ours.inertia <= theirs.inertia_ * (1 + bar)
    assert ours.inertia == pytest.approx(inertia(x, ours.labels, ours.centres), rel=1e-4)


@pytest.mark.parametrize(("offset", "bar"), [(100.0, 1e-3), (1000.0, 0.05)])
def test_features_far_from_zero(offset, bar):
    """A feature table is not centred: float32 distances lose digits to the squares of the offset, labels do not."""
    x, y = blobs(spread=1.0)
    clustering = kmeans(x + offset, 5, (0, 0))
    assert adjusted_rand_score(y, clustering.labels.numpy()) == 1.0
    assert clustering.inertia == pytest.approx(kmeans(x, 5, (0, 0)).inertia, rel=bar)


def test_the_result_is_a_fixed_point_of_lloyd():
    x, _ = blobs(spread=4.0, dtype=torch.float64)
    clustering = kmeans(x, 6, (3, 0), tolerance=0.0)
    assert torch.equal(clustering.labels, squared_distances(x, clustering.centres).argmin(1))
    means = torch.stack([x[clustering.labels == c].mean(0) for c in range(6)])
    assert torch.allclose(means, clustering.centres, rtol=0, atol=1e-12)


def test_spherical_ignores_length_and_keeps_centres_of_unit_length():
    x, y = blobs(spread=0.5)
    stretched = x * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0)).add(0.1) * 50
    plain, long = kmeans(x, 5, (0, 0), spherical=True), kmeans(stretched, 5, (0, 0), spherical=True)
    assert adjusted_rand_score(y, long.labels.numpy()) > 0.99
    assert adjusted_rand_score(plain.labels.numpy(), long.labels.numpy()) > 0.99
    assert torch.allclose(long.centres.norm(dim=1), torch.ones(5), atol=1e-6)
    assert torch.equal(long.labels, (normalize(stretched) @ long.centres.T).argmax(1))
    assert long.inertia == pytest.approx(inertia(normalize(stretched), long.labels, long.centres), rel=1e-4)


def released_reference(x, k, sets):
    """The released rule in plain loops: the set nearest to all rows in sum, then Lloyd once until the centres rest."""
    totals = [sum(float(((row - x[i]) ** 2).sum()) for row in x for i in s) for s in sets]
    centres = x[sets[int(np.argmin(totals))]]
    for _ in range(500):
        labels = ((x[:, None] - centres) ** 2).sum(2).argmin(1)
        moved = np.stack([x[labels == c].mean(0) for c in range(k)])
        rest = np.sqrt(((moved - centres) ** 2).sum(1)).sum() ** 2 < 1e-4
        if rest:
            break
        centres = moved
    return labels


def test_released_start_follows_the_released_rule():
    from ops.rng import generator

    x, _ = blobs(n=60, k=3, d=4, spread=3.0, dtype=torch.float64)
    rng = generator(5, "kmeans-released", 7)
    sets = [rng.choice(60, 3, replace=False) for _ in range(20)]
    clustering = kmeans(x, 3, (5, 7), init="released")
    assert np.array_equal(clustering.labels.numpy(), released_reference(x.numpy(), 3, sets))


@pytest.mark.parametrize("init", ["k-means++", "released"])
@pytest.mark.parametrize("spherical", [False, True])
def test_a_seed_gives_the_same_bits_and_another_seed_other_draws(init, spherical):
    x, _ = blobs(spread=5.0)
    first, again = (kmeans(x, 8, (1, 2), init=init, spherical=spherical, starts=1) for _ in range(2))
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.centres, again.centres)
    assert first.inertia == again.inertia
    others = [kmeans(x, 8, key, init=init, spherical=spherical, starts=1).inertia for key in ((2, 2), (1, 3), (7, 7))]
    assert any(o != first.inertia for o in others)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_starts_on_a_sample_end_at_scikit_learns_inertia(spread):
    x, _ = blobs(n=6000, k=8, d=10, spread=spread)
    theirs = Oracle(8, n_init=10, random_state=0).fit(x.numpy())
    ours = kmeans(x, 8, (0, 0), start_rows=START_ROWS)
    assert ours.inertia <= theirs.inertia_ * 1.01
    assert ours.inertia == pytest.approx(inertia(x, ours.labels, ours.centres), rel=1e-4)
    assert ours.sizes.tolist() == np.bincount(ours.labels, minlength=8).tolist()


def test_one_round_from_given_centres_is_scikit_learns():
    x, _ = blobs(n=6000, k=8, d=10, spread=4.0)
    first = x[:8].clone()
    ours = kmeans(x, 8, (0, 0), first=first, max_iterations=2, tolerance=0.0)
    with catch_warnings():
        simplefilter("ignore")  # it says that one round is not enough
        theirs = Oracle(8, init=first.numpy(), n_init=1, max_iter=1, tol=0.0).fit(x.numpy())
    assert torch.allclose(ours.centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-4)
    assert ours.iterations == 2


def test_the_sample_is_keyed_without_repeats_and_all_rows_when_asked_for_more():
    x = torch.arange(500.0)[:, None]
    points = prepare(x, Shard.even(500, ProcessGroup()), ProcessGroup())
    drawn, again, other = (sample(points, 40, seed, "x")[:, 0] for seed in ((0,), (0,), (1,)))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert len(drawn.unique()) == 40
    assert torch.equal(drawn.sort().values, drawn)
    assert torch.equal(sample(points, 501, (0,), "x"), points.read(slice(None)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_mapped_file_of_any_numbers_is_read_by_blocks(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr("ops.clustering.lloyd.CHUNK_VALUES", 100)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 200)
    x = np.clip(np.array([30, 120, 220])[labels][:, None] + rng.normal(0, 8, (200, 7)), 0, 255).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    ours = kmeans(mapped, 3, (0, 0), start_rows=64)
    assert adjusted_rand_score(ours.labels.numpy(), labels) == 1.0
    whole = kmeans(torch.from_numpy(x.astype(np.float32)), 3, (0, 0), start_rows=64)
    assert torch.equal(ours.labels, whole.labels)
    assert torch.equal(ours.centres, whole.centres)


def test_a_start_that_empties_a_cluster_recovers(monkeypatch):
    """Two centres in two of three blobs and one far from all rows: Lloyd alone would leave it empty for ever."""
    x, y = blobs(n=120, k=3, spread=0.3)
    first = [x[int(np.flatnonzero(y == c)[0])] for c in (0, 1)]
    monkeypatch.setattr(module, "_plus_plus", lambda *_: torch.stack([*first, x[0] + 1e4])[None] - x.mean(0))
    clustering = kmeans(x, 3, (0, 0))
    assert clustering.labels.unique().tolist() == [0, 1, 2]
    assert adjusted_rand_score(y, clustering.labels.numpy()) == 1.0


def test_ties_go_to_the_lowest_cluster():
    """Fewer distinct rows than clusters: centres coincide, and every run must name the same of them."""
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(4, 1)
    clustering = kmeans(x, 4, (0, 0))
    assert clustering.inertia == 0
    distances = squared_distances(x, clustering.centres)
    assert clustering.labels.tolist() == [int(np.flatnonzero(row == row.min())[0]) for row in distances.numpy()]
    same = kmeans(torch.ones(6, 3), 3, (0, 0))
    assert (same.labels.tolist(), same.inertia) == ([0] * 6, 0.0)


@pytest.mark.parametrize("k", [0, -1, 6])
def test_k_outside_one_to_n_is_refused(k):
    with pytest.raises(ValueError, match=f"n_clusters={k} must be between 1 and n_samples=5"):
        kmeans(torch.ones(5, 2), k, (0, 0))


@given(n=st.integers(1, 12), k=st.integers(1, 6), d=st.integers(1, 5), seed=st.integers(0, 99), shift=st.floats(0, 50))
def test_squared_distances_by_hand(n, k, d, seed, shift):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, dtype=torch.float64, generator=g) + shift
    centres = torch.cat([torch.randn(k, d, dtype=torch.float64, generator=g), x[:1]])
    clustering = squared_distances(x, centres)
    assert torch.allclose(clustering, (x[:, None] - centres).square().sum(2), atol=1e-9)
    assert clustering.min() >= 0  # rounding below zero would become NaN under a square root


@given(n=st.integers(2, 40), d=st.integers(1, 4), seed=st.integers(0, 999), share=st.floats(0, 1))
def test_any_result_is_consistent(n, d, seed, share):
    x = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    k = 1 + int(share * (n - 1))
    clustering = kmeans(x, k, (seed,), starts=3)
    assert clustering.centres.shape == (k, d)
    assert len(clustering.labels.unique()) == k  # distinct rows: no cluster stays empty
    assert torch.equal(clustering.labels, squared_distances(x, clustering.centres).argmin(1))
    assert clustering.inertia == pytest.approx(inertia(x, clustering.labels, clustering.centres), abs=1e-9)
    assert clustering.inertia <= float((x - x.mean(0)).square().sum()) + 1e-9
