"""The prototype loss against clusters written out: absent clusters, one cluster alone, gradients."""

import pytest
import torch
from image_losses import dense_prototypes, rows

from ops.losses.prototypes import prototype_loss

BATCHES = {
    "all": [0, 1, 2, 3, 0, 1, 2, 3, 3, 1],
    "absent": [0, 5, 5, 0, 2, 2, 2, 0, 5, 5],
    "two": [4, 4, 4, 1, 1, 1, 1, 1, 1, 4],
    "single rows": [0, 1, 2, 3, 4, 5, 0, 0, 0, 0],
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_value_and_gradient_equal_the_clusters_written_out(name, temperature):
    q, k, labels = rows(10, 5, 0).requires_grad_(), rows(10, 5, 1), torch.tensor(BATCHES[name])
    ours = prototype_loss(q, k, labels, 6, temperature)
    theirs = dense_prototypes(q, k, labels.tolist(), 6, temperature)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-12)
    (mine,), (other,) = torch.autograd.grad(ours, q), torch.autograd.grad(theirs, q)
    assert torch.allclose(mine, other, rtol=1e-10, atol=1e-14)


def test_clusters_that_the_batch_lacks_change_nothing():
    q, k, labels = rows(10, 5, 0), rows(10, 5, 1), torch.tensor(BATCHES["absent"])
    few = torch.unique(labels, return_inverse=True)[1]
    assert float(prototype_loss(q, k, labels, 100, 0.5)) == float(prototype_loss(q, k, few, 3, 0.5))


def test_a_batch_of_one_cluster_has_loss_and_gradient_zero():
    q = rows(7, 5, 0).requires_grad_()
    loss = prototype_loss(q, rows(7, 5, 1), torch.full((7,), 2), 4, 0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(q.grad, torch.zeros_like(q))


def test_the_target_gets_no_gradient():
    q, k = rows(8, 5, 0).requires_grad_(), rows(8, 5, 1).requires_grad_()
    prototype_loss(q, k, torch.arange(8) % 3, 3, 0.5).backward()
    assert q.grad is not None
    assert k.grad is None
