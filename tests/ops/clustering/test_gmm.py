"""The Gaussian mixture against scikit-learn's with the same start; parts that lose their rows; densities."""

from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from test_kmeans import blobs

from ops.clustering.gmm import Mixture, fit_gmm, log_densities, responsibilities
from ops.clustering.kmeans import kmeans
from ops.clustering.shards import Shard
from ops.distributed.process_group import ProcessGroup


def mixture(x, start, **more):
    return fit_gmm(x, Shard.even(len(x), ProcessGroup()), start, **more)


def test_it_is_scikit_learns_from_the_same_start():
    x, _ = blobs(n=900, k=3, d=4, spread=3.0)
    x[:, 1] *= 4
    start = kmeans(x, 3, (0, 0))
    first = mixture(x, start, rounds=0)
    ours = mixture(x, start, rounds=12, tolerance=-np.inf)
    with catch_warnings():
        simplefilter("ignore")  # it says that it has not converged
        theirs = GaussianMixture(
            3, covariance_type="diag", max_iter=12, tol=0.0, means_init=first.means.numpy(),
            weights_init=first.weights.numpy(), precisions_init=(1 / first.variances).numpy(),
        ).fit(x.numpy())  # fmt: skip
    assert np.allclose(ours.means, theirs.means_, rtol=1e-3, atol=1e-3)
    assert np.allclose(ours.variances, theirs.covariances_, rtol=1e-3)
    assert np.allclose(ours.weights, theirs.weights_, atol=1e-4)
    assert np.allclose(responsibilities(x, ours), theirs.predict_proba(x.numpy()), atol=1e-3)


def test_it_ends_when_the_likelihood_stands():
    x, y = blobs(n=600, k=4, spread=0.5)
    start = kmeans(x, 4, (0, 0))
    result = mixture(x, start)
    likelihood = [float(log_densities(x, m).logsumexp(1).mean()) for m in (mixture(x, start, rounds=0), result)]
    assert likelihood[1] >= likelihood[0]
    labels = responsibilities(x, result).argmax(1)
    assert len(set(zip(labels.tolist(), y.tolist(), strict=True))) == 4
    assert torch.allclose(result.weights.sum(), torch.tensor(1.0))


def test_a_part_without_rows_keeps_its_place():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    start = kmeans(torch.cat([x, x[:1] + 100]), 2, (0, 0))
    far = int(start.labels[-1])
    kept = type(start)(start.labels[:-1], start.confidence[:-1], start.centres, 0.0, start.sizes, 1)
    result = mixture(x, kept, rounds=3)
    assert torch.isfinite(torch.cat([result.means, result.variances])).all()
    assert result.weights[far] == 0
    assert (responsibilities(x, result).argmax(1) != far).all()


def test_densities_far_from_the_origin_keep_their_digits():
    m = Mixture(torch.full((1, 200), 1e3), torch.full((1, 200), 1e-4), torch.ones(1))
    x = torch.full((1, 200), 1e3) + 0.01
    normal = torch.distributions.Normal(1e3, 1e-2)
    with catch_warnings():
        expected = normal.log_prob(x.double()).sum()
    assert float(log_densities(x, m)) == pytest.approx(float(expected), rel=1e-4)
