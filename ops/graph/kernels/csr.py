"""Compiled loops of the build: edges to their owners' parts, CSR rows sorted by source, repeats merged.

Imported inside functions only (numba is heavy). Inputs are not checked: `ops.graph.partition.csr` does that. Index
arrays are int32 or int64 alike, so a process compiles each loop once; the results are kept beside this file.
Axes: M edges, N nodes, P parts, n nodes of a part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SHORT = 48  # rows up to this length are sorted by insertion, longer ones by merging


@njit(cache=True)
def route(
    src: NDArray[Any], dst: NDArray[Any], part: NDArray[Any], number: NDArray[Any], local: NDArray[Any],
    bounds: NDArray[Any], out_src: NDArray[Any], out_dst: NDArray[Any], order: NDArray[Any],
) -> None:  # fmt: skip
    """Edges [M] as runs by the part of their destination, stable: a counting sort.

    `part` [N] and `local` [N] tell a destination's part and row within it, `number` a source's number. Writes
    `bounds` [P + 1], `out_src`, `out_dst` [M], and `order` [M] (where each came from) unless it has no room.
    """
    for e in range(dst.size):
        bounds[part[dst[e]] + 1] += 1
    for p in range(bounds.size - 1):
        bounds[p + 1] += bounds[p]
    at = bounds[:-1].copy()
    keep = order.size == dst.size
    for e in range(dst.size):
        d = dst[e]
        p = part[d]
        to = at[p]
        at[p] = to + 1
        out_src[to] = number[src[e]]
        out_dst[to] = local[d]
        if keep:
            order[to] = e


@njit(cache=True)
def _insert(indices: NDArray[Any], order: NDArray[Any], first: int, last: int) -> None:
    """Sort indices[first:last] stably by insertion, `order` (unless it has no room) along with them."""
    keep = order.size == indices.size
    for k in range(first + 1, last):
        value = indices[k]
        j = k - 1
        if indices[j] <= value:
            continue
        moved = order[k] if keep else 0
        while j >= first and indices[j] > value:
            indices[j + 1] = indices[j]
            if keep:
                order[j + 1] = order[j]
            j -= 1
        indices[j + 1] = value
        if keep:
            order[j + 1] = moved


@njit(cache=True)
def rows_of(
    src: NDArray[Any], dst: NDArray[Any], indptr: NDArray[Any], indices: NDArray[Any], order: NDArray[Any]
) -> None:
    """CSR of edges [M]: by destination, within a row by source, then as given. `order` [M] as in `route`, or empty."""
    for e in range(dst.size):
        indptr[dst[e] + 1] += 1
    for i in range(indptr.size - 1):
        indptr[i + 1] += indptr[i]
    at = indptr[:-1].copy()
    keep = order.size == dst.size
    for e in range(dst.size):
        d = dst[e]
        to = at[d]
        at[d] = to + 1
        indices[to] = src[e]
        if keep:
            order[to] = e
    for i in range(indptr.size - 1):
        first, last = indptr[i], indptr[i + 1]
        if last - first <= _SHORT:
            _insert(indices, order, first, last)
            continue
        ranks = np.argsort(indices[first:last], kind="mergesort")
        indices[first:last] = indices[first:last][ranks]
        if keep:
            order[first:last] = order[first:last][ranks]


@njit(cache=True)
def merge(indptr: NDArray[Any], indices: NDArray[Any], weight: NDArray[Any], time: NDArray[Any]) -> int:
    """Repeated entries become one, in place: weights are summed (in float64, in order), the latest time stays.

    `weight` and `time` may be empty. Returns how many entries are left; those behind are rubbish.
    """
    to = 0
    first = indptr[0]
    for i in range(indptr.size - 1):
        last = indptr[i + 1]
        k = first
        while k < last:
            total = 0.0
            latest = time[k] if time.size else 0
            j = k
            while j < last and indices[j] == indices[k]:
                if weight.size:
                    total += weight[j]
                if time.size:
                    latest = max(latest, time[j])
                j += 1
            indices[to] = indices[k]
            if weight.size:
                weight[to] = total
            if time.size:
                time[to] = latest
            to += 1
            k = j
        first = last
        indptr[i + 1] = to
    return to


@njit(cache=True)
def _mix(a: Any, b: Any) -> Any:
    """A 64-bit mixture of two numbers (the finaliser of splitmix64)."""
    z = a * np.uint64(0x9E3779B97F4A7C15) + b + np.uint64(0x632BE59BD9B4E019)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def fingerprint(src: NDArray[Any], dst: NDArray[Any], weight: NDArray[Any], time: NDArray[Any]) -> Any:
    """Three sums modulo 2^64 over edges [M]: two of the edges, one of the edges turned round; order counts nothing.

    `weight` holds the bits of the weights (uint32) and may be empty, as `time` (int64).
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
