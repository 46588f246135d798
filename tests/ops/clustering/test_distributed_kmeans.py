"""k-means over workers against scikit-learn and against the project's k-means of one process."""

from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Oracle
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score
from torch.nn.functional import normalize

from ops.clustering.distributed_kmeans import sample, team_kmeans
from ops.clustering.kmeans import squared_distances
from ops.clustering.lloyd import Rows
from ops.distributed.process_group import Team


def blobs(n=6000, k=8, d=10, spread=1.0, seed=0, dtype=torch.float32):
    x, y = make_blobs(n, d, centers=k, cluster_std=spread, random_state=seed)
    return torch.from_numpy(x).to(dtype), y


def clustered(x, k, seed=(0, 0), **more):
    return team_kmeans(x, Rows.share(len(x), Team()), k, seed, **more)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_inertia_is_scikit_learns(spread):
    """More rows than the sample of the starts holds."""
    x, _ = blobs(spread=spread)
    theirs = Oracle(8, n_init=10, random_state=0).fit(x.numpy())
    ours = clustered(x, 8)
    assert ours.inertia <= theirs.inertia_ * 1.01
    by_hand = (x.double() - ours.centres.double()[ours.labels]).square().sum()
    assert ours.inertia == pytest.approx(float(by_hand), rel=1e-4)
    assert ours.sizes.tolist() == np.bincount(ours.labels, minlength=8).tolist()


def test_separated_blobs_are_found_to_the_row():
    x, y = blobs(spread=0.5)
    found = clustered(x + 100, 8)
    assert adjusted_rand_score(y, found.labels.numpy()) == 1.0
    distance = (x + 100 - found.centres[:, None]).norm(dim=2).sort(0).values
    assert torch.allclose(found.confidence, 1 - distance[0] / distance[1], atol=2e-3)
    assert found.confidence.min() > 0.5


def test_the_result_is_a_fixed_point_of_lloyd():
    x, _ = blobs(spread=4.0, dtype=torch.float64, n=500)
    found = clustered(x, 6, tolerance=0.0, max_iterations=300)
    assert torch.equal(found.labels, squared_distances(x, found.centres).argmin(1))
    expected = torch.stack([x[found.labels == c].mean(0) for c in range(6)])
    assert torch.allclose(expected, found.centres, rtol=0, atol=1e-10)


def test_one_round_from_given_centres_is_scikit_learns():
    x, _ = blobs(spread=4.0)
    first = x[:8].clone()
    found = clustered(x, 8, first=first, max_iterations=2, tolerance=0.0)
    with catch_warnings():
        simplefilter("ignore")  # it says that one round is not enough
        theirs = Oracle(8, init=first.numpy(), n_init=1, max_iter=1, tol=0.0).fit(x.numpy())
    assert torch.allclose(found.centres, torch.from_numpy(theirs.cluster_centers_), atol=1e-4)
    assert found.iterations == 2


def test_spherical_ignores_length():
    x, y = blobs(spread=0.5)
    stretched = x * torch.rand(len(x), 1, generator=torch.Generator().manual_seed(0)).add(0.1) * 50
    found = clustered(stretched, 8, spherical=True)
    assert adjusted_rand_score(y, found.labels.numpy()) > 0.99
    assert torch.allclose(found.centres.norm(dim=1), torch.ones(8), atol=1e-6)
    assert (found.labels == (normalize(stretched) @ found.centres.T).argmax(1)).float().mean() > 0.999


def test_a_seed_gives_the_same_bits_and_another_seed_other_draws():
    x, _ = blobs(spread=5.0)
    runs = [clustered(x, 8, seed, starts=1, max_iterations=3).inertia for seed in ((1, 2), (1, 2), (2, 2), (1, 3))]
    assert runs[0] == runs[1]
    assert len(set(runs)) > 1


def test_the_sample_is_keyed_without_repeats_and_all_rows_when_asked_for_more():
    from ops.clustering.lloyd import prepare

    x = torch.arange(500.0)[:, None]
    points = prepare(x, Rows.share(500, Team()), Team())
    drawn, again, other = (sample(points, 40, seed, "x")[:, 0] for seed in ((0,), (0,), (1,)))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert len(drawn.unique()) == 40
    assert torch.equal(drawn.sort().values, drawn)
    assert torch.equal(sample(points, 501, (0,), "x"), points.z)


def test_fewer_distinct_rows_than_clusters_and_one_cluster():
    same = clustered(torch.ones(6, 3), 3)
    assert (same.labels.tolist(), same.inertia) == ([0] * 6, 0.0)
    one = clustered(torch.randn(40, 3), 1)
    assert one.confidence.tolist() == [1.0] * 40


@pytest.mark.parametrize("k", [0, 6])
def test_k_outside_one_to_n_is_refused(k):
    with pytest.raises(ValueError, match=f"n_clusters={k} must be between 1 and n_samples=5"):
        clustered(torch.ones(5, 2), k)
