"""Compiled loops of attention over sampled neighbours, forward and backward, with one pass over the edges each.

Imported inside functions (numba takes a second). Only real edges cost anything, no array has a row for each edge and
width, and sums run in the order of rows and slots on one thread, so that they are always the same.

Axes: B targets, f neighbours a target, N sources, A heads of width d.
"""

from typing import Any

from numba import njit
from numpy.typing import NDArray

Array = NDArray[Any]

_LOOSE = {"reassoc", "contract", "nsz"}  # lets a dot product use vector registers; NaN and inf stay


@njit(cache=True, nogil=True, fastmath=_LOOSE)
def dots(query: Array, key: Array, neighbours: Array, mask: Array, scores: Array) -> None:
    """scores [B f A] = query [B A d] . key [N A d] for each edge; 0 where there is none."""
    width = query.shape[2]
    for i in range(neighbours.shape[0]):
        for j in range(neighbours.shape[1]):
            if mask[i, j]:
                n = neighbours[i, j]
                for a in range(query.shape[1]):
                    total = query[i, a, 0] * key[n, a, 0]
                    for k in range(1, width):
                        total += query[i, a, k] * key[n, a, k]
                    scores[i, j, a] = total
            else:
                scores[i, j, :] = 0


@njit(cache=True, nogil=True, fastmath=_LOOSE)
def gathered(share: Array, value: Array, neighbours: Array, mask: Array, total: Array) -> None:
    """total [B A d] += share [B f A] times value [N A d], summed over the edges of each target."""
    for i in range(neighbours.shape[0]):
        for j in range(neighbours.shape[1]):
            if mask[i, j]:
                n = neighbours[i, j]
                for a in range(share.shape[2]):
                    by = share[i, j, a]
                    for k in range(value.shape[2]):
                        total[i, a, k] += by * value[n, a, k]


@njit(cache=True, nogil=True, fastmath=_LOOSE)
def scattered(share: Array, gradient: Array, neighbours: Array, mask: Array, total: Array) -> None:
    """total [N A d] += share [B f A] times gradient [B A d], added to the source of each edge."""
    for i in range(neighbours.shape[0]):
        for j in range(neighbours.shape[1]):
            if mask[i, j]:
                n = neighbours[i, j]
                for a in range(share.shape[2]):
                    by = share[i, j, a]
                    for k in range(gradient.shape[2]):
                        total[n, a, k] += by * gradient[i, a, k]
