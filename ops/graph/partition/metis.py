"""Parts of a graph: METIS for a small edge cut, a keyed hash where any equal parts will do.

Axes: N nodes, E directed edges, P parts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops import errors
from ops.errors import DataError, ServiceError, SettingsError, TesseraError
from ops.graph.adjacency import adjacency
from ops.rng import generator

Method = Literal["metis", "hash"]


def partition(edge_index: NDArray[np.int64], n_nodes: int, parts: int, method: Method, seed: int) -> NDArray[np.int64]:
    """The part of every node, int64 [N] in [0, P), the same for the same seed; no part is empty.

    `edge_index` [2, E] holds both directions of every edge; order, repeats and self loops change nothing.
    `metis`: k-way METIS, parts of nearly equal node counts with few edges between them (what a step costs grows with
    its nodes, so nodes are balanced and not degrees). Many parts of few nodes come out less equal.
    `hash`: graph-learn's `id % P` behind a keyed permutation of the ids, because files often list nodes by class or by
    period; sizes differ by one at most, edges are not looked at, so about (P - 1) / P of them lie between parts.
    Raises SettingsError for P < 1 or an unknown method, DataError for P > N, ValueError for edges of one direction.
    """
    if method not in ("metis", "hash"):
        raise SettingsError(f"--partition: got {method!r}; allowed: metis or hash")
    if parts < 1:
        raise SettingsError(f"--parts: parts={parts} must be >= 1")
    if parts > n_nodes:
        raise DataError(f"--parts: parts={parts} must be <= n_nodes={n_nodes}")
    draws = generator(seed, "partition")
    if method == "hash":
        return draws.permutation(n_nodes).astype(np.int64) % parts
    a = adjacency(edge_index, n_nodes, self_loops=False)
    return fill_empty(_metis(a, parts, int(draws.integers(2**31 - 1))), parts)


def cut_share(edge_index: NDArray[np.int64], part: NDArray[np.int64]) -> float:
    """Share of the undirected edges (self loops apart) whose ends lie in different parts; 0 without edges.

    `edge_index` [2, E] holds every edge once or every edge in both directions; `part` is int64 [N].
    """
    source, target = edge_index
    edges = np.count_nonzero(source != target)
    return np.count_nonzero(part[source] != part[target]) / edges if edges else 0.0


def _metis(a: sp.csr_array, parts: int, seed: int) -> NDArray[np.int64]:
    """METIS' own answer, int64 [N]; it may leave parts empty."""
    import pymetis

    turned = sp.csr_array(a.T)
    if not (np.array_equal(a.indptr, turned.indptr) and np.array_equal(a.indices, turned.indices)):
        raise ValueError("edge_index must hold both directions of every edge: METIS may not return otherwise")
    # anything but int64 is copied
    graph = pymetis.CSRAdjacency(a.indptr.astype(np.int64), a.indices.astype(np.int64))
    found = pymetis.part_graph(parts, adjacency=graph, options=pymetis.Options(seed=seed), warn_on_copies=True)
    return np.asarray(found.vertex_part, dtype=np.int64)


def fill_empty(part: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """`part` [N], every empty part given one node: the last one of the part that is largest then (the lowest such)."""
    sizes = np.bincount(part, minlength=parts)
    empty = np.flatnonzero(sizes == 0)
    if not empty.size:
        return part
    part = part.copy()
    members = np.argsort(part, kind="stable")
    last = np.cumsum(sizes)  # of each part: one behind its last node in `members`
    largest = [(-int(size), i) for i, size in enumerate(sizes)]
    heapq.heapify(largest)
    for target in empty:
        size, donor = heapq.heappop(largest)
        last[donor] -= 1
        part[members[last[donor]]] = target
        heapq.heappush(largest, (size + 1, donor))
    return part


def metis_by_degree(indptr: NDArray[np.int64], indices: NDArray[Any], parts: int, seed: int) -> NDArray[np.int64]:
    """The part [N] of every node by k-way METIS, nodes weighing their degree + 1; parts may be empty.

    The CSR holds both directions of every edge; self loops are left out, repeats become the edge's weight.
    """
    import pymetis

    n = indptr.size - 1
    rows = np.repeat(np.arange(n, dtype=indices.dtype), np.diff(indptr))
    keep = rows != indices
    a = sp.csr_array((np.ones(int(keep.sum()), dtype=np.int64), (rows[keep], indices[keep])), shape=(n, n))
    a.sort_indices()
    plain = a.nnz == 0 or a.data.max() == 1
    # anything but int64 is copied
    graph = pymetis.CSRAdjacency(a.indptr.astype(np.int64), a.indices.astype(np.int64))
    found = pymetis.part_graph(
        parts, adjacency=graph, vweights=np.diff(a.indptr).astype(np.int64) + 1, eweights=None if plain else a.data,
        options=pymetis.Options(seed=int(generator(seed, "partition").integers(2**31 - 1))),
    )  # fmt: skip
    return np.asarray(found.vertex_part, dtype=np.int64)


def tasks_here(told: Callable[[str, int, int, int], None]) -> Callable[[str, Sequence[Any]], Iterator[Any]]:
    """Run the tasks of a build one after another in this process; `told(stage, done, all, bytes)` after each.

    The bytes are the most a task took above what the process had before.
    """

    def each(stage: str, jobs: Sequence[Any]) -> Iterator[Any]:
        for i, (task, given) in enumerate(jobs):
            _, found, size = _guarded(task, given, catch=False)
            told(stage, i + 1, len(jobs), size)
            yield found

    return each


def tasks_on_ray(
    count: int, told: Callable[[str, int, int, int], None]
) -> Callable[[str, Sequence[Any]], Iterator[Any]]:
    """The same as Ray tasks, at most `count` at a time, within a session. A lost one is tried twice more.

    Raises the task's own TesseraError, ServiceError where tasks are lost for good.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=2)(_guarded)

    def each(stage: str, jobs: Sequence[Any]) -> Iterator[Any]:
        waiting, done = list(reversed(jobs)), 0
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < count:
                running.append(remote.remote(*waiting.pop()))
            ended, running = ray.wait(running, num_returns=1)
            try:
                error, found, size = ray.get(ended[0])
            except ray.exceptions.RayTaskError:
                raise  # a bug of ours, with its traceback
            except ray.exceptions.RayError as lost:
                raise ServiceError(f"a task of the build was lost ({type(lost).__name__}); start the same command "
                                   "again: it goes on; with fewer --tasks each has more memory") from None  # fmt: skip
            if error:
                raise getattr(errors, error)(found)
            done += 1
            told(stage, done, len(jobs), size)
            yield found

    return each


def _guarded(task: Callable[..., Any], given: tuple[Any, ...], catch: bool = True) -> tuple[str, Any, int]:
    """(class of the error or "", result or the error's line, bytes of memory it took at the most) of a task."""
    from ops import memory

    memory.reset_peak()
    before = memory.resident()
    try:
        found = task(*given)
    except TesseraError as error:
        if not catch:
            raise
        return type(error).__name__, str(error), 0
    return "", found, max(memory.peak() - before, 0)
