"""The device: what is sent there, and the plan against a GPU's memory."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from ops import device
from ops.errors import ResourceError, SettingsError

GIB = 2**30


@pytest.fixture
def card(monkeypatch):
    """A machine with cards of 16 and of 8 GiB."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    cards = [SimpleNamespace(total_memory=gib * GIB) for gib in (16, 8)]
    monkeypatch.setattr("torch.cuda.get_device_properties", cards.__getitem__)


def test_what_is_there_already_is_not_copied():
    x = torch.ones(3)
    assert device.send(x, torch.device("cpu")) is x


def test_a_device_that_is_not_there_is_one_line():
    assert device.device_on("cpu") == torch.device("cpu")
    for asked in ("nonsense", *(() if torch.cuda.is_available() else ("cuda",))):
        with pytest.raises(SettingsError, match=f"device '{asked}': is not there; give auto, cpu or, with a GPU, cuda"):
            device.device_on(asked)


def test_without_a_card_nothing_is_checked_or_said(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device.card_memory() is None
    assert device.check_card(10**15, 1.0, "x") == ""


@pytest.mark.parametrize(("gib", "share", "words"), [
    (5, 1.0, "at most 6.50 GiB of the GPU's 8.0"),
    (5, 2.0, "at most 6.50 GiB of the GPU's 8.0"),
    (2, 0.5, "at most 3.50 GiB of the GPU's 4.0"),
    (50, 0.0, ""),
])  # fmt: skip
def test_a_plan_is_told_against_the_smallest_card(card, gib, share, words):
    assert device.check_card(gib * GIB, share, "x") == words


@pytest.mark.parametrize(("gib", "share"), [(8, 1.0), (4, 0.5)])
def test_a_plan_beyond_the_card_ends_with_the_settings_that_fit(card, gib, share):
    with pytest.raises(ResourceError, match=r"of a GPU's memory, there are .* GiB: lower --embedding-dim") as error:
        device.check_card(gib * GIB, share, "lower --embedding-dim")
    assert error.value.code == 4


def test_sums_over_rows_that_occur_several_times_have_the_same_bits_with_several_threads():
    rows = torch.randn(300, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    places = torch.randint(300, (60_000,), generator=torch.Generator().manual_seed(1))
    weights = torch.randn(60_000, 64, generator=torch.Generator().manual_seed(2))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with device.ordered_sums(torch.device("cpu")):
            first, *others = (torch.autograd.grad((rows[places] * weights).sum(), rows)[0] for _ in range(10))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(first, other) for other in others)  # without, hardly any two are equal
    assert torch.get_deterministic_debug_mode() == 0


def test_means_of_gradients_that_have_become_0_leave_no_subnormal_numbers_and_change_no_weight():
    def train() -> torch.optim.Adam:
        weights = torch.ones(8, 8, requires_grad=True)
        optimizer = torch.optim.Adam([weights], fused=True)
        for step in range(1200):
            weights.grad = torch.full_like(weights, 0.0 if step else 0.1)
            optimizer.step()
        return optimizer

    def mean_of(optimizer: torch.optim.Adam) -> torch.Tensor:
        (state,) = optimizer.state.values()
        return state["exp_avg"]

    with device.without_subnormals(), ThreadPoolExecutor(1) as new:  # torch's threads of this one may have begun before
        faster = new.submit(train).result()
    slower = train()
    assert not mean_of(faster).any()
    assert mean_of(slower).all()  # it stays at the smallest numbers: they are as before again
    assert torch.equal(*(each.param_groups[0]["params"][0] for each in (faster, slower)))
