"""Many draws of k-means, what they have in common, and how far they agree."""

import numpy as np
import pytest
import torch

from ops.clustering.consensus import consensus
from ops.clustering.kmeans import kmeans
from ops.evaluation.labelled import scores


def blobs():
    """Seven groups, unevenly large, of which single draws often miss one, and twenty rows between the first two."""
    draws = np.random.default_rng(0)
    sizes = [60, 60, 40, 40, 20, 20, 10]
    centres = 6 * draws.standard_normal((7, 3))
    rows = np.repeat(centres, sizes, axis=0) + draws.standard_normal((250, 3)) * 0.5
    between = (centres[0] + centres[1]) / 2 + draws.standard_normal((20, 3)) * 0.5
    return torch.from_numpy(np.concatenate([rows, between]).astype(np.float32)), np.repeat(np.arange(7), sizes)


@pytest.mark.slow
def test_the_consensus_is_steadier_than_its_draws():
    z, truth = blobs()
    single = [scores(truth, kmeans(z, 7, (0, draw), starts=1).labels.numpy()[:250])["acc"] for draw in range(33)]
    assert min(single) < 0.9
    for seed in range(3):
        labels, agreement = consensus(z, 7, (seed, 0))
        assert scores(truth, labels[:250])["acc"] >= np.mean(single)
        assert labels.dtype == np.int64
        assert agreement.shape == (270,)
        assert 0 <= agreement.min() <= agreement.max() <= 1
    again, _ = consensus(z, 7, (2, 0))
    assert np.array_equal(labels, again)


def test_draws_that_agree_give_an_agreement_of_one():
    z = torch.cat([torch.zeros(5, 2), torch.full((5, 2), 9.0)]) + torch.rand(10, 2, generator=torch.manual_seed(0))
    labels, agreement = consensus(z, 2, (0, 0), draws=5)
    assert scores(np.repeat([0, 1], 5), labels)["acc"] == 1.0
    assert (agreement == 1).all()
    assert consensus(z, 1, (0, 0), draws=3)[1].min() == 1
