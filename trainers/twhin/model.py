"""TwHIN's tables, loss and optimiser (El-Kishky et al., KDD 2022, arXiv 2202.05387). Tensors in, tensors out.

There is a table of vectors for each node type, split by part, and a translation r for each relation. The score is `f(s,
r, t) = (s + r) . t` (eq. 1) divided by a temperature, or the cosine of s + r and t. The loss is logistic on the
positives and on pairs in which either end is replaced, by ends of other edges of the batch and by uniformly drawn nodes
(eq. 2 and section 4.2). Positives and negatives have the same weight, however many there are of each. Row-wise Adagrad
has one accumulator for each row.

A step gathers the unique rows that it needs (`unique`), differentiates the loss with respect to those rows only, and
writes them back (`step_rows`): no gradient has the size of a table.

Axes: P edges of one relation in a batch, S and T gathered rows of their ends, U uniform nodes, G edges of a group
(in-batch negatives), M rows with repeats, n unique rows, D width.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from ops.data.types.hetero import Relation, relation_name
from ops.device import send
from ops.losses.normalize import unit_rows
from ops.rng import torch_generator
from trainers.hgt.loss import is_positive

_EPS = 1e-10


def table(seed: int, kind: str, part: int, rows: int, width: int) -> Float[Tensor, "n D"]:
    """The first vectors of the rows of a type in a part: normal with variance 1 / D, keyed by (seed, type, part)."""
    return torch.randn(rows, width, generator=torch_generator(seed, f"twhin {kind}", part)) / math.sqrt(width)


def translations(relations: Iterable[Relation], width: int) -> dict[str, Float[Tensor, "D"]]:
    """The first translation of every relation, by its name: zeros."""
    return {relation_name(relation): torch.zeros(width) for relation in sorted(relations)}


def unique(ids: Int64[Tensor, "M"]) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "M"]]:
    """The unique ids, ascending, and the place of each id among them."""
    distinct, places = torch.unique(ids, return_inverse=True)
    return distinct, places


def score(
    source: Float[Tensor, "*P D"], shift: Float[Tensor, "D"], target: Float[Tensor, "*P D"],
    temperature: float = 1.0, normalise: bool = False,
) -> Float[Tensor, "*P"]:  # fmt: skip
    """f of pairs: `(s + r) . t / temperature`; with `normalise` the cosine replaces the product."""
    moved, target = _ends(source, shift, target, normalise)
    scores: Tensor = torch.linalg.vecdot(moved, target) / temperature
    return scores


def loss_terms(
    source: Float[Tensor, "S D"], target: Float[Tensor, "T D"], shift: Float[Tensor, "D"], pairs: Int64[Tensor, "2 P"],
    uniform: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]], batch_negatives: int, temperature: float, normalise: bool,
) -> tuple[Float[Tensor, "2"], Int64[Tensor, "2"]]:  # fmt: skip
    """(sums, counts) of `softplus(-f)` over the positives and of `softplus(f)` over their negatives.

    `pairs` are rows of `source` and `target`. `uniform` are rows of `source` and of `target` that replace this end of
    every pair. The in-batch negatives come from consecutive groups of `batch_negatives` + 1 pairs (the last may be
    smaller): each pair is taken with the targets and with the sources of the others in its group. A negative that is
    one of `pairs` does not count.
    """
    moved, ends = _ends(source, shift, target, normalise)
    s, t = pairs
    p, g = len(s), batch_negatives + 1
    positives = torch.full((), p, dtype=torch.int64, device=moved.device)
    terms = [(softplus(-torch.linalg.vecdot(moved[s], ends[t]) / temperature).sum(), positives)]
    whole = p - p % g
    for rows, size in ((slice(0, whole), g), (slice(whole, p), p - whole)):
        if size > 1 and rows.stop > rows.start:
            # (s_i, t_j) is at once pair i with another target and pair j with another source: it counts twice
            total, count = _grouped(moved, ends, pairs, pairs[:, rows].view(2, -1, size), temperature)
            terms.append((2 * total, 2 * count))
    drawn_s, drawn_t = uniform
    terms.append(_crossed(moved[s], ends[drawn_t], pairs, s, drawn_t, temperature))
    terms.append(_crossed(ends[t], moved[drawn_s], pairs.flip(0), t, drawn_s, temperature))
    sums, counts = (torch.stack(each) for each in zip(*terms, strict=True))
    return torch.stack([sums[0], sums[1:].sum()]), torch.stack([counts[0], counts[1:].sum()])


def loss(sums: Float[Tensor, "2"], counts: Int64[Tensor, "2"]) -> Float[Tensor, ""]:
    """The mean over the positives plus the mean over the negatives; with all workers' counts, this worker's share."""
    return (sums / counts.clamp(min=1)).sum()


def summed(ids: Int64[Tensor, "M"], gradients: Float[Tensor, "M D"]) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n D"]]:
    """The unique ids, ascending, and the sums of their gradients, added one after the other in the given order.

    `ids` are on the CPU wherever the gradients are: there the number of distinct ones is found without a wait.
    """
    distinct, places = (send(each, gradients.device) for each in unique(ids))
    return distinct, gradients.new_zeros(len(distinct), gradients.shape[1]).index_add_(0, places, gradients)


def adagrad(
    rows: Float[Tensor, "n D"], gradients: Float[Tensor, "n D"], state: Float[Tensor, "n"], lr: float
) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n"]]:
    """(rows, state) after a step of row-wise Adagrad: state += mean_D g^2, row -= lr g / sqrt(state)."""
    state = state + gradients.square().mean(1)
    return rows - lr * gradients / (state.sqrt() + _EPS)[:, None], state


def step_rows(
    part: Float[Tensor, "N D"], state: Float[Tensor, "N"], ids: Int64[Tensor, "M"], gradients: Float[Tensor, "M D"],
    lr: float,
) -> None:  # fmt: skip
    """Adagrad on the rows `ids` of a part's table and its accumulators, in place; repeated ids are summed first.

    `ids` are on the CPU, the rest is on the table's device. Give the gradients of several batches in one fixed order
    (part, number), since sums of floats depend on it.
    """
    rows, gradient = summed(ids, gradients)
    part[rows], state[rows] = adagrad(part[rows], gradient, state[rows], lr)


def unseen_ends(
    shift: Float[Tensor, "D"], others: Float[Tensor, "*M D"], unseen_is_source: bool
) -> tuple[Float[Tensor, "*M D"], Float[Tensor, "*M D"]]:
    """(a, b) for which an edge between an unseen node x and a seen one scores `f = (x + a) . b`, whichever end x is."""
    if unseen_is_source:
        return shift.expand_as(others), others
    return torch.zeros_like(others), others + shift


def fold_in(
    nodes: Int64[Tensor, "M"], a: Float[Tensor, "M D"], b: Float[Tensor, "M D"], count: int
) -> Float[Tensor, "n D"]:
    """Vectors of `count` unseen nodes: the mean of b - a over the edges of each; `nodes` says whose edge each one is.

    That is `t - r` where x is the source and `s + r` where it is the destination. A node without edges gets 0.
    """
    total = b.new_zeros(count, b.shape[1]).index_add_(0, nodes, b - a)
    return total / _degrees(nodes, count).clamp(min=1)[:, None]


def refine(
    x: Float[Tensor, "n D"], nodes: Int64[Tensor, "M"], a: Float[Tensor, "M D"], b: Float[Tensor, "M D"],
    negatives: Float[Tensor, "M m D"], steps: int, lr: float, temperature: float = 1.0, normalise: bool = False,
) -> Float[Tensor, "n D"]:  # fmt: skip
    """`x` after `steps` of row-wise Adagrad on its edges against `negatives` (other b), with all other vectors fixed.

    The loss of each node is the mean over its edges, so that its vector does not depend on the other nodes that are
    folded in.
    """
    x, state = x.detach().clone(), x.new_zeros(len(x))
    share = 1 / _degrees(nodes, len(x)).clamp(min=1)[nodes]
    b, negatives = (unit_rows(b), unit_rows(negatives)) if normalise else (b, negatives)
    for _ in range(steps):
        x.requires_grad_()
        moved = unit_rows(x[nodes] + a) if normalise else x[nodes] + a
        near = torch.linalg.vecdot(moved, b) / temperature
        far = torch.linalg.vecdot(moved[:, None], negatives) / temperature
        total = (share * (softplus(-near) + softplus(far).mean(1))).sum()
        (gradient,) = torch.autograd.grad(total, x)
        x, state = adagrad(x.detach(), gradient, state, lr)
    return x


def _degrees(nodes: Int64[Tensor, "M"], count: int) -> Int64[Tensor, "n"]:
    return torch.bincount(nodes, minlength=count)


def _ends(source: Tensor, shift: Tensor, target: Tensor, normalise: bool) -> tuple[Tensor, Tensor]:
    moved = source + shift
    return (unit_rows(moved), unit_rows(target)) if normalise else (moved, target)


def _grouped(
    moved: Float[Tensor, "S D"], ends: Float[Tensor, "T D"], pairs: Int64[Tensor, "2 P"],
    groups: Int64[Tensor, "2 _ G"], temperature: float,
) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:  # fmt: skip
    """(sum, count) over every source of a group with every target of it, without the pairs that are edges."""
    s, t = groups
    scores = torch.bmm(moved[s], ends[t].transpose(1, 2)) / temperature
    across = t[:, None].expand_as(scores).reshape(-1, t.shape[1])  # one row for each source: the targets of its group
    keep = ~is_positive(pairs, s.reshape(-1), across).view_as(scores)
    return (softplus(scores) * keep).sum(), keep.sum()


def _crossed(
    fixed: Float[Tensor, "P D"], drawn: Float[Tensor, "U D"], pairs: Int64[Tensor, "2 P"], anchors: Int64[Tensor, "P"],
    candidates: Int64[Tensor, "U"], temperature: float,
) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:  # fmt: skip
    """(sum, count) over the fixed end of every pair with all drawn nodes, without the pairs that are edges."""
    scores = fixed @ drawn.T / temperature
    keep = ~is_positive(pairs, anchors, candidates.expand_as(scores))
    return (softplus(scores) * keep).sum(), keep.sum()
