"""Compiled loops for the digests of a build, whose sums do not depend on order or chunks.

Imported inside functions only. Index arrays may be int32 or int64, so that a process compiles each loop once; the
compiled loops are stored beside this file. Axes: M edges, n rows, w words of a row.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True)
def _mix(a: Any, b: Any) -> Any:
    """A 64-bit mixture of two numbers (the finaliser of splitmix64)."""
    z = a * np.uint64(0x9E3779B97F4A7C15) + b + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def edge_digest(src: NDArray[Any], dst: NDArray[Any], weight: NDArray[Any], time: NDArray[Any]) -> Any:
    """Three sums modulo 2^64 over edges [M], in any order: two of the edges, and one of the reversed edges.

    `weight` has the bits of the weights (uint32) and may be empty; so may `time` (int64).
    """
    one, two, turned = np.uint64(0), np.uint64(0), np.uint64(0)
    for e in range(src.size):
        rest = np.uint64(0)
        if weight.size:
            rest = _mix(rest, np.uint64(weight[e]))
        if time.size:
            rest = _mix(rest, np.uint64(time[e]))
        s, d = np.uint64(src[e]), np.uint64(dst[e])
        forward = _mix(_mix(s, d), rest)
        one += forward
        two += _mix(forward, d)
        turned += _mix(_mix(d, s), rest)
    return one, two, turned


@njit(cache=True)
def row_prints(words: NDArray[Any], first: int) -> Any:
    """Two sums modulo 2^64 over rows [n, w] of uint64 words, keyed by the row's number; zeros count nothing."""
    one, two = np.uint64(0), np.uint64(0)
    for i in range(words.shape[0]):
        state = np.uint64(first + i)
        for j in range(words.shape[1]):
            if words[i, j]:
                state = _mix(state + np.uint64(j), words[i, j])
        one += _mix(state, np.uint64(1))
        two += _mix(state, np.uint64(2))
    return one, two
