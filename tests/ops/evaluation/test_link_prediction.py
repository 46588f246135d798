"""Link prediction scores against scikit-learn and plain loops."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from ops.evaluation import link_prediction as module
from ops.evaluation.link_prediction import link_scores

U, N = 20, 15


def world(seed=0):
    rng = np.random.default_rng(seed)
    table = rng.random((U, N)) < 0.4
    table[0] = np.arange(N) != 4  # one note left
    table[1] = False
    return sp.csr_array(table.astype(float)), table


def negatives(users, edges, count, seed, position=0):
    """What `link_scores` draws for users [P]: notes [P count]."""
    free = (edges.shape[1] - np.diff(edges.indptr)[users]).astype(np.int64)
    return module._free_notes(edges, users, module._draws(users, free, count, edges.shape[1], seed, position))


def test_negatives_are_no_edges_all_of_them_and_even():
    interactions, table = world()
    users = np.arange(U).repeat(3)
    drawn = negatives(users, interactions, 400, 0)
    for user, row in zip(users, drawn, strict=True):
        free = np.flatnonzero(~table[user])
        counts = np.bincount(row, minlength=N)
        assert counts[table[user]].sum() == 0
        assert (counts[free] > 0).all()
        expected = 400 / len(free)
        assert np.abs(counts[free] - expected).max() < 5 * np.sqrt(expected) + 1
    assert set(negatives(np.array([0]), interactions, 50, 0)[0]) == {4}


def test_negatives_are_keyed():
    interactions, _ = world()
    users = np.arange(5)
    keys = ((0, 0), (0, 0), (1, 0), (0, 1))
    first, again, seed, position = (negatives(users, interactions, 20, *key) for key in keys)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, seed)
    assert not np.array_equal(first, position)


@pytest.mark.parametrize("chunk", [1 << 20, 30])
@pytest.mark.parametrize("digits", [1, 8])
def test_scores_by_hand(chunk, digits, monkeypatch):
    """Rounded to one digit many scores are equal."""
    monkeypatch.setattr(module, "CHUNK_PAIRS", chunk)
    interactions, table = world()
    points = np.random.default_rng(1).normal(size=(U + N, 3))
    seen = []

    def score(users, notes):
        scored = np.round((points[users] * points[U + notes]).sum(1), digits) + 0.5 * table[users, notes]
        seen.append(scored)
        return scored

    users, notes = (a[:40] for a in np.nonzero(table))
    result = link_scores((users, notes), interactions, score, seed=3, count=10)
    local, others = np.concatenate(seen[::2]), np.concatenate(seen[1::2]).reshape(40, 10)
    truth = np.concatenate([np.ones(40), np.zeros(400)])
    assert result["auc"] == pytest.approx(roc_auc_score(truth, np.concatenate([local, others.ravel()])))
    ranks = [1 + sum(o > s for o in row) + sum(o == s for o in row) / 2 for s, row in zip(local, others, strict=True)]
    assert result["mrr"] == pytest.approx(np.mean([1 / r for r in ranks]))
    for k in (1, 10):
        assert result[f"hits@{k}"] == pytest.approx(np.mean([r <= k for r in ranks]))


def test_what_cannot_be_scored_is_refused():
    interactions, table = world()
    full = sp.csr_array(np.ones((2, 3)))
    with pytest.raises(ValueError, match="user 1 has an edge to each of the 3 notes"):
        negatives(np.array([1]), full, 2, 0)
    with pytest.raises(ValueError, match="no hidden edges"):
        link_scores((np.zeros(0, np.int64), np.zeros(0, np.int64)), interactions, lambda u, v: np.zeros(len(u)))
    with pytest.raises(ValueError, match="not finite"):
        link_scores(np.nonzero(table), interactions, lambda u, v: np.full(len(u), np.nan))
