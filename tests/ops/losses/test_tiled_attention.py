"""Fused attention equals the dense form, values and gradients."""

import pytest
import torch
from accelerator import NAME, accelerator

from ops.losses import tiled_attention
from ops.losses.tiled_attention import attend


def inputs(n, width, dtype=torch.float64):
    g = torch.Generator().manual_seed(3)
    return [torch.randn(n, width, dtype=dtype, generator=g, requires_grad=True) for _ in range(3)]


def dense(q, k, v, heads, scale):
    """From the text: every head's N x N weights."""
    result = []
    for a, b, c in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        result.append(torch.softmax(scale * a @ b.T, dim=1) @ c)
    return torch.cat(result, 1)


@pytest.mark.parametrize(("heads", "width"), [(1, 5), (2, 8), (8, 80)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_the_dense_form(heads, width, scale):
    ours, theirs = inputs(41, width), inputs(41, width)
    result, expected = attend(*ours, heads, 41, scale=scale), dense(*theirs, heads, scale)
    assert (result - expected).abs().max() <= 1e-12
    weight = torch.randn(41, width, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-10 * b.grad.abs().max()


def test_the_kernel_is_a_fused_one():
    result = attend(*inputs(9, 4, torch.float32), 2, 9, scale=1.0)
    node, names = result.grad_fn, []
    while node is not None:
        names.append(node.name())
        node = node.next_functions[0][0] if node.next_functions else None
    assert any("Flash" in name or "Efficient" in name for name in names), names


def test_a_gpus_kernels_get_rows_of_a_width_that_they_take(monkeypatch):
    widths, fused = [], tiled_attention.scaled_dot_product_attention

    def seen(q, k, v, scale):
        widths.extend(x.shape[-1] for x in (q, k, v))
        return fused(q, k, v, scale=scale)

    monkeypatch.setattr(tiled_attention, "scaled_dot_product_attention", seen)
    rows = inputs(9, 10, torch.float32)
    with accelerator():
        attended = attend(*(x.detach().to(NAME) for x in rows), 2, 9, scale=0.5).cpu()
    assert widths == [8, 8, 8]
    torch.testing.assert_close(attended, dense(*(x.detach() for x in rows), 2, 0.5))
