"""Compiled loops of neighbour sampling: keyed draws and renumbering. Imported where it is used (numba takes a second).

A draw is a hash of (key, node, slot), so it depends neither on the order of requests nor on who answers them.

Axes: B rows, f fan-out, E stored edges, M ids.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

REPLACE, DISTINCT, PADDED = 0, 1, 2  # with replacement; without; without, then circularly repeated up to the fan-out


@njit(cache=True, inline="always")
def _mix(x: np.uint64) -> np.uint64:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): a bijection whose output bits all depend on all input."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, inline="always")
def _draw(key: np.uint64, slot: int, below: Any) -> np.int64:
    """A number in [0, below): the upper 32 bits, scaled (Lemire 2019), whose bias is under below / 2^32."""
    bits = _mix(key + np.uint64(slot) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return np.int64((bits * np.uint64(below)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def _distinct(own: np.uint64, degree: int, fanout: int, found: NDArray[np.int64]) -> None:
    """`fanout` different places below `degree` (Floyd's way: Bentley & Floyd 1987)."""
    for j in range(fanout):
        top = degree - fanout + j
        pick = _draw(own, j, top + 1)
        for before in range(j):
            if found[before] == pick:
                pick = np.int64(top)
                break
        found[j] = pick


@njit(cache=True, nogil=True)
def neighbours(
    indptr: NDArray[np.int64], indices: NDArray[Any], rows: NDArray[np.int64], nodes: NDArray[np.int64],
    key: np.uint64, fanout: int, mode: int, found: NDArray[np.int64], mask: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Draw `fanout` of the stored neighbours of each row: found int64 [B f] (source numbers), mask bool [B f].

    `rows` [B] index `indptr` (int64 [n + 1]), `nodes` [B] are the same nodes' global numbers, which key the draws.
    """
    for i in range(len(rows)):
        first = indptr[rows[i]]
        degree = indptr[rows[i] + 1] - first
        own = _mix(key ^ _mix(np.uint64(nodes[i]) + np.uint64(0x9E3779B97F4A7C15)))
        if mode != REPLACE and degree > fanout:
            _distinct(own, degree, fanout, found[i])
        for j in range(fanout):
            mask[i, j] = degree > 0 and (mode != DISTINCT or j < degree)
            if degree == 0:
                found[i, j] = 0
            elif mode == REPLACE:
                found[i, j] = indices[first + _draw(own, j, degree)]
            elif degree > fanout:
                found[i, j] = indices[first + found[i, j]]
            else:
                found[i, j] = indices[first + j % degree]


@njit(cache=True, nogil=True)
def renumber(
    known: NDArray[np.int64], ids: NDArray[np.int64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions int64 [M] of `ids` in a list that begins with `known` (unique) and goes on with new ids as met.

    Where `mask` is False the position is 0 and the id is not listed. Returns (positions, the new ids in order).
    """
    size = 16
    while size < 2 * (len(known) + len(ids)):
        size *= 2
    slots = np.full(size, -1, np.int64)
    listed = np.empty(len(known) + len(ids), np.int64)
    last = np.uint64(size - 1)
    count = 0
    for i in range(len(known)):
        at = _mix(np.uint64(known[i])) & last
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & last
        slots[at] = count
        listed[count] = known[i]
        count += 1
    positions = np.zeros(len(ids), np.int64)
    for i in range(len(ids)):
        if mask[i]:
            at = _mix(np.uint64(ids[i])) & last
            while slots[at] >= 0 and listed[slots[at]] != ids[i]:
                at = (at + np.uint64(1)) & last
            if slots[at] < 0:
                slots[at] = count
                listed[count] = ids[i]
                count += 1
            positions[i] = slots[at]
    return positions, listed[len(known) : count].copy()
