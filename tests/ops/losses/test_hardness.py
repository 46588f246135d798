"""The hardness loss against pairs written out, its weights without gradient, and the cases without negatives."""

import math

import pytest
import torch
from image_losses import dense_hardness, rows
from torch.nn.functional import normalize

from ops.losses.hardness import hardest, hardness_loss


def gradient(loss, p):
    (result,) = torch.autograd.grad(loss, p)
    return result


@pytest.mark.parametrize("scale", [0.05, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_value_and_gradient_equal_the_pairs_written_out(seed, scale):
    k, p = rows(19, 6, seed, scale), rows(19, 6, seed + 50, scale)
    p = normalize(torch.lerp(k, p, 0.1 + 0.2 * seed)).requires_grad_()
    ours, theirs = hardness_loss(k, p, 0.5), dense_hardness(k, p, 0.5)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    assert torch.allclose(gradient(ours, p), gradient(theirs, p), rtol=1e-10, atol=1e-14)


def test_shares_of_anchors_sum_to_the_batch():
    k, p = rows(23, 5, 0), rows(23, 5, 1).requires_grad_()
    whole = hardness_loss(k, p, 0.3)
    parts = [hardness_loss(k, p, 0.3, slice(a, b)) for a, b in ((0, 9), (9, 10), (10, 23))]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-12)
    assert torch.allclose(sum(gradient(part, p) for part in parts), gradient(whole, p), atol=1e-15)


def test_without_negatives_the_hardest_positive_counts_alone():
    k = rows(8, 4, 0, 0.01)
    p = (-k).clone().requires_grad_()  # every student is farther from its teacher than any two teachers
    near, far, has = hardest(k, p.detach())
    assert not has.any()
    ours, theirs = hardness_loss(k, p, 0.5), dense_hardness(k, p, 0.5)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    assert torch.allclose(gradient(ours, p), gradient(theirs, p), atol=1e-14)
    assert float(ours.detach()) > math.log(2)
    assert len(near) == len(far) == 8


def test_a_student_equal_to_its_teacher_has_no_loss_to_lower_and_a_finite_gradient():
    k = rows(6, 4, 3)
    p = k.clone().requires_grad_()
    loss = hardness_loss(k, p, 0.5)
    assert float(loss.detach()) == pytest.approx(math.log(2))
    assert torch.equal(gradient(loss, p), torch.zeros_like(p))


def test_one_row_alone():
    k, p = rows(1, 4, 0), rows(1, 4, 1).requires_grad_()
    assert float(hardness_loss(k, p, 0.5).detach()) == pytest.approx(float(dense_hardness(k, p, 0.5).detach()))


def test_in_float32_distances_keep_their_digits_where_rows_are_close():
    k, p = rows(16, 32, 0, 1e-4), rows(16, 32, 0, 1.01e-4)
    exact = dense_hardness(k, p, 0.01)
    assert float(hardness_loss(k.float(), p.float(), 0.01)) == pytest.approx(float(exact), rel=1e-4)
