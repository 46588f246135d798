"""Link losses on cosines, as (sum, count) pairs that add up over workers.

BPR: `-log sigmoid(scale (cos(a, p) - cos(a, n)))` of an anchor a, its positive p and each of its negatives n, averaged
over both directions (a user against notes, a note against users). Softmax: `-log softmax_j(scale cos(a_i, p_j) - log
q_j)` at j = i over the batch, where q_j is how often p_j is drawn as a positive (Yi et al., RecSys 2019). With this
correction scores tend to log P(p | a), without it to log P(p | a) / q. Rows have unit length.

A mean over all workers is `mean(sums, counts)` with the counts of all of them. The gradients of the workers then add up
to those of one process, however many pairs each of them has.

Axes: P positive pairs, n negatives a pair, C candidates, D width, S sums (one a direction).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Sum = tuple[Float[Tensor, ""], Int64[Tensor, ""]]  # the sum of terms, and how many there are
CANDIDATES = 50  # uniform candidates that hard negatives are picked from


def bpr(
    anchors: Float[Tensor, "P D"],
    positives: Float[Tensor, "P D"],
    negatives: Float[Tensor, "P n D"],
    scale: float,
    keep: Bool[Tensor, "P n"] | None = None,
) -> Sum:
    """Sum over pairs and their negatives; `negatives[i]` are those of pair i, and `keep` False leaves one out.

    In a flat list of negatives [P * n, D] those of pair i are the rows i n to i n + n - 1 (`repeat_interleave`,
    `view`).
    """
    nearer = (anchors * positives).sum(1)[:, None] - torch.einsum("pd,pnd->pn", anchors, negatives)
    terms = torch.nn.functional.softplus(-scale * nearer)
    if keep is None:
        return terms.sum(), _count(terms.numel(), terms)
    return (terms * keep).sum(), keep.sum()


def softmax(
    anchors: Float[Tensor, "P D"],
    positives: Float[Tensor, "P D"],
    scale: float,
    log_q: Float[Tensor, "P"],
    others: Bool[Tensor, "P P"],
) -> Sum:
    """Sum of the cross entropies of each anchor's positive against the positives of the batch where `others` is True.

    `log_q`: log of how often each positive is drawn; a constant added to all changes nothing. `others[i, j]`: p_j is a
    negative of a_i (the diagonal is not read).
    """
    logits = scale * (anchors @ positives.T) - log_q
    diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(~(others | diagonal), -torch.inf)
    return (logits.logsumexp(1) - logits.diagonal()).sum(), _count(len(logits), logits)


def both_ways(users: Float[Tensor, "_ D"], notes: Float[Tensor, "_ D"], pairs: Int64[Tensor, "2 P"],
    negative_notes: Int64[Tensor, "P n"], negative_users: Int64[Tensor, "P n"], scale: float,
) -> tuple[Float[Tensor, "2"], Int64[Tensor, "2"]]:  # fmt: skip
    """BPR from users to negative notes and from notes to negative users: (sums, counts), one entry a direction.

    `pairs` and negatives are rows of `users` and `notes`. A negative that is a positive of the same anchor in this
    batch does not count.
    """
    u, v = pairs
    first = bpr(users[u], notes[v], notes[negative_notes], scale, ~is_positive(pairs, u, negative_notes))
    second = bpr(notes[v], users[u], users[negative_users], scale, ~is_positive(pairs.flip(0), v, negative_users))
    return torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]])


def both_ways_softmax(
    users: Float[Tensor, "_ D"], notes: Float[Tensor, "_ D"], pairs: Int64[Tensor, "2 P"],
    scale: float, log_q_users: Float[Tensor, "P"], log_q_notes: Float[Tensor, "P"],
) -> tuple[Float[Tensor, "2"], Int64[Tensor, "2"]]:  # fmt: skip
    """The softmax loss of users over the batch's notes and of notes over its users: (sums, counts)."""
    u, v = pairs
    positive = torch.zeros(len(users), len(notes), dtype=torch.bool, device=u.device)
    positive[u, v] = True
    others = ~positive[u][:, v]  # a table; `is_positive` would search P x P times
    first = softmax(users[u], notes[v], scale, log_q_notes, others)
    second = softmax(notes[v], users[u], scale, log_q_users, others.T)
    return torch.stack([first[0], second[0]]), torch.stack([first[1], second[1]])


def is_positive(
    pairs: Int64[Tensor, "2 P"], anchors: Int64[Tensor, "Q"], candidates: Int64[Tensor, "Q n"]
) -> Bool[Tensor, "Q n"]:
    """Whether each (anchor, candidate) is one of `pairs`, whose first row has the anchors."""
    if not pairs.numel() or not candidates.numel():
        return torch.zeros_like(candidates, dtype=torch.bool)
    width = 1 + torch.maximum(pairs[1].max(), candidates.max())  # without a wait of the host, which torch.isin has
    edges, asked = (pairs[0] * width + pairs[1]).sort().values, anchors[:, None] * width + candidates
    return edges[torch.searchsorted(edges, asked).clamp_(max=len(edges) - 1)] == asked


def _count(terms: int, like: Tensor) -> Int64[Tensor, ""]:
    return torch.full((), terms, dtype=torch.int64, device=like.device)


def pick(
    scores: Float[Tensor, "P C"], allowed: Bool[Tensor, "P C"], n: int, hardness: float
) -> tuple[Int64[Tensor, "P n"], Bool[Tensor, "P n"]]:
    """Columns of each pair's `n` negatives among its uniform candidates, and whether these are allowed.

    A share `hardness` of them are the allowed candidates with the highest `scores` (ties: the first). The others are
    the first of the remaining allowed candidates, which is a uniform choice. Where `hardness n` is no whole number, the
    number differs between pairs so that the share holds over the batch. Raises ValueError for fewer than n candidates.
    """
    pairs, candidates = scores.shape
    if candidates < n:
        raise ValueError(f"{n} negatives cannot be picked from {candidates} candidates")
    place = torch.arange(1, pairs + 1, device=scores.device, dtype=torch.float64)
    share = hardness * n
    hard = (torch.floor(place * share + 1e-9) - torch.floor((place - 1) * share + 1e-9))[:, None]
    rank = torch.empty_like(scores, dtype=torch.int64)
    order = scores.masked_fill(~allowed, -torch.inf).argsort(dim=1, descending=True, stable=True)
    columns = torch.arange(candidates, device=scores.device).expand(pairs, -1)
    rank.scatter_(1, order, columns)
    # hard negatives first by rank, then allowed ones in the order in which they were drawn, forbidden ones last
    key = torch.where(rank < hard, rank, candidates + columns) + 2 * candidates * ~allowed
    chosen = key.argsort(dim=1, stable=True)[:, :n]
    return chosen, allowed.gather(1, chosen)


def mean(sums: Float[Tensor, "S"], counts: Int64[Tensor, "S"]) -> Float[Tensor, ""]:
    """The mean over directions of sum / count; a direction without terms counts as 0.

    With the counts of all workers and the sums of this worker it is this worker's share of the mean.
    """
    return (sums / counts.clamp(min=1)).sum() / len(sums)
