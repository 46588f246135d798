"""What a recall engineer would use otherwise: models of the interactions alone, by linear algebra in seconds.

A model turns users' training notes X [b N] into scores of all notes. Its knob is chosen on validation pairs.

    EASE      X W, W = I - P / diag(P), P = (X^T X + penalty I)^-1, no diagonal (Steck, WWW 2019)
    item-kNN  X times cosines of the notes' columns, damped by `shrink`, the 100 nearest of each note
    RP3beta   X times two steps of a walk from a note, over popularity^beta (Paudel et al. 2017), the 100 nearest
    PureSVD   X V V^T of the leading singular vectors (Cremonesi et al., RecSys 2010)
    iALS      P Q^T, least squares on all pairs, those without an edge by `weight` (Hu et al., ICDM 2008), the ridge in
              proportion to a row's weight (Rendle et al., RecSys 2022)
    user-kNN  as `recall.user_knn`, the number of neighbours chosen

Axes: U users, b some of them, N notes, F factors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy.typing import NDArray

from ops.evaluation.neighbors import nearest_raw
from ops.evaluation.recall import RecallRow, Task, scored_row, similar_row, u2u2i
from ops.rng import generator

LARGEST = 3000  # notes; beyond, matrices of N x N numbers are no matter of seconds
NEIGHBOURS = 100  # notes
USERS = (100, 200, 400)  # neighbours of a user that are tried
FACTORS, ROUNDS, FITTED = 32, 4, 10_000  # of iALS; FITTED: users (a keyed sample of more) that its notes are fitted to

Weights = NDArray[np.float32]
Of = Callable[[sp.csr_array], Weights]  # of users' training notes [b N]


@dataclass(frozen=True)
class Model:
    """A model at one knob: scores [b N], and where it has any the users' vectors [b F], of their training notes."""

    name: str
    knob: str
    scores: Of
    users: Of | None = None


def applies(n_notes: int) -> bool:
    """Whether the matrices of so many notes are a matter of seconds."""
    return 1 < n_notes <= LARGEST


def rows(task: Task, validation: Task) -> tuple[list[RecallRow], list[Model]]:
    """A row of each model on the `task`, at the knob with the best recall@50 on the `validation` task, and of the
    models those that have vectors of users."""
    best = dict[str, tuple[float, Model]]()
    for model in models(task.train):
        score = _row(validation, model).metrics["recall@50"]
        if model.name not in best or score > best[model.name][0]:
            best[model.name] = (score, model)
    chosen = [model for _, model in best.values()]
    return [_user_knn(task, validation), *(_row(task, model) for model in chosen)], [m for m in chosen if m.users]


def inside(task: Task, model: Model, clusters: NDArray[np.int64], whose: str) -> RecallRow:
    """The row of a model's users searched inside the clusters of another method: what these are worth by themselves."""
    assert model.users is not None
    return u2u2i(task, model.users(task.train), clusters, f"{model.name} users, {whose} clusters", note=model.knob)


def _row(task: Task, model: Model) -> RecallRow:
    return scored_row(
        task, lambda users: model.scores(task.train[users]).astype(np.float64), model.name,
        f"{model.knob}, chosen on validation pairs",
    )  # fmt: skip


def _user_knn(task: Task, validation: Task) -> RecallRow:
    def row(asked: Task, n: int) -> RecallRow:
        note = f"{n} neighbours, chosen on validation pairs"
        return similar_row(asked, nearest_raw(asked.train, asked.queries, n, asked.owners), "user-kNN, tuned", note)

    return row(task, max(USERS, key=lambda n: row(validation, n).metrics["recall@50"]))


def models(train: sp.csr_array) -> Iterator[Model]:
    """Every model at every knob to try, for 0 / 1 interactions [U N]."""
    counts = np.asarray((train.T @ train).toarray(), dtype=np.float32)
    for penalty in (50.0, 200.0, 800.0, 3200.0):
        yield Model("EASE", f"penalty {penalty:g}", _times(ease(counts, penalty)))
    for shrink in (0.0, 10.0, 50.0, 200.0):
        yield Model("item-kNN", f"shrink {shrink:g}", _times(item_knn(counts, shrink)))
    for beta in (0.1, 0.3, 0.5, 0.7):
        yield Model("RP3beta", f"beta {beta:g}", _times(rp3beta(train, beta)))
    vectors = factors(counts, 64)
    for width in (8, 16, 32, 64):
        v = vectors[:, :width]
        yield Model("PureSVD", f"{width} factors", _times(v @ v.T), _times(v))
    v = vectors[:, :FACTORS]
    start = v * np.sum(v * (counts @ v), axis=0) ** 0.25  # V times the root of the singular values
    if train.shape[0] > FITTED:
        train = train[np.sort(generator(0, "iALS users").choice(train.shape[0], FITTED, replace=False))]
    for weight in (0.1, 0.3, 1.0):
        for ridge in (0.005, 0.015, 0.05):
            yield _ials(train, start, weight, ridge)


def _times(weights: Weights) -> Of:
    return lambda notes: np.asarray(notes @ weights, dtype=np.float32)


def _ials(train: sp.csr_array, start: Weights, weight: float, ridge: float) -> Model:
    q, backwards = start, sp.csr_array(train.T)
    for _ in range(ROUNDS):
        q = least_squares(backwards, least_squares(train, q, weight, ridge), weight, ridge)

    def users(notes: sp.csr_array) -> Weights:
        return least_squares(notes, q, weight, ridge)

    knob = f"{q.shape[1]} factors, weight {weight:g}, ridge {ridge:g}"
    return Model("iALS", knob, lambda notes: np.asarray(users(notes) @ q.T), users)


def least_squares(notes: sp.csr_array, q: Weights, weight: float, ridge: float) -> Float[np.ndarray, "b F"]:
    """The p of each row that is least in `sum_j in row (1 - p.q_j)^2 + weight sum_j (p.q_j)^2 + r |p|^2`, where
    `r = ridge (|row| + weight N)`, of 0 / 1 rows `notes` [b N] and `q` [N F]."""
    ends, everywhere, unit = notes.indptr, weight * (q.T @ q), np.eye(q.shape[1], dtype=np.float32)
    right, p = np.asarray(notes @ q, dtype=np.float32), np.empty((notes.shape[0], q.shape[1]), dtype=np.float32)
    for row in range(len(p)):
        rated = q[notes.indices[ends[row] : ends[row + 1]]]
        left = everywhere + rated.T @ rated + ridge * (len(rated) + weight * len(q)) * unit
        p[row] = np.linalg.solve(left, right[row])
    return p


def ease(counts: Float[np.ndarray, "N N"], penalty: float) -> Weights:
    """EASE's W of the counts `X^T X`."""
    inverse = np.linalg.inv(counts.astype(np.float64) + penalty * np.eye(len(counts)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights.astype(np.float32)


def item_knn(counts: Float[np.ndarray, "N N"], shrink: float) -> Weights:
    """Cosines of notes, as far as enough users speak for them."""
    length = np.sqrt(np.diag(counts))
    return _nearest(np.asarray(counts / np.maximum(length[:, None] * length[None, :] + shrink, 1e-9), np.float32))


def rp3beta(train: sp.csr_array, beta: float) -> Weights:
    """The chance to come from a note over one of its users to another note, over that one's popularity^beta."""
    users, notes = (np.maximum(train.sum(axis=axis), 1) for axis in (1, 0))
    walk = sp.diags_array(1 / notes) @ train.T @ sp.diags_array(1 / users) @ train
    # transposed: the 100 that a walk from a note goes to most (of those it comes from, recall is a fifth lower)
    return np.ascontiguousarray(_nearest(np.asarray(walk.toarray().T / notes[:, None] ** beta, dtype=np.float32)).T)


def factors(counts: Float[np.ndarray, "N N"], width: int) -> Float[np.ndarray, "N F"]:
    """The leading right singular vectors of X, the largest first; users' factors are `X V`."""
    _, vectors = np.linalg.eigh(counts.astype(np.float64))
    return np.ascontiguousarray(vectors[:, ::-1][:, :width], dtype=np.float32)


def _nearest(similarity: Weights) -> Weights:
    """Each column's largest entries, the others 0; no note is near itself."""
    np.fill_diagonal(similarity, 0.0)
    if len(similarity) > NEIGHBOURS:
        least = np.partition(similarity, -NEIGHBOURS, axis=0)[-NEIGHBOURS]
        similarity[similarity < least] = 0.0
    return similarity
