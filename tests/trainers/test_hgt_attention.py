"""The compiled loops over edges against gathers of torch, in value and gradient."""

import pytest
import torch

from trainers.hgt.attention import _scores_torch, _sums_torch, edge_scores, edge_sums


def drawn(targets=7, fanout=4, sources=5, heads=3, width=6, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    neighbours = torch.randint(sources, (targets, fanout), generator=g)
    mask = torch.rand(targets, fanout, generator=g) < 0.6
    mask[2] = False
    query, key = (torch.randn(n, heads, width, generator=g, dtype=dtype) for n in (targets, sources))
    share = torch.randn(targets, fanout, heads, generator=g, dtype=dtype)
    return query, share, key, neighbours, mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_loops_equal_gathers(dtype, transposed):
    query, share, key, *block = drawn(dtype=dtype)
    if transposed:  # views that are not contiguous, as a caller may have them
        key = key.transpose(1, 2).contiguous().transpose(1, 2)
    for ours, theirs, first in ((edge_scores, _scores_torch, query), (edge_sums, _sums_torch, share)):
        leaves = [first.clone().requires_grad_(), key.detach().clone().requires_grad_()]
        got, expected = ours(*leaves, *block), theirs(*leaves, *block)
        torch.testing.assert_close(got, expected)
        pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        one, two = (torch.autograd.grad((x * pull).sum(), leaves) for x in (got, expected))
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b)
            assert a.abs().max() > 0


def test_masked_edges_are_nothing_even_where_they_point_nowhere():
    query, share, key, neighbours, mask = drawn()
    elsewhere = torch.where(mask, neighbours, 10**9)
    assert torch.equal(edge_scores(query, key, elsewhere, mask), edge_scores(query, key, neighbours, mask))
    assert torch.equal(edge_sums(share, key, elsewhere, mask), edge_sums(share, key, neighbours, mask))
    assert not edge_sums(share, key, neighbours, mask)[2].any()
