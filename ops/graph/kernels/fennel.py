"""The compiled loop of Fennel: places nodes one after another where most neighbours are and there is room.

Imported inside functions only (numba is heavy). Axes: N nodes, P parts, T node types, B nodes of the stream.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_REFRESH = 64  # after so many nodes the part with most room is searched again


@njit(cache=True)
def _roomiest(load: NDArray[Any], cap: NDArray[Any], parts: NDArray[Any]) -> None:
    for t in range(parts.size):
        parts[t] = np.argmax(cap[t] - load[t])


@njit(cache=True)
def _neighbours(node: int, near: NDArray[Any], part: NDArray[Any], count: NDArray[Any], touched: NDArray[Any]) -> int:
    """How many of the neighbours `near` are in each part (`count` [P]), and which parts have any."""
    touched_parts = 0
    for k in range(near.size):
        p = part[near[k]]
        if p >= 0 and near[k] != node:
            if count[p] == 0:
                touched[touched_parts] = p
                touched_parts += 1
            count[p] += 1
    return touched_parts


@njit(cache=True)
def _best(
    touched: NDArray[Any], count: NDArray[Any], strength: float, price: NDArray[Any], load: NDArray[Any],
    cap: NDArray[Any], weight: float, rest: int,
) -> int:  # fmt: skip
    """The part with the best score among the `touched` ones with room and `rest`; clears their `count`."""
    best = rest
    score = count[rest] - strength * price[rest]
    for p in touched:
        here = count[p] - strength * price[p]
        if here > score and load[p] + weight <= cap[p]:
            best, score = p, here
    for p in touched:
        count[p] = 0
    return best


@njit(cache=True)
def stream(
    order: NDArray[Any], first: int, indptr: NDArray[Any], indices: NDArray[Any], ends: NDArray[Any],
    part: NDArray[Any], load: NDArray[Any], cap: NDArray[Any], mean: NDArray[Any], strength: float,
) -> int:  # fmt: skip
    """Place nodes `order` [B] (rows of the CSR, node = row + `first`) one after another; returns how many moved.

    `part` [N] (-1: not placed yet) and `load` [T, P] (degrees + 1 of the nodes of a type in a part) change in place. A
    node goes to the part with the highest `neighbours in it - strength * (degree + 1) * sqrt(load / mean)` among those
    whose load stays within `cap` [T, P]. `ends` [T] are one past the last node of each type.
    """
    parts = load.shape[1]
    count = np.zeros(parts, dtype=np.int64)
    touched = np.empty(parts, dtype=np.int64)
    price = np.sqrt(load / mean.reshape(-1, 1))
    lightest = np.zeros(ends.size, dtype=np.int64)
    moved = 0
    for step in range(order.size):
        if step % _REFRESH == 0:
            _roomiest(load, cap, lightest)
        row = order[step]
        node = row + first
        t = np.searchsorted(ends, node, side="right")
        begin, end = indptr[row], indptr[row + 1]
        weight = float(end - begin + 1)
        old = part[node]
        if old >= 0:
            load[t, old] -= weight
            price[t, old] = np.sqrt(load[t, old] / mean[t])
        touched_parts = _neighbours(node, indices[begin:end], part, count, touched)
        rest = lightest[t]
        if old >= 0 and (load[t, old] + weight <= cap[t, old] or load[t, rest] + weight > cap[t, rest]):
            rest = old
        best = _best(touched[:touched_parts], count, strength * weight, price[t], load[t], cap[t], weight, rest)
        load[t, best] += weight
        price[t, best] = np.sqrt(load[t, best] / mean[t])
        part[node] = best
        moved += best != old
    return moved
