"""The squared error equals autograd's, and lives in the reconstruction's own memory."""

import torch

from ops.losses.mse_inplace import squared_error_


def test_equals_autograd_in_place():
    g = torch.Generator().manual_seed(0)
    x, h, w = (torch.randn(*s, dtype=torch.float64, generator=g) for s in ((6, 4), (6, 3), (3, 4)))
    ours, theirs = w.clone().requires_grad_(), w.clone().requires_grad_()
    product = h @ ours
    place = product.data_ptr()
    result = squared_error_(product, x, 24)
    expected = (h @ theirs - x).square().mean()
    assert torch.allclose(result, expected, rtol=1e-14)
    (3 * result).backward()
    (3 * expected).backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12)
    assert product.data_ptr() == place
    plain = squared_error_(h @ w, x, 24)  # without a gradient to take
    assert torch.allclose(plain, expected.detach())
