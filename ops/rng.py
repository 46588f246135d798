"""Randomness without running generators: every draw is keyed by (seed, purpose, epoch, ...).

A resumed run, another number of workers or a retried request then draws the same numbers (design decision 4).
"""

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    TorchGenerator = torch.Generator
else:
    TorchGenerator = Any


def _key(seed: int, purpose: str, position: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *position])


def generator(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """A numpy generator for one purpose at one position, e.g. `generator(seed, "kmeans", epoch)`."""
    return np.random.Generator(np.random.Philox(_key(seed, purpose, position)))


def torch_generator(seed: int, purpose: str, *position: int, device: Any = "cpu") -> "TorchGenerator":
    """The same for torch, on the CPU where nothing else is asked for (so that every device starts from these numbers).

    Another device's generator draws other numbers, without a copy: for what a step draws there (dropout).
    """
    import torch  # a process that only serves parts of a graph has no use for it

    state = int(_key(seed, purpose, position).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state & (2**63 - 1))


def key64(seed: int, purpose: str, *position: int) -> int:
    """64 bits for draws that are hashes of (key, position)."""
    return int(_key(seed, purpose, position).generate_state(1, np.uint64)[0])


def uniforms(key: int, rows: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """`count` draws in [0, 1) for each of `rows` [B] -> [B, count]: hashes of (key, row), whatever the other rows are.

    splitmix64 (Steele, Lea & Flood 2014), once for the row and once for each of its draws.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    keys = _mixed(np.atleast_1d(rows).astype(np.uint64) * golden + np.uint64(key))
    bits = _mixed(keys[:, None] + np.arange(1, count + 1, dtype=np.uint64) * golden)
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
