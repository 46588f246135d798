"""The device that trains: moving arrays there without having the host wait for it, and what its memory holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ops.errors import ResourceError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


KERNELS = 1536 * 2**20  # bytes for CUDA's context and libraries, and for scratch tiles of 8192 rows: an allowance


def send(x: Tensor, device: torch.device) -> Tensor:
    """`x` on `device`, where it may be the same tensor; the host goes on while the copy is under way.

    A GPU copies in the background from pinned memory only, so a tensor of the CPU is pinned first.
    """
    if x.device == device:
        return x
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def card_memory() -> int | None:
    """Bytes of the smallest GPU of this machine; None: it has none."""
    import torch

    cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return min((torch.cuda.mem_get_info(card)[1] for card in cards), default=None)


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
