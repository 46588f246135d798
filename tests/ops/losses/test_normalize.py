"""Rows of unit length: torch's own normalize is the reference, for values and gradients."""

import pytest
import torch
from torch.nn.functional import normalize

from ops.losses.normalize import unit_rows


def case(dtype=torch.float64):
    return (
        torch.randn(7, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)) * torch.logspace(-4, 3, 7)[:, None]
    )


@pytest.mark.parametrize(("dtype", "bar"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_value_and_gradient(dtype, bar):
    results = []
    for function in (unit_rows, normalize):
        x = case(dtype).requires_grad_()
        y = function(x)
        (y**3 * torch.arange(1, 6)).sum().backward()
        results.append((y.detach(), x.grad))
    (y, dx), (y_ref, dx_ref) = results
    assert torch.allclose(y, y_ref, rtol=bar, atol=bar)
    scale = dx_ref.abs().amax(1, keepdim=True)
    assert ((dx - dx_ref).abs() <= bar * scale).all()
    assert torch.allclose(y.norm(dim=1), torch.ones(7, dtype=dtype), atol=bar)


def test_a_zero_row_stays_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    y = unit_rows(x)
    assert torch.equal(y, torch.zeros(2, 3))
    y.sum().backward()
    reference = torch.zeros(2, 3, requires_grad=True)
    normalize(reference).sum().backward()
    assert torch.equal(x.grad, reference.grad)
