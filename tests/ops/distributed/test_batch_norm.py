"""Batch normalisation of one process against torch's, of several against one: values, gradients, statistics."""

import pytest
import torch
from gloo import run_in_processes
from image_losses import dense_norm

from ops.distributed.batch_norm import BatchNorm, average_statistics
from ops.distributed.process_group import ProcessGroup

SHARES = ((0, 4), (4, 5), (5, 12))  # unequal, one of a single row


def inputs(offset=0.0, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = (torch.randn(12, 3, 5, generator=g, dtype=torch.float64) + offset).to(dtype)
    out = torch.randn(12, 3, 5, generator=g, dtype=torch.float64).to(dtype)
    return x, out


def made(group=None, sync=True, dtype=torch.float64):
    norm = BatchNorm(3, group, sync=sync).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, 3.0]))
    return norm


def passed(norm, x, out):
    """Output, gradients of the input and of weight and bias, and running statistics after one step."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * out).sum().backward()
    result = (y, x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
    return [f.detach().numpy() for f in result]


def worker(rank, world, cases):
    return [shared(rank, world, *case) for case in cases]


def shared(rank, world, offset, dtype):
    first, last = SHARES[rank]
    x, out = (t[first:last] for t in inputs(offset, getattr(torch, dtype)))
    group = ProcessGroup(rank, world)
    synced = passed(made(group, True, getattr(torch, dtype)), x, out)
    alone = made(group, sync=False)
    local = passed(alone, x.double(), out.double())
    average_statistics(alone, group)
    return synced, local, alone.running_mean.numpy(), group.reduced


def test_one_process_is_the_definition():
    x, out = inputs(5.0)
    norm = made()
    x = x.requires_grad_()
    ours = norm(x)
    theirs, mean, var = dense_norm(x, norm.weight, norm.bias)
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.allclose(norm.running_mean, 0.1 * mean)
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * var * 60 / 59)
    mine, other = (torch.autograd.grad((y * out).sum(), x)[0] for y in (ours, theirs))
    assert torch.allclose(mine, other, atol=1e-12)
    norm.eval()
    scale = norm.weight / torch.sqrt(norm.running_var + 1e-5)
    expected = (x - norm.running_mean[:, None]) * scale[:, None] + norm.bias[:, None]
    assert torch.allclose(norm(x), expected)


def test_one_value_a_channel_becomes_the_bias():
    norm = made()
    assert torch.equal(norm(torch.randn(1, 3, dtype=torch.float64)), norm.bias.detach()[None])


CASES = [(0.0, "float64", 1e-12), (1e3, "float32", 1e-4)]  # sums of squares in float32 would lose the second's variance


@pytest.mark.slow
def test_workers_with_unequal_shares_equal_one_process():
    made_by = run_in_processes(3, worker, [case[:2] for case in CASES])
    for number, (offset, dtype, bar) in enumerate(CASES):
        check([each[number] for each in made_by], offset, dtype, bar)


def check(result, offset, dtype, bar):
    x, out = inputs(offset, getattr(torch, dtype))
    whole = passed(made(), x.double(), out.double())
    for rank, (first, last) in enumerate(SHARES):
        y, dx, _, _, mean, var = result[rank][0]
        for ours, theirs in ((y, whole[0][first:last]), (dx, whole[1][first:last]), (mean, whole[4]), (var, whole[5])):
            assert abs(ours - theirs).max() <= bar * abs(theirs).max()
        assert result[rank][3] >= (2 * 3 + 1) * 8 + 2 * 3 * 4  # one all-reduce forward, one backward
    for place in (2, 3):  # each has the gradient of its own rows: they sum to the whole
        assert abs(sum(f[0][place] for f in result) - whole[place]).max() <= bar * abs(whole[place]).max()
    for rank, (first, last) in enumerate(SHARES):  # without sync each is on its own
        alone = passed(made(sync=False), x[first:last].double(), out[first:last].double())
        for ours, theirs in zip(result[rank][1][:4], alone[:4], strict=True):
            assert abs(ours - theirs).max() <= 1e-9
        assert abs(result[rank][2] - sum(f[1][4] for f in result) / 3).max() < 1e-9  # until they are averaged
