"""The recall table against plain loops over users and notes."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from ops.errors import DataError
from ops.evaluation import neighbors as search
from ops.evaluation import recall as module
from ops.evaluation.boost import BOOSTS, boosted
from ops.evaluation.neighbors import best, nearest_inside, nearest_raw
from ops.evaluation.recall import (
    KS,
    list_metrics,
    lists_of,
    make_task,
    near,
    popularity,
    random_clusters,
    similar_row,
    u2u2i,
    user_knn,
)

U, N = 60, 130


def world(seed=0, users=U, notes=N, each=6, hidden=150):
    rng = np.random.default_rng(seed)
    table = (rng.random((users, notes)) < each / notes) * rng.random((users, notes))
    table[-3:] = 0  # users without training notes
    train = sp.csr_array(table)
    pairs = (rng.integers(users, size=hidden), rng.integers(notes, size=hidden))
    z = rng.normal(size=(users, 5))
    return train, pairs, z, rng.integers(4, size=users)


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def brute(train, pairs, n, similarity, same, boost=None):
    """{user: its ranking of all notes} by the definition, one user and one note at a time."""
    touched = {u: set(train[[u]].nonzero()[1].tolist()) for u in range(U)}
    wanted = {u: {int(b) for a, b in zip(*pairs, strict=True) if a == u} - touched[u] for u in range(U)}
    ranking = {}
    for u in (u for u in range(U) if wanted[u] and touched[u]):
        others = [(similarity(u, v), -v) for v in range(U) if v != u and touched[v] and same(u, v)]
        scores = dict.fromkeys(range(N), 0.0)
        for weight, v in sorted(others, reverse=True)[:n]:
            for note in touched[-v]:
                scores[note] += weight
        for note in scores:
            scores[note] = round(scores[note] * (boost(u, note) if boost else 1), 10)
        ranking[u] = sorted((note for note in scores if note not in touched[u]), key=lambda i: (-scores[i], i))
    return ranking, {u: wanted[u] for u in ranking}


def brute_metrics(ranking, wanted):
    result = {}
    for k in KS:
        hits = {u: [note in wanted[u] for note in ranking[u][:k]] for u in ranking}
        ideal = {u: sum(1 / math.log2(j + 2) for j in range(min(k, len(wanted[u])))) for u in ranking}
        gain = {u: sum(h / math.log2(j + 2) for j, h in enumerate(hits[u])) / ideal[u] for u in ranking}
        result[f"recall@{k}"] = np.mean([sum(hits[u]) / len(wanted[u]) for u in ranking])
        result[f"ndcg@{k}"] = np.mean(list(gain.values()))
        result[f"hit_rate@{k}"] = np.mean([any(hits[u]) for u in ranking])
    shown = np.bincount([i for u in ranking for i in ranking[u][:50]], minlength=N)
    result["coverage"] = np.mean(shown > 0)
    result["gini"] = np.abs(shown[:, None] - shown).sum() / (2 * N * shown.sum())
    return result


def checked(task, lists, row, ranking, wanted):
    assert task.queries.tolist() == list(ranking)
    for listed, user in zip(lists, task.queries, strict=True):
        assert listed[listed >= 0].tolist() == ranking[int(user)][:100]
    for name, value in brute_metrics(ranking, wanted).items():
        assert row.metrics[name] == pytest.approx(value), name


@pytest.mark.parametrize("n", [3, 50])
@pytest.mark.parametrize("clustered", [True, False])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_u2u2i_by_hand(n, clustered, chunk, monkeypatch):
    monkeypatch.setattr(search, "CHUNK_VALUES", chunk)
    monkeypatch.setattr(module, "BLOCK", 7)
    train, pairs, z, clusters = world()
    task = make_task(train, pairs)
    groups = clusters if clustered else None
    same = (lambda u, v: clusters[u] == clusters[v]) if clustered else (lambda u, v: True)
    ranking, wanted = brute(train, pairs, n, lambda u, v: cosine(z[u], z[v]), same)
    row = u2u2i(task, z, groups, "x", n)
    checked(task, lists_of(task, near(task, z, groups, n)), row, ranking, wanted)
    active = [u for u in range(U) if train[[u]].nnz]
    assert row.metrics["scanned"] == np.mean([sum(same(u, v) for v in active) - 1 for u in ranking])
    assert min(row.metrics[f"recall@{k}"] for k in KS) > 0


@pytest.mark.parametrize("products", [1, 1 << 23])
def test_user_knn_by_hand(products, monkeypatch):
    """Cosines of small integers: ties everywhere, also between the last neighbour and the next."""
    monkeypatch.setattr(search, "CHUNK_PRODUCTS", products)
    train, pairs, _, _ = world(1)
    rows = (train.toarray() > 0).astype(float)
    task = make_task(train, pairs)
    common = (rows @ rows.T) > 0

    def similarity(u, v):
        return rows[u] @ rows[v] / math.sqrt(rows[u].sum() * rows[v].sum())

    ranking, wanted = brute(train, pairs, 4, similarity, lambda u, v: common[u, v])
    row = user_knn(task, 4)
    checked(task, lists_of(task, nearest_raw(task.train, task.queries, 4)), row, ranking, wanted)
    assert row.metrics["scanned"] == np.mean([common[u].sum() - 1 for u in ranking])


def test_popularity_by_hand():
    train, pairs, _, _ = world(2)
    task = make_task(train, pairs)
    count = (train.toarray() > 0).sum(0)
    ranking, wanted = brute(train, pairs, 0, None, lambda u, v: False)
    ranking = {
        u: sorted((i for i in range(N) if train[u, i] == 0), key=lambda i: (-count[i], i)) for u in ranking
    }  # fmt: skip
    row = popularity(task)
    for name, value in brute_metrics(ranking, wanted).items():
        assert row.metrics[name] == pytest.approx(value), name


def test_boost_by_hand_and_chosen_on_validation_alone():
    train, pairs, z, clusters = world(3)
    slices = [tuple(p[s] for p in pairs) for s in (slice(0, 70), slice(70, None))]
    validation, task = (make_task(train, p) for p in slices)
    touched = [set(train[np.flatnonzero(clusters == c)].nonzero()[1].tolist()) for c in range(4)]

    def by(b):
        return lambda u, note: 1 + b if note in touched[clusters[u]] else 1.0

    def validated(b):
        lists = lists_of(validation, near(validation, z, None, 9), b, clusters)
        return np.mean(list_metrics(lists, validation)["recall@50"])

    plain, best = boosted(task, validation, lambda t: near(t, z, None, 9), clusters, "x")
    chosen = max(BOOSTS, key=validated)  # the smallest of equals
    assert best.note == f"b = {chosen:g}, chosen on validation pairs"
    for slice_, given, b in ((validation, slices[0], 1.0), (task, slices[1], chosen)):
        ranking, wanted = brute(train, given, 9, lambda u, v: cosine(z[u], z[v]), lambda u, v: True, by(b))
        lists = lists_of(slice_, near(slice_, z, None, 9), b, clusters)
        row = similar_row(slice_, near(slice_, z, None, 9), "x") if b == 0 else None
        recall = brute_metrics(ranking, wanted)["recall@50"]
        assert np.mean(list_metrics(lists, slice_)["recall@50"]) == pytest.approx(recall)
        assert row is None or row.metrics["recall@50"] == pytest.approx(recall)
    assert plain.metrics == similar_row(task, near(task, z, None, 9), "x").metrics
    assert (plain.name, best.name) == ("x", "x, boosted")
    _, others = boosted(make_task(train, slices[0]), validation, lambda t: near(t, z, None, 9), clusters, "x")
    assert others.note == best.note  # other test pairs, the same choice


def test_random_clusters_are_equal_keyed_and_worse():
    rng = np.random.default_rng(0)
    users, notes, k = 400, 200, 4
    group = rng.integers(k, size=users)
    likes = rng.random((users, notes)) < np.where(group[:, None] == np.arange(notes) % k, 0.2, 0.01)
    hidden = likes & (rng.random(likes.shape) < 0.3)
    task = make_task(sp.csr_array((likes & ~hidden).astype(float)), np.nonzero(hidden))
    z = np.eye(k)[group] + 0.3 * rng.normal(size=(users, k))
    ours, dealt, again, other = (
        u2u2i(task, z, group, "x"), *(random_clusters(task, z, 20, "r", seed) for seed in (0, 0, 1))
    )  # fmt: skip
    assert dealt == again != other
    assert dealt.metrics["scanned"] == pytest.approx(19)
    assert ours.metrics["recall@50"] > dealt.metrics["recall@50"] > popularity(task).metrics["recall@50"]


def test_the_task_counts_who_is_left_out_and_what_does_not_count():
    train = sp.csr_array(np.array([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]))
    pairs = (np.array([0, 0, 0, 1, 2]), np.array([2, 2, 1, 3, 0]))  # one twice, one known, one of a user without notes
    task = make_task(train, pairs)
    assert task.queries.tolist() == [0, 1]
    assert (task.users, task.left_out, task.hidden.nnz) == (2, 1, 3)
    assert task.hidden.toarray().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0]]


def test_queries_are_sampled_by_key():
    train, pairs, z, clusters = world()
    whole = make_task(train, pairs)
    parts = [make_task(train, pairs, seed, max_queries=10) for seed in (0, 0, 1)]
    assert parts[0].queries.tolist() == parts[1].queries.tolist() != parts[2].queries.tolist()
    assert set(parts[0].queries) < set(whole.queries)
    row = u2u2i(parts[0], z, clusters, "x")
    assert (len(row.recalls), parts[0].users) == (10, len(whole.queries))


def test_no_neighbour_gives_the_first_notes():
    train, pairs, z, _ = world()
    task = make_task(train, pairs)
    lists = lists_of(task, near(task, z, np.arange(U)))
    for listed, user in zip(lists, task.queries, strict=True):
        local = set(train[[user]].nonzero()[1].tolist())
        assert listed.tolist() == [i for i in range(N) if i not in local][:100]


def test_equal_embeddings_take_the_lowest_users():
    z = np.ones((30, 2))
    result = nearest_inside(z, None, np.array([2, 20]), np.ones(30, dtype=bool), 4)
    assert [result.weights[[i]].indices.tolist() for i in (0, 1)] == [[0, 1, 3, 4], [0, 1, 2, 3]]
    candidates = np.arange(30) % 2 == 1
    result = nearest_inside(z, None, np.array([2, 3]), candidates, 3)
    assert [result.weights[[i]].indices.tolist() for i in (0, 1)] == [[1, 3, 5], [1, 5, 7]]
    assert result.scanned.tolist() == [15, 14]


@pytest.mark.parametrize("values", [[3.0, 1, 3, 2, 3], [1.0, 1, 1], [5.0], []])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_best_takes_the_first_of_equal_values(values, count):
    result = best(np.array(values, dtype=float), count)
    assert result.tolist() == sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:count])


def test_what_cannot_be_evaluated_is_refused():
    train, pairs, z, clusters = world()
    with pytest.raises(ValueError, match="outside of the"):
        make_task(train, (np.array([0]), np.array([N])))
    with pytest.raises(ValueError, match="nothing to recall"):
        make_task(train, (np.array([U - 1]), np.array([0])))
    z[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        u2u2i(make_task(train, pairs), z, clusters, "x")


def test_interactions_that_came_through_ray_are_read_only():
    train = sp.csr_array(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    for array in (train.data, train.indices, train.indptr):
        array.flags.writeable = False
    assert make_task(train, (np.array([0]), np.array([1]))).users == 1
