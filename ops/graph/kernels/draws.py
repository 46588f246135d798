"""Compiled loops of neighbour sampling: keyed draws and renumbering. Imported inside functions (numba takes a second).

A draw is a hash of (key, node, slot), so that it does not depend on the order of requests or on the process that
answers them.

Axes: B rows, f fan-out, E stored edges, M ids, P parts.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

REPLACE, DISTINCT, PADDED = 0, 1, 2  # with replacement; without; without, then repeated circularly up to the fan-out


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
    """A number in [0, below): the upper 32 bits, scaled (Lemire 2019); its bias is less than below / 2^32."""
    bits = _mix(key + np.uint64(slot) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    return np.int64((bits * np.uint64(below)) >> np.uint64(32))


@njit(cache=True, nogil=True)
def _distinct(key_of_row: np.uint64, degree: int, fanout: int, drawn: NDArray[Any]) -> None:
    """`fanout` different places below `degree`, by Floyd's method (Bentley & Floyd 1987)."""
    for j in range(fanout):
        top = degree - fanout + j
        pick = _draw(key_of_row, j, top + 1)
        for before in range(j):
            if drawn[before] == pick:
                pick = np.int64(top)
                break
        drawn[j] = pick


@njit(cache=True, nogil=True)
def neighbours(
    indptr: NDArray[np.int64], indices: NDArray[Any], rows: NDArray[Any], first: int,
    key: np.uint64, fanout: int, mode: int, drawn: NDArray[Any],
) -> None:  # fmt: skip
    """Draw `fanout` of the stored neighbours of each row: drawn [B f] has source numbers, -1 where there is no edge.

    `rows` [B] index `indptr` (int64 [n + 1]). The global numbers of their nodes, rows + `first`, key the draws.
    """
    for i in range(len(rows)):
        start = indptr[rows[i]]
        degree = indptr[rows[i] + 1] - start
        key_of_row = _mix(key ^ _mix(np.uint64(rows[i] + first) + np.uint64(0x9E3779B97F4A7C15)))
        if mode != REPLACE and degree > fanout:
            _distinct(key_of_row, degree, fanout, drawn[i])
        for j in range(fanout):
            if degree == 0 or (mode == DISTINCT and j >= degree):
                drawn[i, j] = -1
            elif mode == REPLACE:
                drawn[i, j] = indices[start + _draw(key_of_row, j, degree)]
            elif degree > fanout:
                drawn[i, j] = indices[start + drawn[i, j]]
            else:
                drawn[i, j] = indices[start + j % degree]


@njit(cache=True, nogil=True)
def grouped(offsets: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions [M] of `ids` in the order of the parts that have them (stable), and where each part begins [P + 1].

    Part p has the numbers offsets[p] .. offsets[p + 1] - 1.
    """
    parts = len(offsets) - 1
    owner = np.empty(len(ids), np.int32)
    ends = np.zeros(parts + 1, np.int64)
    for i in range(len(ids)):
        low, high = 0, parts - 1
        while low < high:
            middle = (low + high + 1) // 2
            if ids[i] >= offsets[middle]:
                low = middle
            else:
                high = middle - 1
        owner[i] = low
        ends[low + 1] += 1
    for part in range(parts):
        ends[part + 1] += ends[part]
    at = ends[:-1].copy()
    order = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        order[at[owner[i]]] = i
        at[owner[i]] += 1
    return order, ends


@njit(cache=True, inline="always")
def _empty(count: int) -> NDArray[np.int64]:
    """A hash table for `count` places: a power of two in size, at most half full; -1 marks an empty slot."""
    size = 16
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int64)


@njit(cache=True, inline="always")
def _slot(slots: NDArray[np.int64], listed: NDArray[np.int64], wanted: np.int64) -> np.uint64:
    """The slot in which the table has, or would have, the place of `wanted` in `listed`."""
    last = np.uint64(len(slots) - 1)
    at = _mix(np.uint64(wanted)) & last
    while slots[at] >= 0 and listed[slots[at]] != wanted:
        at = (at + np.uint64(1)) & last
    return at


@njit(cache=True, nogil=True)
def table_of(listed: NDArray[np.int64]) -> NDArray[np.int64]:
    """A hash table of the unique ids `listed`, for `places`."""
    slots = _empty(len(listed))
    for i in range(len(listed)):
        slots[_slot(slots, listed, listed[i])] = i
    return slots


@njit(cache=True, nogil=True)
def places(slots: NDArray[np.int64], listed: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place [M] of each of `ids` in `listed`, by its table `slots`; -1 where the id is not listed."""
    at = np.empty(len(ids), np.int64)
    for i in range(len(ids)):
        at[i] = slots[_slot(slots, listed, ids[i])]
    return at


@njit(cache=True, nogil=True)
def renumber(
    first_ids: NDArray[np.int64], ids: NDArray[np.int64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions int64 [M] of `ids` in a list that begins with the unique `first_ids`; new ids are appended.

    Where `mask` is False the position is 0 and the id is not listed. Returns (positions, the new ids in order).
    """
    slots = _empty(len(first_ids) + len(ids))
    listed = np.empty(len(first_ids) + len(ids), np.int64)
    for i in range(len(first_ids)):
        slots[_slot(slots, listed, first_ids[i])] = i
        listed[i] = first_ids[i]
    count = len(first_ids)
    positions = np.zeros(len(ids), np.int64)
    for i in range(len(ids)):
        if mask[i]:
            at = _slot(slots, listed, ids[i])
            if slots[at] < 0:
                slots[at] = count
                listed[count] = ids[i]
                count += 1
            positions[i] = slots[at]
    return positions, listed[len(first_ids) : count].copy()
