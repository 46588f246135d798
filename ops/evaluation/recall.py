"""Whether user embeddings and clusters find the notes that users touch later: the u2u2i recall channel, exactly.

For a query user the n nearest users inside its cluster vote with their similarity for the notes they touched in
training; the user's training notes are dropped and all others are ranked. Evaluation: sees hidden pairs, so no trainer
may import it. Beside the rows of a method stand popularity, the same search over all users, user-kNN on the
interactions themselves and the same embeddings in random clusters.

Workers own users by parts (`ops.clustering.owners`), with their notes and hidden notes; what a query needs of others'
users is asked of these. Without `owners` this process has all users.

Axes: U users, n users of one worker, N notes, P hidden pairs, Q query users, q of them one worker's, L = 100 listed
notes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from ops.clustering.owners import Owners, Route
from ops.evaluation.neighbors import NEIGHBOURS, Similar, best, nearest_inside, nearest_raw
from ops.rng import generator

KS = (10, 20, 50, 100)
LISTED = max(KS)
SPREAD_AT = 50  # coverage and Gini are those of the first 50 notes of each list
BLOCK = 512
SEEN = 1e300  # taken off the scores of notes that the user has in training
DIGITS = 10  # scores are rounded to them, so that sums of equal similarities tie whatever the order they were added in


@dataclass(frozen=True)
class Task:
    """Training interactions [n N] (0 / 1) and hidden ones [n N] of this worker's users, and who is asked about.

    `users` (of all workers) have hidden notes and training notes; `queries` are the numbers of those asked, the same
    on every worker (a keyed sample where there are more than allowed). `left_out` users have hidden notes but no
    training notes. Hidden pairs that were given twice, or are training pairs as well, do not count again.
    """

    train: sp.csr_array
    hidden: sp.csr_array
    queries: NDArray[np.int64]
    users: int
    left_out: int
    owners: Owners

    @property
    def asked(self) -> NDArray[np.int64]:
        """Which of the queries are this worker's: [q]."""
        return np.flatnonzero(self.owners.shard.positions(self.queries) >= 0)

    @property
    def asked_rows(self) -> NDArray[np.int64]:
        """Their rows among this worker's users: [q]."""
        return self.owners.shard.positions(self.queries[self.asked])


@dataclass(frozen=True)
class RecallRow:
    """One line of the recall table: means over the queries by name (`recall@50`, `ndcg@50`, `hit_rate@50`, `scanned`,
    `coverage`, `gini`), recall@50 of every query [Q], alike on all workers, and a remark."""

    name: str
    metrics: dict[str, float]
    recalls: NDArray[np.float64] = field(compare=False, repr=False)
    note: str = ""


def make_task(
    train: sp.csr_array, pairs: tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]], seed: int = 0,
    max_queries: int = 20_000, owners: Owners | None = None,
) -> Task:  # fmt: skip
    """The task of hidden `pairs` (this worker's rows, notes) against `train` [n N], whose positive entries count.

    At most `max_queries` of the users are asked, drawn by `seed`. Raises ValueError for pairs outside the matrix, and
    where no user has both training and hidden notes.
    """
    owners, seen = owners or Owners.alone(train.shape[0]), _binary(train)
    users, notes = pairs
    try:
        hidden = _binary(sp.csr_array((np.ones(len(users)), (users, notes)), shape=seen.shape))
    except ValueError:
        raise ValueError(f"hidden pairs lie outside of the {seen.shape} training matrix") from None
    hidden = _binary(hidden - hidden.multiply(seen))
    wanted, active = np.diff(hidden.indptr) > 0, np.diff(seen.indptr) > 0
    left_out = int(owners.sum_(np.array([np.sum(wanted & ~active)]))[0])
    counts = np.zeros(len(owners.offsets), dtype=np.int64)  # of users that can be asked, by part
    for part, rows in owners.slices():
        counts[part + 1] = np.sum((wanted & active)[rows])
    first = np.cumsum(owners.sum_(counts))
    answerable = int(first[-1])
    if not answerable:
        raise ValueError("no user has both training and hidden notes: there is nothing to recall")
    places = np.arange(answerable)
    if answerable > max_queries:
        places = np.sort(generator(seed, "recall-queries").choice(answerable, max_queries, replace=False))
    queries = np.zeros(len(places), dtype=np.int64)
    for part, rows in owners.slices():
        chosen = (places >= first[part]) & (places < first[part + 1])
        able = np.flatnonzero((wanted & active)[rows])
        queries[chosen] = owners.offsets[part] + able[places[chosen] - first[part]]
    return Task(seen, hidden, owners.sum_(queries), answerable, left_out, owners)


def _binary(matrix: Any) -> sp.csr_array:
    binary = sp.csr_array(matrix, dtype=np.float64, copy=True)  # a matrix that came through Ray is read-only
    binary.sum_duplicates()
    binary.data = (binary.data > 0).astype(np.float64)
    binary.eliminate_zeros()
    binary.sort_indices()
    return binary


def u2u2i(
    task: Task, z: Float[np.ndarray, "n D"], clusters: Int64[np.ndarray, "n"] | None, name: str, n: int = NEIGHBOURS,
    note: str = "",
) -> RecallRow:  # fmt: skip
    """The row of embeddings `z` searched inside `clusters` (None: exact search over all users).

    Users without training notes are nobody's neighbours.
    """
    return similar_row(task, near(task, z, clusters, n), name, note)


def near(
    task: Task, z: Float[np.ndarray, "n D"], clusters: Int64[np.ndarray, "n"] | None, n: int = NEIGHBOURS
) -> Similar:
    """The n nearest users with training notes of each query, inside its cluster or (None) among all."""
    return nearest_inside(z, clusters, task.queries, np.diff(task.train.indptr) > 0, n, task.owners)


def user_knn(task: Task, n: int = NEIGHBOURS) -> RecallRow:
    """The row of user-kNN on the raw interactions: neighbours by cosine of 0 / 1 rows."""
    return similar_row(task, nearest_raw(task.train, task.queries, n, task.owners), "user-kNN on interactions")


def random_clusters(
    task: Task, z: Float[np.ndarray, "n D"], n_clusters: int, name: str, seed: int = 0, n: int = NEIGHBOURS
) -> RecallRow:
    """The row of embeddings `z` searched inside random clusters of equal size, drawn by `seed`."""
    dealt = generator(seed, "random-clusters").permutation(task.owners.total)[task.owners.shard.numbers()] % n_clusters
    return u2u2i(task, z, dealt, name, n)


def popularity(task: Task) -> RecallRow:
    """The row of the most touched notes, for each user without its training notes; ties by the lowest number."""
    count = task.owners.sum_(np.bincount(task.train.indices, minlength=task.train.shape[1]))
    order = np.argsort(-count, kind="stable")
    lists = np.full((len(task.asked), LISTED), -1, dtype=np.int64)
    for i, row in enumerate(task.asked_rows):
        seen = task.train.indices[task.train.indptr[row] : task.train.indptr[row + 1]]
        first = order[: LISTED + len(seen)]
        first = first[~np.isin(first, seen)][:LISTED]
        lists[i, : len(first)] = first
    return scored_lists(task, lists, "popularity", np.zeros(len(lists)))


def similar_row(task: Task, similar: Similar, name: str, note: str = "") -> RecallRow:
    """The row of given neighbours, in the order of `task.queries`."""
    return scored_lists(task, lists_of(task, similar), name, similar.scanned, note)


def scored_row(
    task: Task, scores: Callable[[Int64[np.ndarray, "b"]], Float[np.ndarray, "b N"]], name: str, note: str = ""
) -> RecallRow:
    """The row of a model that gives all notes a score for some of this worker's users; ties by the lowest number."""
    users = task.asked_rows
    lists = np.full((len(users), LISTED), -1, dtype=np.int64)
    for first in range(0, len(users), BLOCK):
        block = users[first : first + BLOCK]
        values = np.round(scores(block), DIGITS)
        values[task.train[block].nonzero()] = -np.inf
        order = np.argsort(-values, axis=1, kind="stable")[:, :LISTED]
        lists[first : first + len(block), : order.shape[1]] = np.where(
            np.take_along_axis(values, order, 1) > -np.inf, order, -1
        )
    return scored_lists(task, lists, name, np.zeros(len(lists)), note)


def lists_of(
    task: Task, similar: Similar, boost: float = 0.0, clusters: Int64[np.ndarray, "n"] | None = None
) -> Int64[np.ndarray, "q L"]:
    """The first 100 notes of each query's ranking of all notes but its training notes; -1 where there are fewer.

    Score of a note: sum of the similarities of the neighbours that touched it, 0 without one; ties by the lowest note
    number. With `boost` b the score is multiplied by 1 + b where a user of the same cluster touched the note.
    """
    rows_of_asked, owners = task.asked_rows, task.owners
    lists = np.full((len(rows_of_asked), LISTED), -1, dtype=np.int64)
    touched = None if clusters is None or boost == 0 else _touched(task, clusters)
    longest = owners.group.maximum_(torch.tensor(len(lists)))  # all workers take part in every block
    for first in range(0, int(longest), BLOCK):
        users = rows_of_asked[first : first + BLOCK]
        weights = similar.weights[first : first + BLOCK] if len(users) else similar.weights[:0]
        numbers, places = np.unique(weights.indices.astype(np.int64), return_inverse=True)
        narrow = sp.csr_array((weights.data, places, weights.indptr), shape=(len(users), len(numbers)))
        scores = narrow @ owners.fetch_sparse(task.train, numbers)
        scores.sort_indices()
        if touched is not None and clusters is not None:
            keys = np.repeat(clusters[users], np.diff(scores.indptr)) * task.train.shape[1] + scores.indices
            route = Route(owners.group, keys % owners.group.world, keys)
            is_touched = route.answered(np.isin(route.asked, touched).astype(np.uint8)).astype(bool)
            scores.data = scores.data * np.where(is_touched, 1 + boost, 1.0)
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


def _touched(task: Task, clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """cluster * N + note of every note that a user of the cluster touched; worker r has those % W = r."""
    users = np.repeat(clusters, np.diff(task.train.indptr))
    keys: NDArray[np.int64] = np.unique(users * task.train.shape[1] + task.train.indices)
    group = task.owners.group
    return np.unique(Route(group, keys % group.world, keys).asked)


def scored_lists(task: Task, lists: NDArray[np.int64], name: str, scanned: NDArray[Any], note: str = "") -> RecallRow:
    """The row of the lists [q L] of this worker's queries, for which it `scanned` [q] users each."""
    everywhere = np.zeros(len(task.queries))
    everywhere[task.asked] = scanned
    values = list_metrics(lists, task)
    means = {key: float(np.mean(each)) for key, each in values.items()} | _shown(lists, task)
    metrics = means | {"scanned": float(task.owners.sum_(everywhere).mean())}
    return RecallRow(name, metrics, values[f"recall@{SPREAD_AT}"], note)


def list_metrics(lists: Int64[np.ndarray, "q L"], task: Task) -> dict[str, NDArray[np.float64]]:
    """Values [Q] of all workers' queries, T_u the hidden notes of user u, hit_j whether the j-th listed note is one.

    recall@K = |first K and T_u| / |T_u|; ndcg@K = sum_{j<=K} hit_j / log2(j + 1) over the same sum for
    min(K, |T_u|) hits at the top; hit_rate@K: any hit.
    """
    n_notes, answers = task.hidden.shape[1], task.hidden[task.asked_rows]
    wanted = np.diff(answers.indptr)
    keys = np.repeat(np.arange(len(lists)), wanted) * n_notes + answers.indices
    hits = np.isin(np.arange(len(lists))[:, None] * n_notes + lists, keys) & (lists >= 0)
    discount = 1 / np.log2(np.arange(2, lists.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    each: dict[str, Any] = {}  # the values of this worker's queries
    for k in KS:
        first = hits[:, :k]
        each[f"recall@{k}"] = first.sum(1) / wanted
        each[f"ndcg@{k}"] = (first * discount[:k]).sum(1) / ideal[np.minimum(wanted, k)]
        each[f"hit_rate@{k}"] = np.any(first, axis=1)
    values = np.zeros((len(each), len(task.queries)))
    values[:, task.asked] = list(each.values())
    return dict(zip(each, task.owners.sum_(values), strict=True))


def _shown(lists: NDArray[np.int64], task: Task) -> dict[str, float]:
    """Of all lists' first 50 notes: coverage = share of the N notes that stand on any list; gini = inequality of how
    often the N notes are listed (0 alike, 1 all lists show one note)."""
    n_notes, shown = task.hidden.shape[1], lists[:, :SPREAD_AT]
    times = np.sort(task.owners.sum_(np.bincount(shown[shown >= 0], minlength=n_notes))).astype(np.float64)
    gini = np.sum((2 * np.arange(1, n_notes + 1) - n_notes - 1) * times) / (n_notes * max(times.sum(), 1.0))
    return {"coverage": float(np.mean(times > 0)), "gini": float(gini)}
