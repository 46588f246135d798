"""The device that trains: how arrays go there, what its products are rounded to, and what its memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ops.errors import ResourceError, SettingsError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


Precision = Literal["float32", "tf32", "bf16"]
KERNELS = 1536 * 2**20  # bytes for CUDA's context and libraries, and for scratch tiles of 8192 rows: an allowance


def send(x: Tensor | NDArray[Any], device: torch.device) -> Tensor:
    """`x` on `device`, where it may be the same memory; the host goes on while the copy is under way.

    A GPU copies in the background from pinned memory only, so a tensor of the CPU is pinned first.
    """
    import numpy as np
    import torch

    if isinstance(x, np.ndarray):
        x = torch.from_numpy(np.ascontiguousarray(x))
    if x.device == device:
        return x
    if device.type == "cuda" and x.device.type == "cpu":
        with torch.cuda.device(device):  # a thread begins at the first card, which may be another worker's
            x = x.pin_memory()
    return x.to(device, non_blocking=True)


def device_on(asked: str) -> torch.device:
    """The device called `asked`, by auto a GPU where there is one. Raises SettingsError where there is no such."""
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=asked).device
    except (RuntimeError, AssertionError):  # the latter where torch is built without CUDA
        raise SettingsError(f"device {asked!r}: is not there; give auto, cpu or, with a GPU, cuda") from None


def precision_on(device: str, asked: str, choices: Sequence[Precision]) -> Precision:
    """What products are computed in on a type of device (`cpu`, `cuda`): what was `asked` for, or by `auto` float32 on
    CPUs and on a GPU the first of the method's `choices`.

    Raises SettingsError for what CPUs, or the method's gradients, do not take.
    """
    here: Sequence[Precision] = ("float32",) if device == "cpu" else choices
    chosen = here[0] if asked == "auto" else next((each for each in here if each == asked), None)
    if chosen is None:
        who = "products on CPUs" if device == "cpu" else "this method's products"
        raise SettingsError(f"--precision {asked}: is not for {who}; allowed are auto, {', '.join(here)}")
    return chosen


@contextmanager
def products(device: torch.device, precision: Precision) -> Iterator[None]:
    """Inside, a GPU's float32 products round their factors to TF32 (10 bits) unless float32 is asked for."""
    import torch

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if device.type != "cpu":
        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        torch.backends.cudnn.allow_tf32 = precision != "float32"
    try:
        yield
    finally:
        if device.type != "cpu":
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def ordered_sums(device: torch.device) -> Iterator[None]:
    """Inside, a CPU adds to a row that occurs several times in one order, whatever its threads do.

    By default they add as they come, so that no two runs with several threads have the same bits.
    """
    import torch
    from torch.utils import deterministic

    options: Any = deterministic
    before = torch.get_deterministic_debug_mode(), options.fill_uninitialized_memory
    if device.type == "cpu":
        torch.set_deterministic_debug_mode("warn")
        options.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        options.fill_uninitialized_memory = before[1]


@contextmanager
def without_subnormals() -> Iterator[None]:
    """Inside, this thread and those that it starts take numbers below 1.2e-38 (float64: 2.2e-308) for 0.

    Adam's mean of a gradient that has become 0, of a feature that few rows have or of a unit that no longer answers,
    shrinks to such numbers and stays there. A CPU takes many times longer with each of them, and they change no weight.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Inside, a network's products take and give bfloat16 where that is the precision."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def card_memory() -> int | None:
    """Bytes of the smallest GPU of this machine; None: it has none."""
    import torch

    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    # not mem_get_info, which would take some hundred MiB of every card for this process
    return min((torch.cuda.get_device_properties(card).total_memory for card in cards), default=None)


def check_card(planned: int, share: float, advice: str) -> str:
    """What the plan says of the GPU, of which a process has a `share`; "" where this machine has none.

    `planned` are the bytes that it takes for the arrays of a training: all of them, as if none stayed in main memory.
    Raises ResourceError where they do not fit, with the settings that would.
    """
    card = card_memory()
    if card is None or not share:
        return ""
    needed, there = (planned + KERNELS) / 2**30, card * min(share, 1.0) / 2**30
    if needed > there:
        raise ResourceError(
            f"the training is planned to need {needed:.2f} GiB of a GPU's memory, there are {there:.2f} GiB: {advice}"
        )
    return f"at most {needed:.2f} GiB of the GPU's {there:.1f}"
