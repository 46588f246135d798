"""What a recall engineer would use otherwise: item models of the interactions, by linear algebra in seconds.

A model turns a user's training notes x [N] into scores `x W` [N] of all notes. Its knob is chosen on validation pairs.

    EASE      W = I - P / diag(P), P = (X^T X + penalty I)^-1, no diagonal (Steck, WWW 2019)
    item-kNN  cosines of the notes' columns, damped by `shrink`, the 100 nearest of each note
    RP3beta   two steps of a random walk user to note, over popularity^beta (Paudel et al. 2017), the 100 nearest
    PureSVD   V V^T of the leading singular vectors (Cremonesi et al., RecSys 2010)

Axes: U users, N notes, F factors.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy.typing import NDArray

from ops.evaluation.recall import RecallRow, Task, scored_row

LARGEST = 3000  # notes; beyond, matrices of N x N numbers are no matter of seconds
USER_FACTORS = 16  # of users that are searched inside a method's clusters
NEIGHBOURS = 100

Weights = NDArray[np.float32]


def applies(n_notes: int) -> bool:
    """Whether the matrices of so many notes are a matter of seconds."""
    return 1 < n_notes <= LARGEST


def rows(task: Task, validation: Task) -> list[RecallRow]:
    """A row of each model on the `task`, at the knob with the best recall@50 on the `validation` task."""
    best = dict[str, tuple[float, str, Weights]]()
    for name, knob, weights in models(task.train):
        score = _row(validation, weights, name, knob).metrics["recall@50"]
        if name not in best or score > best[name][0]:
            best[name] = (score, knob, weights)
    return [_row(task, w, name, f"{knob}, chosen on validation pairs") for name, (_, knob, w) in best.items()]


def _row(task: Task, weights: Weights, name: str, note: str) -> RecallRow:
    return scored_row(task, lambda users: np.asarray(task.train[users] @ weights, dtype=np.float64), name, note)


def user_factors(train: sp.csr_array) -> Float[np.ndarray, "U F"]:
    """Users by the leading 16 factors of their notes: the plainest embedding to search instead of a trained one."""
    counts = np.asarray((train.T @ train).toarray(), dtype=np.float32)
    return np.asarray(train @ factors(counts, USER_FACTORS), dtype=np.float32)


def models(train: sp.csr_array) -> Iterator[tuple[str, str, Weights]]:
    """(name, knob, W [N N]) of every model and knob to try, for 0 / 1 interactions [U N]."""
    counts = np.asarray((train.T @ train).toarray(), dtype=np.float32)
    for penalty in (50.0, 200.0, 800.0):
        yield "EASE", f"penalty {penalty:g}", ease(counts, penalty)
    for shrink in (0.0, 10.0, 50.0):
        yield "item-kNN", f"shrink {shrink:g}", item_knn(counts, shrink)
    for beta in (0.2, 0.5, 0.8):
        yield "RP3beta", f"beta {beta:g}", rp3beta(train, beta)
    vectors = factors(counts, 64)
    for width in (16, 32, 64):
        yield "PureSVD", f"{width} factors", vectors[:, :width] @ vectors[:, :width].T


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
    return _nearest(np.asarray(walk.toarray() / notes**beta, dtype=np.float32))


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
