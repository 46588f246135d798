"""Packing a training: a step after the way through a file is the step without it, to the bit."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from ops.training.optimizer_state import pack_training, unpack_training

X = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))


class Model(torch.nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(4, 3, generator=g))
        self.scale = torch.nn.Parameter(torch.tensor(0.5 + seed))  # no dimension, like alpha

    def loss(self) -> torch.Tensor:
        return (self.scale * X @ self.weight).cos().mean()


def training(seed=0, fused=True):
    model = Model(seed)
    return model, torch.optim.Adam(model.parameters(), lr=0.05, fused=fused)


def steps(model, optimizer, number, keep):
    for _ in range(number):
        if not keep:
            optimizer.zero_grad(set_to_none=True)
        model.loss().backward()
        optimizer.step()


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_going_on_equals_never_having_stopped(keep, fused, before, tmp_path):
    undisturbed, resumed = training(fused=fused), training(seed=7, fused=fused)
    steps(*undisturbed, before, keep)
    packed = pack_training(*undisturbed, gradients=keep)
    save_file({k: v.contiguous() for k, v in packed.items()}, tmp_path / "state.safetensors")
    unpack_training(load_file(tmp_path / "state.safetensors"), *resumed)
    for each in (undisturbed, resumed):
        steps(*each, 4, keep)
    assert same(pack_training(*undisturbed, gradients=True), pack_training(*resumed, gradients=True))


def test_a_state_of_another_model_is_refused():
    stored = pack_training(*training(), gradients=False)
    with pytest.raises(KeyError, match=r"model\.scale"):
        unpack_training({k: v for k, v in stored.items() if k != "model.scale"}, *training())
