"""Whether user embeddings and clusters find the notes that users touch later: the u2u2i recall channel, exactly.

For a query user the n nearest users inside its cluster vote with their similarity for the notes they touched in
training; the user's training notes are dropped and all others are ranked. Evaluation: sees hidden pairs, so no trainer
may import it. Beside the rows of a method stand popularity, the same search over all users, user-kNN on the
interactions themselves and the same embeddings in random clusters.

Axes: U users, N notes, P hidden pairs, Q query users, L = 100 listed notes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from ops.evaluation.neighbors import NEIGHBOURS, Similar, best, nearest_inside, nearest_raw
from ops.rng import generator

KS = (10, 20, 50, 100)
LISTED = max(KS)
SPREAD_AT = 50  # coverage and Gini are those of the first 50 notes of each list
BOOSTS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
BLOCK = 512
SEEN = 1e300  # taken off the scores of notes that the user has in training
DIGITS = 10  # scores are rounded to them, so that sums of equal similarities tie whatever the order they were added in


@dataclass(frozen=True)
class Task:
    """Training interactions [U N] (0 / 1), hidden ones [U N], and the users that are asked about.

    `users` have hidden notes and training notes; `queries` are those asked (a keyed sample of them where there are
    more than allowed). `left_out` users have hidden notes but no training notes; `repeated` hidden pairs were given
    twice or are training pairs as well, and do not count.
    """

    train: sp.csr_array
    hidden: sp.csr_array
    queries: NDArray[np.int64]
    users: int
    left_out: int
    repeated: int


@dataclass(frozen=True)
class RecallRow:
    """One line of the recall table: means over the queries by name (`recall@50`, `ndcg@50`, `hit_rate@50`, `scanned`,
    `coverage`, `gini`), how many queries of how many users, and a remark."""

    name: str
    metrics: dict[str, float]
    queries: int
    users: int
    note: str = ""


def make_task(
    train: sp.csr_array, pairs: tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]], seed: int = 0,
    max_queries: int = 20_000,
) -> Task:  # fmt: skip
    """The task of hidden `pairs` (users, notes) against `train` [U N], whose positive entries are interactions.

    At most `max_queries` of the users are asked, drawn by `seed`. Raises ValueError for pairs outside the matrix, and
    where no user has both training and hidden notes.
    """
    seen = _binary(train)
    users, notes = pairs
    try:
        hidden = _binary(sp.csr_array((np.ones(len(users)), (users, notes)), shape=seen.shape))
    except ValueError:
        raise ValueError(f"hidden pairs lie outside of the {seen.shape} training matrix") from None
    hidden = _binary(hidden - hidden.multiply(seen))
    wanted, active = np.diff(hidden.indptr) > 0, np.diff(seen.indptr) > 0
    queries = answerable = np.flatnonzero(wanted & active)
    if not len(answerable):
        raise ValueError("no user has both training and hidden notes: there is nothing to recall")
    if len(answerable) > max_queries:
        queries = np.sort(generator(seed, "recall-queries").choice(answerable, max_queries, replace=False))
    left_out, repeated = int(np.sum(wanted & ~active)), len(users) - hidden.nnz
    return Task(seen, hidden, queries, len(answerable), left_out, repeated)


def _binary(matrix: Any) -> sp.csr_array:
    binary = sp.csr_array(matrix, dtype=np.float64, copy=True)  # a matrix that came through Ray is read-only
    binary.sum_duplicates()
    binary.data = (binary.data > 0).astype(np.float64)
    binary.eliminate_zeros()
    binary.sort_indices()
    return binary


def u2u2i(
    task: Task, z: Float[np.ndarray, "U D"], clusters: Int64[np.ndarray, "U"] | None, name: str, n: int = NEIGHBOURS
) -> RecallRow:
    """The row of embeddings `z` searched inside `clusters` (None: exact search over all users).

    Users without training notes are nobody's neighbours.
    """
    return similar_row(task, near(task, z, clusters, n), name)


def near(
    task: Task, z: Float[np.ndarray, "U D"], clusters: Int64[np.ndarray, "U"] | None, n: int = NEIGHBOURS
) -> Similar:
    """The n nearest users with training notes of each query, inside its cluster or (None) among all."""
    return nearest_inside(z, clusters, task.queries, np.diff(task.train.indptr) > 0, n)


def user_knn(task: Task, n: int = NEIGHBOURS) -> RecallRow:
    """The row of user-kNN on the raw interactions: neighbours by cosine of 0 / 1 rows."""
    return similar_row(task, nearest_raw(task.train, task.queries, n), "user-kNN on interactions")


def random_clusters(
    task: Task, z: Float[np.ndarray, "U D"], n_clusters: int, name: str, seed: int = 0, n: int = NEIGHBOURS
) -> RecallRow:
    """The row of embeddings `z` searched inside random clusters of equal size, drawn by `seed`."""
    dealt = generator(seed, "random-clusters").permutation(len(z)) % n_clusters
    return u2u2i(task, z, dealt, name, n)


def popularity(task: Task) -> RecallRow:
    """The row of the most touched notes, for each user without its training notes; ties by the lowest number."""
    count = np.diff(task.train.T.tocsr().indptr)
    order = np.argsort(-count, kind="stable")
    lists = np.full((len(task.queries), LISTED), -1, dtype=np.int64)
    for i, user in enumerate(task.queries):
        seen = _row(task.train, int(user))
        first = order[: LISTED + len(seen)]
        first = first[~np.isin(first, seen)][:LISTED]
        lists[i, : len(first)] = first
    return _scored(task, lists, "popularity", 0.0)


def similar_row(task: Task, similar: Similar, name: str, note: str = "") -> RecallRow:
    """The row of given neighbours, in the order of `task.queries`."""
    return _scored(task, lists_of(task, similar), name, float(similar.scanned.mean()), note)


def lists_of(
    task: Task, similar: Similar, boost: float = 0.0, clusters: Int64[np.ndarray, "U"] | None = None
) -> Int64[np.ndarray, "Q L"]:
    """The first 100 notes of each query's ranking of all notes but its training notes; -1 where there are fewer.

    Score of a note: sum of the similarities of the neighbours that touched it, 0 without one; ties by the lowest note
    number. With `boost` b the score is multiplied by 1 + b where a user of the same cluster touched the note.
    """
    lists = np.full((len(task.queries), LISTED), -1, dtype=np.int64)
    touched = None if clusters is None or boost == 0 else _touched(task.train, clusters)
    for first in range(0, len(task.queries), BLOCK):
        rows = slice(first, min(first + BLOCK, len(task.queries)))
        users = task.queries[rows]
        scores = similar.weights[rows] @ task.train
        scores.sort_indices()
        if touched is not None and clusters is not None:
            keys = np.repeat(clusters[users], np.diff(scores.indptr)) * task.train.shape[1] + scores.indices
            scores.data = scores.data * np.where(_member(keys, touched), 1 + boost, 1.0)
        scores.data = np.round(scores.data, DIGITS)
        scores = scores - SEEN * task.train[users]
        scores.sort_indices()
        for i in range(len(users)):
            span = slice(scores.indptr[i], scores.indptr[i + 1])
            listed = _ranked(scores.indices[span], scores.data[span], task.train.shape[1])
            lists[first + i, : len(listed)] = listed
    return lists


def _ranked(notes: NDArray[Any], scores: NDArray[np.float64], n_notes: int) -> NDArray[np.int64]:
    """Up to 100 notes by score, ties by number: those above 0, then the notes without a score, then those below 0."""
    above = np.flatnonzero(scores > 0)
    chosen = above[best(scores[above], LISTED)]
    listed: NDArray[np.int64] = notes[chosen[np.argsort(-scores[chosen], kind="stable")]].astype(np.int64)
    if len(listed) < LISTED:
        marked = notes[scores != 0]
        blank = np.arange(min(n_notes, LISTED - len(listed) + len(marked)))
        below = np.flatnonzero((scores < 0) & (scores > -SEEN / 2))
        below = notes[below[np.argsort(-scores[below], kind="stable")]]
        listed = np.concatenate([listed, blank[~np.isin(blank, marked)], below])[:LISTED]
    return listed


def _touched(train: sp.csr_array, clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """cluster * N + note of every note that a user of the cluster touched, ascending."""
    users = np.repeat(clusters, np.diff(train.indptr))
    keys: NDArray[np.int64] = np.unique(users * train.shape[1] + train.indices)
    return keys


def _member(keys: NDArray[np.int64], among: NDArray[np.int64]) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    members: NDArray[np.bool_] = among[place] == keys
    return members


def _row(matrix: sp.csr_array, row: int) -> NDArray[Any]:
    indices: NDArray[Any] = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
    return indices


def _scored(task: Task, lists: NDArray[np.int64], name: str, scanned: float, note: str = "") -> RecallRow:
    metrics = list_metrics(lists, task.hidden, task.queries) | {"scanned": scanned}
    return RecallRow(name, metrics, len(task.queries), task.users, note)


def list_metrics(
    lists: Int64[np.ndarray, "Q L"], hidden: sp.csr_array, queries: Int64[np.ndarray, "Q"]
) -> dict[str, float]:
    """Means over queries, T_u the hidden notes of user u, hit_j whether the j-th listed note is one of them.

    recall@K = |first K and T_u| / |T_u|; ndcg@K = sum_{j<=K} hit_j / log2(j + 1) over the same sum for
    min(K, |T_u|) hits at the top; hit_rate@K: any hit. Of all lists' first 50 notes: coverage = share of the N notes
    that stand on any list; gini = inequality of how often the N notes are listed (0 alike, 1 all lists show one note).
    """
    n_notes = hidden.shape[1]
    answers = hidden[queries]
    wanted = np.diff(answers.indptr)
    keys = np.repeat(np.arange(len(queries)), wanted) * n_notes + answers.indices
    hits = _member(np.arange(len(queries))[:, None] * n_notes + lists, keys) & (lists >= 0)
    discount = 1 / np.log2(np.arange(2, lists.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    means: dict[str, float] = {}
    for k in KS:
        first = hits[:, :k]
        means[f"recall@{k}"] = float(np.mean(first.sum(1) / wanted))
        gain = (first * discount[:k]).sum(1) / ideal[np.minimum(wanted, k)]
        means[f"ndcg@{k}"] = float(np.mean(gain))
        means[f"hit_rate@{k}"] = float(np.mean(first.any(1)))
    shown = lists[:, :SPREAD_AT]
    times = np.sort(np.bincount(shown[shown >= 0], minlength=n_notes)).astype(np.float64)
    gini = np.sum((2 * np.arange(1, n_notes + 1) - n_notes - 1) * times) / (n_notes * max(times.sum(), 1.0))
    return means | {"coverage": float(np.mean(times > 0)), "gini": float(gini)}


@dataclass(frozen=True)
class Boosted:
    """The chosen b, recall@50 on the validation slice for each tried b, and the rows without and with the boost."""

    b: float
    validation: dict[float, float]
    rows: tuple[RecallRow, RecallRow]


def boosted(
    task: Task,
    validation: Task,
    search: Callable[[Task], Similar],
    clusters: Int64[np.ndarray, "U"],
    name: str,
    boosts: Sequence[float] = BOOSTS,
) -> Boosted:
    """Rows of a search over all users without and with the notes of its cluster boosted: score x (1 + b).

    `search` gives the neighbours of a task's queries, e.g. `lambda t: near(t, z, None)`. b is the one of `boosts` with
    the best recall@50 on the `validation` task, the smallest of equals; the test pairs have no say. A search inside
    the same clusters could not change: all of its notes were touched there.
    """
    tried = dict(_tried(validation, search(validation), clusters, boosts))
    b = min(tried, key=lambda boost: (-tried[boost], boost))
    similar = search(task)
    scanned = float(similar.scanned.mean())
    without = similar_row(task, similar, name)
    lists = lists_of(task, similar, b, clusters)
    with_boost = _scored(task, lists, f"{name}, boosted", scanned, f"b = {b:g}, chosen on validation pairs")
    return Boosted(b, tried, (without, with_boost))


def _tried(
    task: Task, similar: Similar, clusters: NDArray[np.int64], boosts: Sequence[float]
) -> Iterator[tuple[float, float]]:
    for b in boosts:
        yield b, list_metrics(lists_of(task, similar, b, clusters), task.hidden, task.queries)["recall@50"]
