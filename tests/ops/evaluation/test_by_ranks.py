"""What workers score together of users that each has some parts of is what one process scores of all, to the bit."""

import numpy as np
import pytest
import scipy.sparse as sp
from gloo import run_in_processes

from ops.clustering.owners import Owners
from ops.distributed.process_group import ProcessGroup
from ops.evaluation import boost, link_prediction, recall
from ops.evaluation import unlabelled as module
from ops.evaluation.labelled import evaluator
from ops.evaluation.unlabelled import feature_indices, projection_modularity, size_indices

U, N, K = 90, 70, 4
OFFSETS = np.array([0, 25, 25, 60, 90])  # of four parts; one has no users


def world():
    rng = np.random.default_rng(0)
    group = rng.integers(K, size=U)
    likes = rng.random((U, N)) < np.where(group[:, None] == np.arange(N) % K, 0.3, 0.03)
    slices = rng.integers(5, size=likes.shape)  # 0: validation, 1: test, else training
    z = (np.eye(K)[group] + 0.4 * rng.normal(size=(U, K))).astype(np.float32)
    labels = np.where(rng.random(U) < 0.1, -1, group)
    return (
        likes & (slices > 1),
        [likes & (slices == i) for i in (0, 1)],
        z,
        (group + rng.integers(2, size=U)) % K,
        labels,
    )


def scored(rank, size):
    """All scores by name, of small samples and blocks; those of rank 0 are the run's."""
    with pytest.MonkeyPatch.context() as patch:  # one rank of none computes in the tests' own process
        patch.setattr(module, "SAMPLE_ABOVE", 40)
        patch.setattr(recall, "BLOCK", 7)
        patch.setattr(link_prediction, "CHUNK_PAIRS", 3000)
        return all_scores(rank, size)


def all_scores(rank, size):
    train, hidden, z, clusters, labels = world()
    owners = Owners(OFFSETS, ProcessGroup(rank, size))
    own = owners.shard.numbers()
    table, z, clusters = sp.csr_array(train[own].astype(float)), z[own], clusters[own]
    check, task = (recall.make_task(table, np.nonzero(h[own]), max_queries=30, owners=owners) for h in hidden)
    rows = [recall.popularity(task), recall.user_knn(task, 9), recall.u2u2i(task, z, clusters, "ours", 9),
            recall.random_clusters(task, z, K, "random"),
            *boost.boosted(task, check, lambda t: recall.near(t, z, None, 9), clusters, "all")]  # fmt: skip
    points = np.random.default_rng(1).normal(size=(N, K))
    links = link_prediction.link_scores(
        np.nonzero(hidden[1]), sp.csr_array((train | hidden[0] | hidden[1])[own].astype(float)),
        lambda u, n: np.einsum("md,md->m", z[u], points[n]), owners=owners,
    )  # fmt: skip
    found = links | {f"{i} {name}": value for i, row in enumerate(rows) for name, value in row.metrics.items()}
    found["recalls"] = [row.recalls.tolist() for row in rows]
    found |= feature_indices(z, clusters, owners=owners) | size_indices(clusters, K + 1, owners)
    found["modularity"] = projection_modularity(table, clusters, owners)
    return found | evaluator(labels[own], owners.group)(clusters) | {"boost": rows[-1].note, "users": task.users}


@pytest.mark.slow
def test_three_workers_score_what_one_does():
    alone = scored(0, 1)
    assert alone["2 recall@50"] > alone["3 recall@50"] > 0
    assert run_in_processes(3, scored)[0] == alone
