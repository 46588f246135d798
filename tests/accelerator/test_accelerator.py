"""The pretended accelerator itself: it refuses what a card refuses, computes as the CPU does, and counts."""

import pytest
import torch
from accelerator import NAME, accelerator

from ops.device import autocast, products


@pytest.mark.parametrize("wrong", [
    lambda x: x + torch.ones(3),
    lambda x: x.numpy(),
    lambda x: torch.ones(3)[x.long()],
    lambda x: torch.rand(3, device=NAME, generator=torch.Generator().manual_seed(0)),
    lambda x: torch.where(torch.ones(3) > 0, x, x),
])  # fmt: skip
def test_what_a_card_refuses_is_refused(wrong):
    with accelerator(), pytest.raises((RuntimeError, TypeError)):
        wrong(torch.ones(3, device=NAME))


@pytest.mark.parametrize(("work", "waits"), [
    (lambda x: x @ x.T, 0),
    (lambda x: float(x.sum()), 1),
    (lambda x: x.cpu(), 1),
    (lambda x: x[x > 0], 1),
    (lambda x: x[torch.tensor([0])], 1),
    (lambda x: x[torch.tensor([0]).to(NAME, non_blocking=True)], 0),
    (lambda x: x + torch.tensor(1.0), 0),
    (lambda x: x + torch.tensor(1.0, device=NAME), 1),
    (torch.unique, 1),
    (lambda x: torch.ones(4).to(NAME), 1),
    (lambda x: torch.ones(4).to(NAME, non_blocking=True), 0),
    (lambda x: torch.nn.functional.one_hot(x[:, 0].long(), 9), 0),
])  # fmt: skip
def test_waits_are_counted(work, waits):
    with accelerator() as count:
        x = torch.arange(6.0).view(2, 3).to(NAME)
        count.clear()
        work(x)
    assert count["host syncs"] == waits


def test_values_gradients_and_draws_are_the_cpus():
    def work(device):
        draws = torch.rand(5, 4, device=device, generator=torch.Generator(device).manual_seed(3))
        x = draws.requires_grad_()
        (gradient,) = torch.autograd.grad((x @ x.T).softmax(1).square().sum(), x)
        return draws.detach().cpu(), gradient.cpu()

    with accelerator() as count:
        on_device = work(NAME)
    assert count["kernels"] > 5
    assert count["d2h bytes"] == 2 * 5 * 4 * 4
    for here, there in zip(work("cpu"), on_device, strict=True):
        assert torch.equal(here, there)


@pytest.mark.parametrize(("precision", "error"), [("float32", 0), ("tf32", 2**-10), ("bf16", 2**-7)])
def test_products_are_as_precise_as_they_should_be(precision, error):
    x = torch.rand(40, 40, generator=torch.Generator().manual_seed(0))
    with accelerator(), products(torch.device(NAME), precision), autocast(torch.device(NAME), precision):
        y = x.to(NAME)
        product = (y @ y).cpu()
    assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    relative = ((product - x @ x) / (x @ x)).abs().max()
    assert relative == 0 if error == 0 else error / 64 < relative < error
    assert torch.get_float32_matmul_precision() == "highest"
