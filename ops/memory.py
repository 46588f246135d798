"""What memory a process uses and may use; bytes throughout."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import ResourceError

THREADS_AND_KERNELS = 160 * 2**20  # what torch, BLAS and scikit-learn take at their first real work, measured on bat
_loading_limit: ContextVar[float] = ContextVar("_loading_limit", default=0.0)  # GiB, 0: what there is
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGE = -1, -3, 8 * 2**20  # mallopt(3); bytes


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def resident() -> int:
    """Resident memory of this process now."""
    return _status("VmRSS")


def peak() -> int:
    """The most it was since the last `reset_peak` (or the start)."""
    return _status("VmHWM")


def give_back() -> None:
    """Return to the system what glibc keeps of freed arrays.

    Threads that draw ahead leave holes in its heaps: HGT's resident memory grew by hundreds of MiB a seed without it.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed() -> None:
    """Have glibc keep up to 256 MiB that are freed, for a process that makes arrays of the same sizes again and again.

    By default it gives each one back, and the kernel clears every page of the next one.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 * _LARGE)  # the most that it takes
        ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, 32 * _LARGE)


def release(array: NDArray[Any] | None) -> None:
    """Count what was read of a mapped file no more as this process's memory; it stays in the page cache.

    Of an array in memory nothing changes.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        with suppress(OSError, ValueError):  # a kernel that does not know the advice
            base.madvise(mmap.MADV_DONTNEED)


def reset_peak() -> None:
    """Start the peak anew, so that a second seed in the same process has its own; ignored where the kernel refuses."""
    give_back()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def available() -> int:
    """What this process may use: the machine's memory, or the cgroup's limit where that is lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text()))
    return min(limits)


def preload() -> int:
    """Import what a training imports late, so that the baseline holds it; returns the resident memory afterwards.

    Torch's compiler is no part of it. Also has glibc give large arrays back when they are freed: by default it keeps
    those below 32 MiB for later, which on Cora made the peak a third higher and no plan could tell it.
    """
    import sklearn.decomposition
    import sklearn.metrics  # noqa: F401
    import torch

    from ops.eager import without_compiler

    without_compiler()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    # the first product and the first optimiser step load the kernels and start the thread pool
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    return resident()


def check_fits(planned: int, limit_gib: float, advice: str) -> None:
    """Raise ResourceError where the plan exceeds `limit_gib` (0: what there is), with the settings that would fit."""
    limit = int(limit_gib * 2**30) or available()
    if planned > limit:
        raise ResourceError(
            f"the training is planned to need {planned / 2**30:.2f} GiB, there are {limit / 2**30:.2f} GiB: {advice}"
        )


@contextmanager
def loading_within(limit_gib: float) -> Iterator[None]:
    """Data that is loaded inside may take `limit_gib` GiB (0: what there is): `check_load`."""
    token = _loading_limit.set(limit_gib)
    try:
        yield
    finally:
        _loading_limit.reset(token)


def check_load(planned: int, origin: str) -> None:
    """Raise ResourceError where an input, which `origin` names, needs more bytes than loading may take."""
    limit = int(_loading_limit.get() * 2**30) or available()
    if planned > limit:
        raise ResourceError(
            f"{origin}: loading it is planned to need {planned / 2**30:.2f} GiB, there are {limit / 2**30:.2f} GiB; "
            "give fewer rows or columns, or a larger --memory-limit on a larger machine"
        )
