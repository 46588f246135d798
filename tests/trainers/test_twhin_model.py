"""TwHIN's loss against loops with dense gradients, its optimiser against ten lines of Adagrad, folding in."""

import pytest
import torch
from torch.nn.functional import normalize

from trainers.twhin.model import (
    adagrad,
    loss,
    loss_terms,
    step_rows,
    summed,
    table,
    translations,
    unique,
)

D = 6


def rows(n, seed):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def draws(high, shape, seed):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def dense_terms(source, target, shift, pairs, uniform, batch_negatives, temperature, normalise):
    """(positive terms, negative terms) one by one."""

    def f(i, j):
        a, b = source[i] + shift, target[j]
        a, b = (normalize(a, dim=0), normalize(b, dim=0)) if normalise else (a, b)
        return (a @ b) / temperature

    pairs = pairs.T.tolist()
    near, far = [-torch.log(torch.sigmoid(f(i, j))) for i, j in pairs], []
    for k, (i, j) in enumerate(pairs):
        group = k // (batch_negatives + 1)
        others = [pair for q, pair in enumerate(pairs) if q // (batch_negatives + 1) == group and q != k]
        corrupted = [(i, t) for _, t in others] + [(s, j) for s, _ in others]
        corrupted += [(i, t) for t in uniform[1].tolist()] + [(s, j) for s in uniform[0].tolist()]
        far += [-torch.log(1 - torch.sigmoid(f(*pair))) for pair in corrupted if list(pair) not in pairs]
    return near, far


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("edges", "batch_negatives"), [(10, 3), (12, 3), (7, 0), (5, 9), (8, 7)])
def test_loss_equals_the_loop_in_value_and_gradient(edges, batch_negatives, normalise):
    source, target, shift = rows(6, 0), rows(8, 1), rows(1, 2)[0].detach().requires_grad_()
    pairs = torch.stack([draws(6, (edges,), 3), draws(8, (edges,), 4)])
    given = pairs, (draws(6, (4,), 5), draws(8, (3,), 6)), batch_negatives, 0.7, normalise
    sums, counts = loss_terms(source, target, shift, *given)
    near, far = dense_terms(source, target, shift, *given)
    assert counts.tolist() == [len(near), len(far)]
    expected = sum(near) / len(near) + sum(far) / len(far)
    torch.testing.assert_close(loss(sums, counts), expected)
    leaves = [source, target, shift]
    ours = torch.autograd.grad(loss(sums, counts), leaves)
    for g, e in zip(ours, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(g, e)
        assert g.abs().max() > 0


def test_gathered_rows_have_the_gradient_of_the_whole_table():
    """A step on unique rows of two parts is dense autograd with ten lines of Adagrad on the whole table."""
    parts = [table(0, "user", p, n, D).double() for p, n in enumerate((9, 7))]
    dense, notes = torch.cat(parts).clone().requires_grad_(), rows(8, 1).detach()
    state, states = torch.zeros(16, dtype=torch.float64), [torch.zeros(9).double(), torch.zeros(7).double()]
    for number in range(3):
        ids = draws(16, (12,), number)
        pairs = torch.stack([ids, draws(8, (12,), 10 + number)])
        uniform = draws(16, (4,), 20 + number), draws(8, (4,), 30 + number)
        rest = torch.zeros(D, dtype=torch.float64), pairs, uniform, 3, 1.0, False
        (gradient,) = torch.autograd.grad(loss(*loss_terms(dense, notes, *rest)), dense)
        with torch.no_grad():  # Adagrad, one accumulator a row
            for i in range(16):
                state[i] += (gradient[i] ** 2).sum() / D
                if state[i] > 0:
                    dense[i] -= 0.1 * gradient[i] / state[i] ** 0.5
        wanted, places = unique(torch.cat([ids, uniform[0]]))
        gathered = torch.cat(parts)[wanted].requires_grad_()
        local = torch.stack([places[:12], pairs[1]])
        terms = loss_terms(gathered, notes, rest[0], local, (places[12:], uniform[1]), 3, 1.0, False)
        loss(*terms).backward()
        for p, first in enumerate((0, 9)):
            mine = (wanted >= first) & (wanted < first + len(parts[p]))
            step_rows(parts[p], states[p], wanted[mine] - first, gathered.grad[mine], 0.1)
    torch.testing.assert_close(torch.cat(parts), dense.detach())
    torch.testing.assert_close(torch.cat(states), state)
    untouched = (state == 0).nonzero()[:, 0].tolist()
    start = torch.cat([table(0, "user", p, n, D).double() for p, n in enumerate((9, 7))])
    assert all(torch.equal(dense[i], start[i]) for i in untouched)


def test_repeated_rows_are_summed_in_the_order_given():
    """Bit for bit, whatever the size: what several workers send is added batch after batch."""
    ids = draws(300, (5000,), 0)
    gradients = torch.randn(5000, D, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(300, D)
    for i, g in zip(ids.tolist(), gradients, strict=True):
        expected[i] += g
    mine, total = summed(ids, gradients)
    assert torch.equal(mine, torch.arange(300))
    assert torch.equal(total, expected)
    once, state = adagrad(torch.zeros(300, D), total, torch.zeros(300), 0.1)
    part, kept = torch.zeros(300, D), torch.zeros(300)
    step_rows(part, kept, ids, gradients, 0.1)
    assert torch.equal(part, once)
    assert torch.equal(kept, state)


def test_starts_are_keyed_by_seed_type_and_part():
    one = table(3, "user", 1, 50, 16)
    assert torch.equal(one, table(3, "user", 1, 50, 16))
    assert all(
        not torch.equal(one, table(*other, 50, 16)) for other in ((4, "user", 1), (3, "note", 1), (3, "user", 2))
    )
    assert one.square().sum(1).mean() == pytest.approx(1, abs=0.15)
    shifts = translations([("user", "share", "note"), ("note", "rev_share", "user")], 16)
    assert list(shifts) == ["note__rev_share__user", "user__share__note"]
    assert not any(value.any() for value in shifts.values())
