"""The structure loss equals the dense binary cross-entropy, value and gradient, and holds no N x N array."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from ops.distributed.process_group import ProcessGroup
from ops.losses.link_bce import links_of, structure_loss


def graph(n=53, share=0.1):
    drawn = np.random.default_rng(1).random((n, n)) < share
    return sp.csr_array((drawn | drawn.T).astype(np.float32))  # some nodes with a loop of their own


def codes(n=53, d=4, scale=1.0, dtype=torch.float64):
    return (scale * torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(0))).requires_grad_()


def dense(c, a, weight):
    """From the equation: cross-entropy of every pair, a linked one (and every node with itself) weighing `weight`."""
    y = torch.from_numpy(a.toarray()).to(c.dtype).fill_diagonal_(1)
    return binary_cross_entropy_with_logits(c @ c.T, y, pos_weight=torch.tensor(weight, dtype=c.dtype))


@pytest.mark.parametrize("weight", [1.0, 7.25, 0.5])
@pytest.mark.parametrize("tile_rows", [1, 16, 64])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_equals_the_dense_form(weight, tile_rows, scale):
    a, ours, theirs = graph(), codes(scale=scale), codes(scale=scale)
    result = structure_loss(ours, links_of(a, ProcessGroup()), weight, tile_rows=tile_rows)
    expected = dense(theirs, a, weight)
    assert float(result.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    (3 * result).backward()
    (3 * expected).backward()
    assert (ours.grad - theirs.grad).abs().max() <= 1e-10 * theirs.grad.abs().max()


def test_float32_is_close_at_large_products():
    """Where softplus is straight or nil, as with features that the content loss pulls up."""
    a = graph()
    wide = codes(scale=30.0).detach()
    result = structure_loss(wide.float(), links_of(a, ProcessGroup()), 4.0)
    assert float(result) == pytest.approx(float(dense(wide, a, 4.0)), rel=1e-5)


def test_the_graphs_own_loops_count_once_and_balance_is_the_ratio():
    a = sp.csr_array(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=np.float32))
    links = links_of(a, ProcessGroup())
    assert sorted(zip(links.source.tolist(), links.target.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 2),
    ]  # fmt: skip
    assert links.positives == 5
    assert links.balance == pytest.approx(4 / 5)


def test_nothing_is_left_for_a_second_backward_pass():
    c = codes(8, 2)
    loss = structure_loss(c, links_of(graph(8), ProcessGroup()))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated already"):
        loss.backward()


def test_the_largest_array_is_a_tile():
    """Every tensor of a walk over 2,000 nodes is far smaller than N x N."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest.append(result.numel())
            return result

    n = 2000
    a, c = graph(n, 0.002), codes(n, 3, dtype=torch.float32)
    links = links_of(a, ProcessGroup())
    with Watch():
        structure_loss(c, links, 2.0, tile_rows=256).backward()
    assert 256 * 256 <= max(largest) <= 4 * 256 * 256 < n * n / 10
