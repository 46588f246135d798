"""States of random bits, and whether two are the same, for the tests of checkpoints."""

import torch

from ops.api import State


def tensor(dtype, shape=(3, 4), seed=0):
    """Random bits of any type; NaN payloads included."""
    count = torch.Size(shape).numel() * (torch.empty(0, dtype=dtype).element_size())
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator).view(dtype).reshape(shape)


def bits(value):
    return value.contiguous().flatten().view(torch.uint8).tolist(), value.dtype, value.shape


def same(left, right):
    assert left.epoch == right.epoch
    assert left.shared.keys() == right.shared.keys()
    assert left.parts.keys() == right.parts.keys()
    pairs = [(v, right.shared[k]) for k, v in left.shared.items()]
    for part, arrays in left.parts.items():
        assert arrays.keys() == right.parts[part].keys()
        pairs += [(v, right.parts[part][k]) for k, v in arrays.items()]
    for a, b in pairs:
        if isinstance(a, torch.Tensor):
            assert bits(a) == bits(b)
        else:
            assert (a, type(a)) == (b, type(b))


def small(epoch):
    return State(
        epoch,
        {"w": tensor(torch.float32, seed=epoch), "half": tensor(torch.bfloat16, seed=epoch), "note": {"epoch": epoch}},
        {0: {"tile": tensor(torch.uint16, seed=epoch)}, 7: {"tile": tensor(torch.int64, seed=epoch)}},
    )
