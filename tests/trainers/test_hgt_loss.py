"""The link losses against dense loops in value and gradient, and split over workers."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from trainers.hgt.loss import both_ways, both_ways_softmax, bpr, is_positive, mean, pick, softmax

P, NEG, D = 6, 3, 5


def rows(n, seed):
    drawn = torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return normalize(drawn).requires_grad_()


def draws(high, shape, seed):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def dense_bpr(anchors, positives, negatives, scale, forbidden=()):
    """Pair by pair, negative by negative."""
    terms = [
        -torch.log(torch.sigmoid(scale * (anchors[i] @ positives[i] - anchors[i] @ negatives[i][j])))
        for i in range(len(anchors))
        for j in range(len(negatives[i]))
        if (i, j) not in forbidden
    ]
    return sum(terms), len(terms)


def assert_same_with_gradient(got, expected, leaves):
    torch.testing.assert_close(got, expected)
    ours = torch.autograd.grad(got, leaves, retain_graph=True)
    for g, e in zip(ours, torch.autograd.grad(expected, leaves, retain_graph=True), strict=True):
        torch.testing.assert_close(g, e)
        assert g.abs().max() > 0


def test_bpr_equals_the_loop_and_pairs_negatives_with_their_own_positive():
    a, p, n = rows(P, 0), rows(P, 1), rows(P * NEG, 2)
    got, count = bpr(a, p, n.view(P, NEG, D), 2.0)
    expected, terms = dense_bpr(a, p, n.view(P, NEG, D), 2.0)
    assert int(count) == terms == P * NEG
    assert_same_with_gradient(got, expected, [a, p, n])
    repeated = a.repeat_interleave(NEG, 0), p.repeat_interleave(NEG, 0)
    right = dense_bpr(*repeated, n[:, None], 2.0)[0]
    torch.testing.assert_close(got, right)
    # the original's bug: positives tiled, negatives interleaved
    wrong = dense_bpr(a.repeat(NEG, 1), p.repeat(NEG, 1), n[:, None], 2.0)[0]
    assert (got - wrong).abs() > 1e-3


def test_a_negative_that_is_a_known_positive_does_not_count():
    users, notes = rows(4, 0), rows(5, 1)
    pairs = torch.tensor([[0, 1, 1, 3], [2, 0, 4, 2]])
    negative_notes = torch.tensor([[1, 2], [4, 3], [0, 0], [0, 1]])  # (0,2), (1,4), (1,0), (1,0) are positives
    negative_users = torch.tensor([[3, 1], [2, 0], [1, 3], [0, 2]])  # of notes 2, 0, 4, 2: (3,2), (1,4), (0,2) are
    sums, counts = both_ways(users, notes, pairs, negative_notes, negative_users, 2.0)
    one = dense_bpr(users[pairs[0]], notes[pairs[1]], notes[negative_notes], 2.0, {(0, 1), (1, 0), (2, 0), (2, 1)})
    two = dense_bpr(notes[pairs[1]], users[pairs[0]], users[negative_users], 2.0, {(0, 0), (2, 0), (3, 0)})
    assert counts.tolist() == [one[1], two[1]] == [4, 5]
    assert_same_with_gradient(mean(sums, counts), (one[0] / 4 + two[0] / 5) / 2, [users, notes])


def test_known_is_membership():
    pairs = draws(7, (2, 30), 0)
    anchors, candidates = draws(7, (20,), 1), draws(9, (20, 4), 2)
    there = set(map(tuple, pairs.T.tolist()))
    expected = [[(a, c) in there for c in row] for a, row in zip(anchors.tolist(), candidates.tolist(), strict=True)]
    assert is_positive(pairs, anchors, candidates).tolist() == expected
    assert not is_positive(torch.empty(2, 0, dtype=torch.int64), anchors, candidates).any()


def test_softmax_equals_the_loop():
    a, p = rows(P, 0), rows(P, 1)
    log_q = torch.log(torch.arange(1, P + 1, dtype=torch.float64) / 21)
    others = draws(3, (P, P), 4) > 0
    got, count = softmax(a, p, 4.0, log_q, others)
    expected = 0
    for i in range(P):
        logits = {j: 4 * (a[i] @ p[j]) - log_q[j] for j in range(P) if j == i or others[i, j]}
        expected = expected - torch.log(logits[i].exp() / sum(x.exp() for x in logits.values()))
    assert int(count) == P
    assert_same_with_gradient(got, expected, [a, p])
    torch.testing.assert_close(softmax(a, p, 4.0, log_q + 3, others)[0], got)


def test_softmax_leaves_out_other_positives_of_the_same_anchor():
    """User 0 has notes 1 and 2: neither is a negative of the other, nor is a repeated note of itself."""
    users, notes = rows(3, 0), rows(4, 1)
    pairs = torch.tensor([[0, 0, 1, 2], [1, 2, 1, 3]])
    zero = torch.zeros(4, dtype=torch.float64)
    sums, counts = both_ways_softmax(users, notes, pairs, 2.0, zero, zero)
    s = 2 * users @ notes.T
    # by hand, negatives by pair: note places of (0,1): 3; (0,2): 3; (1,1): places 1 and 3; (2,3): places 0, 1, 2
    expected = (
        (torch.logaddexp(s[0, 1], s[0, 3]) - s[0, 1]) + (torch.logaddexp(s[0, 2], s[0, 3]) - s[0, 2])
        + (torch.stack([s[1, 1], s[1, 2], s[1, 3]]).logsumexp(0) - s[1, 1])
        + (torch.stack([s[2, 3], s[2, 1], s[2, 2], s[2, 1]]).logsumexp(0) - s[2, 3])
    )  # fmt: skip
    torch.testing.assert_close(sums[0], expected)
    assert counts.tolist() == [4, 4]


@pytest.mark.parametrize(("hardness", "n"), [(0.0, 4), (1.0, 4), (0.5, 4), (0.3, 2), (0.25, 1)])
def test_the_share_of_hard_negatives(hardness, n):
    pairs, candidates = 200, 50
    scores = torch.rand(pairs, candidates, generator=torch.Generator().manual_seed(0))
    allowed = draws(5, (pairs, candidates), 1) > 0
    chosen, kept = pick(scores, allowed, n, hardness)
    assert kept.all()
    hard = 0
    for i in range(pairs):
        local = chosen[i].tolist()
        assert len(set(local)) == n
        by_score = sorted((j for j in range(candidates) if allowed[i, j]), key=lambda j: -float(scores[i, j]))
        k = next(k for k in range(n, -1, -1) if local[:k] == by_score[:k])
        rest = [j for j in range(candidates) if allowed[i, j] and j not in by_score[:k]]
        assert local[k:] == rest[: n - k]
        hard += k
        assert math.floor(hardness * n) <= k
    assert hard == pytest.approx(hardness * n * pairs, abs=0.05 * n * pairs)  # a uniform one may be the hardest by luck


def test_too_few_candidates():
    chosen, kept = pick(torch.rand(2, 3), torch.tensor([[True, False, False], [False, True, True]]), 2, 1.0)
    assert chosen[0, 0] == 0
    assert kept.tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match="4 negatives cannot be picked from 3 candidates"):
        pick(torch.rand(2, 3), torch.ones(2, 3, dtype=torch.bool), 4, 0.5)


def test_a_direction_without_terms_is_zero():
    sums = torch.tensor([3.0, 0.0])
    assert mean(sums, torch.tensor([2, 0])) == 0.75
