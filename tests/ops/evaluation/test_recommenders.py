"""Item models against their definitions, and against popularity where users have tastes."""

import numpy as np
import pytest
import scipy.sparse as sp

from ops.evaluation.recall import make_task, popularity, scored_row
from ops.evaluation.recommenders import applies, ease, factors, inside, item_knn, least_squares, models, rows, rp3beta


@pytest.fixture
def train():
    return sp.csr_array((np.random.default_rng(0).random((40, 12)) < 0.3).astype(np.float64))


def test_ease_is_the_least_squares_solution_without_a_diagonal(train):
    x = train.toarray()
    weights = ease((x.T @ x).astype(np.float32), 3.0)
    for note in range(12):  # each column by itself: note regressed on all others
        others = np.delete(np.arange(12), note)
        a = x[:, others]
        expected = np.linalg.solve(a.T @ a + 3.0 * np.eye(11), a.T @ x[:, note])
        assert np.allclose(weights[others, note], expected, atol=1e-4)
        assert weights[note, note] == 0


def test_similarities_by_their_definition(train):
    x = train.toarray()
    counts = (x.T @ x).astype(np.float32)
    cosines, walk = item_knn(counts, 2.0), rp3beta(train, 0.5)
    for a, b in ((0, 1), (3, 7), (7, 3)):
        assert cosines[a, b] == pytest.approx(counts[a, b] / (np.sqrt(counts[a, a] * counts[b, b]) + 2.0), rel=1e-5)
        steps = sum(x[u, a] / x[:, a].sum() * x[u, b] / x[u].sum() for u in range(40) if x[u, a])
        assert walk[a, b] == pytest.approx(steps / x[:, b].sum() ** 0.5, rel=1e-5)


def test_factors_are_the_leading_singular_vectors(train):
    v = factors((train.T @ train).toarray().astype(np.float32), 3)
    right = np.linalg.svd(train.toarray())[2][:3].T
    assert np.allclose(np.abs((v * right).sum(0)), 1, atol=1e-4)


def test_least_squares_of_all_pairs(train):
    x, rng = train.toarray(), np.random.default_rng(3)
    q, weight, ridge = rng.normal(size=(12, 4)).astype(np.float32), 0.2, 0.05
    for row, given in zip(x, least_squares(train, q, weight, ridge), strict=True):  # as one regression of stacked rows
        liked = q[row > 0]
        size = ridge * (len(liked) + weight * 12)
        left = np.concatenate([liked, np.sqrt(weight) * q, np.sqrt(size) * np.eye(4)])
        right = np.concatenate([np.ones(len(liked)), np.zeros(16)])
        assert np.allclose(given, np.linalg.lstsq(left, right, rcond=None)[0], atol=1e-4)


def test_users_with_tastes_are_served_better_than_by_popularity():
    rng = np.random.default_rng(1)
    group = np.arange(200) % 4
    liked = rng.random((200, 80)) < np.where(np.arange(80) % 4 == group[:, None], 0.5, 0.05)
    train = sp.csr_array((liked & (rng.random(liked.shape) < 0.6)).astype(np.float64))
    hidden = liked & (train.toarray() == 0)
    popular = np.tile(train.sum(axis=0), (200, 1))
    seen = train.toarray() > 0

    def recall(scores):
        first = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :10]
        return float(np.take_along_axis(hidden, first, 1).sum() / hidden.sum())

    assert applies(train.shape[1])
    for model in models(train):
        assert recall(model.scores(train)) > recall(popular) + 0.05, (model.name, model.knob)
    assert not applies(100_000)


def test_the_rows_of_a_task_keep_what_a_user_has_seen_out_and_say_their_knob():
    rng = np.random.default_rng(2)
    group = np.arange(120) % 3
    liked = rng.random((120, 150)) < np.where(np.arange(150) % 3 == group[:, None], 0.4, 0.02)
    draws = rng.random(liked.shape)
    train = sp.csr_array((liked & (draws < 0.6)).astype(np.float64))
    task, check = (make_task(train, np.nonzero(liked & (low <= draws) & (draws < low + 0.2))) for low in (0.8, 0.6))
    listed, with_users = rows(task, check)
    every = {row.name: row for row in listed}
    assert list(every) == ["user-kNN, tuned", "EASE", "item-kNN", "RP3beta", "PureSVD", "iALS"]
    for row in every.values():
        assert row.metrics["recall@50"] > popularity(task).metrics["recall@50"] + 0.2
        assert row.note.endswith("chosen on validation pairs")
    for model, title in zip(with_users, ("PureSVD users, hgt's clusters", "iALS users, hgt's clusters"), strict=True):
        row = inside(task, model, group, "hgt's")
        assert row.name == title
        assert row.metrics["recall@50"] > popularity(task).metrics["recall@50"] + 0.2
        assert row.metrics["scanned"] < 41
    hidden = np.nonzero(liked & (draws >= 0.8))
    seen = make_task(train, tuple(np.concatenate(both) for both in zip(train.nonzero(), hidden, strict=True)))
    model = next(models(train))
    again, first = (scored_row(t, lambda users: model.scores(train[users]), "") for t in (seen, task))
    assert again.metrics == first.metrics, "training notes are neither listed nor asked for"
