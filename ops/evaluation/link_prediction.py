"""Link prediction: do hidden edges score above sampled ones that are no edges? Evaluation: no trainer may import it.

Workers own users by parts (`ops.clustering.owners`) and score the hidden edges of theirs; without `owners` this process
has all users.

Axes: P hidden edges, S negatives an edge, U users, n of one worker, N notes, M pairs of one call.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64
from numpy.typing import NDArray

from ops.clustering.owners import Owners
from ops.rng import generator

Score = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]  # (user rows [M], note rows [M]) -> [M]
NEGATIVES = 100
HITS = (1, 10)
CHUNK_PAIRS = 1 << 20


def _draws(
    users: NDArray[np.int64], free: NDArray[np.int64], count: int, n_notes: int, seed: int, position: int
) -> NDArray[np.int64]:
    """For each of `users` [P] `count` numbers of its `free` notes (those it has no edge to), with replacement.

    Keyed by (seed, position). Raises ValueError for a user with an edge to every note.
    """
    if len(users) and free.min() < 1:
        user = int(users[free.argmin()])
        raise ValueError(f"user {user} has an edge to each of the {n_notes} notes: no negative can be drawn")
    return generator(seed, "link-negatives", position).integers(free[:, None], size=(len(users), count))


def _free_notes(edges: sp.csr_array, users: NDArray[np.int64], draw: NDArray[np.int64]) -> NDArray[np.int64]:
    """The notes of the free ones' numbers `draw` [P S]; `edges` [U N] have sorted indices."""
    n_notes = edges.shape[1]
    # the r-th free note is r + (taken notes before it); the j-th taken one has (its number - j) free notes before it
    rows = np.repeat(np.arange(edges.shape[0]), np.diff(edges.indptr))
    before = edges.indices - (np.arange(edges.nnz) - edges.indptr[rows])
    keys = rows * (n_notes + 1) + before
    place = np.searchsorted(keys, users[:, None] * (n_notes + 1) + draw, side="right")
    notes: NDArray[np.int64] = draw + place - edges.indptr[users][:, None]
    return notes


def link_scores(
    edges: tuple[Int64[np.ndarray, "P"], Int64[np.ndarray, "P"]], all_edges: sp.csr_array, score: Score, seed: int = 0,
    count: int = NEGATIVES, owners: Owners | None = None,
) -> dict[str, float]:  # fmt: skip
    """AUC, MRR, hits@1 and hits@10 of hidden `edges` (users, notes) against `count` negatives each.

    AUC: all hidden edges against all negatives, the share of pairs in order, ties one half (Mann-Whitney). The rank
    of an edge is among its own negatives: 1 + those above + half of those equal; MRR = mean 1 / rank, hits@K = share
    of ranks up to K. `all_edges` [n N] of this worker's users hold hidden ones as well; scores have to be finite
    (ValueError). `edges` are the same on every worker; each calls `score` of its own users' pairs, equally often.
    """
    from sklearn.metrics import roc_auc_score

    users, notes = edges
    if not len(users):
        raise ValueError("no hidden edges to score")
    owners = owners or Owners.alone(all_edges.shape[0])
    table = sp.csr_array(all_edges)
    table.sum_duplicates()  # and sorts
    rows = owners.shard.positions(users)  # of this worker, -1: another's
    local = rows >= 0
    free = np.zeros(len(users), dtype=np.int64)
    free[local] = table.shape[1] - np.diff(table.indptr)[rows[local]]
    owners.sum_(free)
    scores = np.zeros((len(users), 1 + count))  # of each edge, then of its negatives
    step = max(1, CHUNK_PAIRS // count)
    for position, first in enumerate(range(0, len(users), step)):
        chunk = slice(first, first + step)
        draw = _draws(users[chunk], free[chunk], count, table.shape[1], seed, position)[local[chunk]]
        u, v = rows[chunk][local[chunk]], notes[chunk][local[chunk]]
        others = _free_notes(table, u, draw)
        values = _finite(score(u, v)), _finite(score(np.repeat(u, count), others.ravel()))
        scores[first + np.flatnonzero(local[chunk])] = np.hstack([values[0][:, None], values[1].reshape(-1, count)])
    owners.sum_(scores)
    positive, drawn = np.split(scores, [1], axis=1)
    rank = 1 + (drawn > positive).sum(1) + (drawn == positive).sum(1) / 2
    is_edge = np.arange(scores.size) % (1 + count) == 0
    means = {"auc": float(roc_auc_score(is_edge, scores.ravel())), "mrr": float(np.mean(1 / rank))}
    return means | {f"hits@{k}": float(np.mean(rank <= k)) for k in HITS}


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError("a link score is not finite: did the training diverge?")
    return scores
