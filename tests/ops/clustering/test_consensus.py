"""Many clusterings, what they have in common, and how far they agree."""

import numpy as np
import pytest
import torch
from gloo import run_in_processes

from ops.clustering.consensus import consensus, draws
from ops.clustering.kmeans import kmeans
from ops.clustering.owners import Owners
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.labelled import scores


def blobs():
    """Seven groups, unevenly large, of which single draws often miss one, and twenty rows between the first two."""
    draws = np.random.default_rng(0)
    sizes = [60, 60, 40, 40, 20, 20, 10]
    centres = 6 * draws.standard_normal((7, 3))
    rows = np.repeat(centres, sizes, axis=0) + draws.standard_normal((250, 3)) * 0.5
    between = (centres[0] + centres[1]) / 2 + draws.standard_normal((20, 3)) * 0.5
    return torch.from_numpy(np.concatenate([rows, between]).astype(np.float32)), np.repeat(np.arange(7), sizes)


def of_draws(z, k, seed, count):
    owners = Owners.alone(len(z))
    return consensus(draws(z, k, (seed, 0), count, owners), k, (seed, 0), owners)


@pytest.mark.slow
def test_the_consensus_is_steadier_than_its_draws():
    z, truth = blobs()
    single = [scores(truth, kmeans(z, 7, (0, draw), starts=1).labels.numpy()[:250])["acc"] for draw in range(33)]
    assert min(single) < 0.9
    for seed in range(3):
        labels, agreement = of_draws(z, 7, seed, 33)
        assert scores(truth, labels[:250])["acc"] >= np.mean(single)
        assert labels.dtype == np.int64
        assert agreement.shape == (270,)
        assert 0 <= agreement.min() <= agreement.max() <= 1
    again, _ = of_draws(z, 7, 2, 33)
    assert np.array_equal(labels, again)


def test_draws_that_agree_give_an_agreement_of_one():
    z = torch.cat([torch.zeros(5, 2), torch.full((5, 2), 9.0)]) + torch.rand(10, 2, generator=torch.manual_seed(0))
    labels, agreement = of_draws(z, 2, 0, 5)
    assert scores(np.repeat([0, 1], 5), labels)["acc"] == 1.0
    assert (agreement == 1).all()
    assert of_draws(z, 1, 0, 3)[1].min() == 1


def test_a_single_clustering_is_its_own_consensus():
    labels = np.random.default_rng(0).integers(0, 4, 50)
    found, agreement = consensus(labels[:, None], 4, (0,), Owners.alone(50))
    assert scores(labels, found)["acc"] == 1.0
    assert (agreement == 1).all()


def test_what_it_finds_is_what_the_dense_matrix_of_shared_clusters_says(monkeypatch):
    z, _ = blobs()
    each = draws(z, 7, (0, 0), 9, Owners.alone(270))
    sizes = np.stack([np.bincount(clusters)[clusters] for clusters in each.T], 1)
    together = ((each[:, None] == each[None]) / sizes).sum(2)
    values, vectors = np.linalg.eigh(together)
    dense = kmeans(torch.from_numpy(vectors[:, -7:] * values[-7:] ** 0.5), 7, (0, 9)).labels
    found = consensus(each, 7, (0,), Owners.alone(270))
    assert scores(dense.numpy(), found[0])["acc"] > 0.98
    monkeypatch.setattr("ops.clustering.consensus.BLOCK_ROWS", 50)
    for one, several in zip(found, consensus(each, 7, (0,), Owners.alone(270)), strict=True):
        np.testing.assert_array_equal(one, several)


def on_a_worker(rank, world, offsets):
    z, _ = blobs()
    owners = Owners(offsets, ProcessGroup(rank, world))
    numbers = owners.shard.numbers()
    each = draws(z[numbers], 7, (0, 0), 11, owners)
    return numbers, *consensus(each, 7, (0,), owners)


@pytest.mark.slow
def test_two_workers_find_the_bits_of_one():
    offsets = np.array([0, 100, 130, 270])
    _, labels, agreement = on_a_worker(0, 1, offsets)
    for numbers, theirs, agreed in run_in_processes(2, on_a_worker, offsets):
        np.testing.assert_array_equal(theirs, labels[numbers])
        np.testing.assert_array_equal(agreed, agreement[numbers])
