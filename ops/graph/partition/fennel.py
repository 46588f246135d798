"""Fennel (Tsourakakis et al. 2014), restreamed (Nishimura and Ugander 2013), with a capacity per node type in degrees.

A node goes to the part with most of its neighbours, less a price that grows with the load of the part, among the parts
that have room for its type. Load counts degrees and not nodes, since what a part costs to store and to serve grows with
its edges. There are two forms:

- the stream: all nodes in one keyed random order, a few passes; one core, the graph's adjacency in memory.
- in waves: the nodes lie in blocks that the data fixes, and a keyed hash places them first. Then come rounds in which
  every wave of blocks is placed against the parts as the wave before left them, each block within its share of the
  room. The result depends on the blocks alone, not on how many tasks work on a wave.

Rounds in which all blocks move at the same time converge slowly from a hash: all blocks see the same nearly even
neighbourhoods and move past each other. With 8 waves the cut is that of the stream after as many rounds. Axes: N nodes
of all types in one numbering (type by type), P parts, T types, B blocks.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.rng import generator

STRENGTH, SLACK = 1.5, 1.05  # price of load, capacity over the mean; chosen on planted graphs of 200,000 nodes
PASSES, ROUNDS, WAVES = 10, 16, 8
STILL = 0.001  # share of the nodes: with fewer moves than this it ends


def part_dtype(parts: int) -> np.dtype[Any]:
    """int16 where the part numbers fit. The array is read once for each edge, so it should stay in the cache."""
    return np.dtype(np.int16 if parts <= 2**15 - 1 else np.int32)


def weigh(part: NDArray[Any], degree: NDArray[Any], ends: NDArray[np.int64], parts: int) -> NDArray[np.float64]:
    """Load [T, P]: the sum of degree + 1 over the nodes of a type in a part; nodes with part -1 are in none."""
    load = np.zeros((ends.size, parts))
    for t, (first, end) in enumerate(pairwise([0, *ends])):
        owner, weight = part[first:end], degree[first:end] + 1.0
        placed = owner >= 0
        load[t] = np.bincount(owner[placed], weights=weight[placed], minlength=parts)
    return load


def capacity(degree: NDArray[Any], ends: NDArray[np.int64], parts: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(mean load of a part [T], capacity [T, P]) for nodes of `degree` [N]."""
    totals = weigh(np.zeros(degree.size, dtype=np.int64), degree, ends, 1)[:, 0]
    mean = np.maximum(totals / parts, 1.0)
    return mean, np.repeat((SLACK * mean)[:, None], parts, axis=1)


def fennel_stream(
    indptr: NDArray[np.int64], indices: NDArray[Any], ends: NDArray[np.int64], parts: int, seed: int,
    say: Callable[[str], None] = lambda text: None,
) -> NDArray[Any]:  # fmt: skip
    """The part [N] of every node by one stream over the undirected adjacency, which has both directions of each edge.

    `ends` [T] are one past the last node of each type. Memory beside the graph: about 10 bytes a node.
    """
    from ops.graph.kernels.fennel import stream

    n = indptr.size - 1
    degree = np.diff(indptr)
    mean, cap = capacity(degree, ends, parts)
    part = np.full(n, -1, dtype=part_dtype(parts))
    load = np.zeros_like(cap)
    order = generator(seed, "fennel").permutation(n)
    for turn in range(PASSES):
        moved = stream(order, 0, indptr, indices, ends, part, load, cap, mean, STRENGTH)
        say(f"fennel: pass {turn + 1} of at most {PASSES}, {moved:,} of {n:,} nodes moved")
        if moved <= STILL * n:
            break
    return part


def place_block(
    indptr: NDArray[np.int64], indices: NDArray[Any], first: int, part: NDArray[Any], ends: NDArray[np.int64],
    load: NDArray[np.float64], room: NDArray[np.float64], mean: NDArray[np.float64], seed: int, turn: int,
) -> NDArray[Any]:  # fmt: skip
    """The new parts of a block's nodes, `first`, `first` + 1, ..., by a stream over them against all parts `part` [N].

    `indptr` and `indices` are the block's adjacency. `room` [T, P] is what the block may add to each part beyond what
    it takes from it. `part` is changed only in a copy.
    """
    from ops.graph.kernels.fennel import stream

    n = indptr.size - 1
    order = generator(seed, "fennel", turn, first).permutation(n)
    stream(order, first, indptr, indices, ends, part, load.copy(), load + room, mean, STRENGTH)
    return part[first : first + n].copy()


def fennel_waves(
    start: NDArray[Any], turn: int, degree: NDArray[Any], bounds: NDArray[np.int64], ends: NDArray[np.int64],
    parts: int, place: Callable[..., list[NDArray[Any]]], keep: Callable[[int, NDArray[Any]], None],
    say: Callable[[str], None] = lambda text: None,
) -> NDArray[Any]:  # fmt: skip
    """The part [N] of every node in rounds of waves of blocks, beginning in round `turn` with the parts `start`.

    `degree` [N]; block b has the nodes bounds[b] .. bounds[b + 1] - 1. `place(turn, blocks, part, load, rooms, mean)`
    gives the new parts of each of `blocks` (`place_block`). `keep(turn, part)` gets the parts before every further
    round, so that a killed build goes on from them.
    """
    mean, cap = capacity(degree, ends, parts)
    part = start.copy()
    weight = [weigh(np.zeros(b - a, dtype=np.int64), degree[a:b], np.clip(ends - a, 0, b - a), 1)[:, 0]
              for a, b in pairwise(bounds)]  # fmt: skip
    for now in range(turn, ROUNDS):
        before = part.copy()
        for wave in range(WAVES):
            blocks = list(range(wave, bounds.size - 1, WAVES))
            if not blocks:
                continue
            load = weigh(part, degree, ends, parts)
            whole = np.maximum(np.sum([weight[b] for b in blocks], axis=0), 1e-9)
            rooms = [np.maximum(cap - load, 0.0) * (weight[b] / whole)[:, None] for b in blocks]
            for b, placed in zip(blocks, place(now, blocks, part, load, rooms, mean), strict=True):
                part[bounds[b] : bounds[b + 1]] = placed
        moved = int(np.count_nonzero(before != part))
        say(f"fennel: round {now + 1} of at most {ROUNDS}, {moved:,} of {part.size:,} nodes moved")
        if moved <= STILL * part.size:  # not kept: a resumed build would then make one round more
            break
        keep(now + 1, part)
    return part
