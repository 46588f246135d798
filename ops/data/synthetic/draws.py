"""Draws of planted graphs that need no table of all nodes: a keyed shuffle, popularity by rank, bounded degrees."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ops.rng import generator

_ROUNDS = 4
_REDRAWS = 24
Int = NDArray[np.int64]
Draw = Callable[[Int], Int]


class Shuffle:
    """A keyed one-to-one map of 0..n-1 onto itself, computed for any entries alone, both ways.

    Rounds of x -> (a x + c) mod 2^b and x -> x ^ (x >> s) are one-to-one on b bits (2 s >= b: the second undoes
    itself); what falls beyond n is mapped on until it is inside (2^b < 2 n: twice on average at most).
    """

    def __init__(self, n: int, seed: int, purpose: str) -> None:
        self.n = n
        bits = max(1, (n - 1).bit_length())
        size = 1 << bits
        self._mask, self._shift = np.uint64(size - 1), np.uint64((bits + 1) // 2)
        keys = generator(seed, f"shuffle {purpose}").integers(0, 1 << 63, size=(2, _ROUNDS), dtype=np.uint64).tolist()
        factors = [(key << 1 | 1) % size for key in keys[0]]
        # per round: a, its inverse, c
        self._rounds = [(np.uint64(a), np.uint64(pow(a, -1, size)), np.uint64(c % size))
                        for a, c in zip(factors, keys[1], strict=True)]  # fmt: skip

    def place(self, rows: Int) -> Int:
        """The place to which each entry comes."""
        return self._walk(rows, self._forward)

    def back(self, places: Int) -> Int:
        """The entry that stands at each place: back(place(x)) = x."""
        return self._walk(places, self._backward)

    def _walk(self, values: Int, step: Callable[[NDArray[np.uint64]], NDArray[np.uint64]]) -> Int:
        x = step(values.astype(np.uint64))
        outside = np.flatnonzero(x >= np.uint64(self.n))
        while outside.size:
            again = step(x[outside])
            x[outside] = again
            outside = outside[again >= np.uint64(self.n)]
        return x.astype(np.int64)

    def _forward(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        for a, _, c in self._rounds:
            x = (x * a + c) & self._mask
            x ^= x >> self._shift
        return x

    def _backward(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        for _, inverse, c in reversed(self._rounds):
            x = x ^ (x >> self._shift)
            x = ((x - c) * inverse) & self._mask
        return x


def group_sizes(n: int, clusters: int) -> Int:
    """Members of each group when place p belongs to group p mod clusters."""
    return (n - np.arange(clusters, dtype=np.int64) + clusters - 1) // clusters


def ranks(sizes: Int, exponent: float, rng: np.random.Generator) -> Int:
    """One rank in 0..size-1 for each size, rank r with about (r + 1)^-exponent (bounded power law, inverse CDF)."""
    power = 1.0 - exponent
    top = (sizes + 1.0) ** power
    x = (1.0 + rng.random(sizes.size) * (top - 1.0)) ** (1.0 / power)
    rank: Int = np.clip(x.astype(np.int64) - 1, 0, sizes - 1)
    return rank


def members(groups: Int, n: int, clusters: int, exponent: float, mixing: float, rng: np.random.Generator) -> Int:
    """A place among n for each given group: of another group with chance `mixing`, popular by its rank in the group."""
    chosen = groups
    if clusters > 1 and mixing > 0:
        leaves = rng.random(groups.size) < mixing
        other = (groups + 1 + rng.integers(0, clusters - 1, size=groups.size)) % clusters
        chosen = np.where(leaves, other, groups)
    return chosen + clusters * ranks(group_sizes(n, clusters)[chosen], exponent, rng)


def degrees(count: int, mean: float, most: float, alpha: float, rng: np.random.Generator) -> Int:
    """Degrees >= 1 of a bounded Pareto law (density exponent alpha + 1) with that mean, none above `most`."""
    low, high = mean * 1e-3, mean
    for _ in range(60):  # the smallest value of the law, by bisection
        least = (low + high) / 2
        r = least / most
        value = least * alpha / (alpha - 1) * (1 - r ** (alpha - 1)) / (1 - r**alpha)
        low, high = (least, high) if value < mean else (low, least)
    least = (low + high) / 2
    ratio = (least / most) ** alpha
    x = least * (1.0 - rng.random(count) * (1.0 - ratio)) ** (-1.0 / alpha)
    # rounding up with the chance of the fraction keeps the mean
    rounded: Int = np.clip(np.floor(x + rng.random(count)), 1, np.floor(most)).astype(np.int64)
    return rounded


def distinct(owners: Int, draw: Draw, n: int) -> Int:
    """Sorted codes owner * n + target, all different: draws that hit one that is there (or -1) are drawn again.

    `draw(owners)` gives a target in 0..n-1 each, or -1. An owner whose draws keep hitting goes without some.
    """
    codes = np.empty(0, dtype=np.int64)
    for _ in range(_REDRAWS):
        targets = draw(owners)
        fresh = np.where(targets < 0, -1, owners * n + targets)
        order = np.argsort(fresh, kind="stable")
        fresh, owners = fresh[order], owners[order]
        again = fresh < 0
        again[1:] |= fresh[1:] == fresh[:-1]
        if codes.size:
            again |= codes[np.minimum(np.searchsorted(codes, fresh), codes.size - 1)] == fresh
        codes = np.sort(np.concatenate([codes, fresh[~again]]), kind="stable")
        owners = owners[again]
        if not owners.size:
            break
    return codes
