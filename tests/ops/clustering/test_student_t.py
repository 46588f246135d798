"""Student's t, its target and their divergence, against the formulas written out."""

import math

import pytest
import torch
from torch.nn.functional import kl_div

from ops.clustering.student_t import column_sums, kl_rows, student_t, target


def draws(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("freedom", [0.5, 1.0, 5.0])
def test_students_t_by_the_formula(freedom):
    z, centres = draws(7, 3), draws(4, 3)
    memberships = student_t(z, centres, freedom)
    for i in range(7):
        kernel = [(1 + math.dist(z[i], mu) ** 2 / freedom) ** (-(freedom + 1) / 2) for mu in centres]
        assert memberships[i].tolist() == pytest.approx([k / sum(kernel) for k in kernel], rel=1e-12)


def test_far_rows_stay_finite_and_centres_have_a_gradient():
    z, centres = torch.full((1, 2), 1e15), torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    q = student_t(z, centres)
    assert torch.isfinite(q).all()
    q[0, 0].backward()
    assert torch.isfinite(centres.grad).all()
    assert torch.autograd.gradcheck(student_t, (draws(4, 3).requires_grad_(), draws(2, 3).requires_grad_()))


def test_the_target_by_the_formula_and_without_gradient():
    q = torch.softmax(draws(6, 3), 1).requires_grad_()
    f = column_sums(q)
    assert torch.allclose(f, q.detach().sum(0))
    p = target(q, f)
    for i in range(6):
        raw = [float(q[i, j].detach()) ** 2 / float(f[j]) for j in range(3)]
        assert p[i].tolist() == pytest.approx([r / sum(raw) for r in raw], rel=1e-12)
    assert not p.requires_grad


def test_divergence_is_torchs_mean_over_rows_and_a_target_of_zero_counts_nothing():
    p, q = torch.softmax(draws(6, 3), 1), torch.softmax(draws(6, 4)[:, :3], 1)
    assert float(kl_rows(p, q.log(), 6)) == pytest.approx(float(kl_div(q.log(), p, reduction="batchmean")), rel=1e-12)
    assert float(kl_rows(p, q.log(), 12)) == pytest.approx(float(kl_div(q.log(), p, reduction="sum")) / 12, rel=1e-12)
    sure = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert float(kl_rows(sure, torch.log(torch.tensor([[0.5, 0.5]], dtype=torch.float64)), 1)) == pytest.approx(
        math.log(2)
    )
