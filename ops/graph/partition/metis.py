"""Parts of a graph: by METIS for a small edge cut, by a keyed hash where any parts of equal size will do.

Axes: N nodes, E directed edges, P parts.
"""

from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops.errors import DataError, SettingsError
from ops.graph.adjacency import adjacency
from ops.rng import generator

Method = Literal["metis", "hash"]


def partition(edge_index: NDArray[np.int64], n_nodes: int, parts: int, method: Method, seed: int) -> NDArray[np.int64]:
    """The part of every node, int64 [N] in [0, P), the same for the same seed; no part is empty.

    `edge_index` [2, E] has both directions of every edge; order, repeats and self loops change nothing. `metis`: k-way
    METIS, parts of nearly equal node counts with few edges between them. Nodes are balanced and not degrees, as the
    cost of a step grows with its nodes. Many parts of few nodes are less equal. `hash`: graph-learn's `id % P` after a
    keyed permutation of the ids, because files often list nodes by class or by period. Sizes differ by one at most. It
    does not look at edges, so that about (P - 1) / P of them lie between parts. Raises SettingsError for P < 1 or an
    unknown method, DataError for P > N, ValueError for edges of one direction.
    """
    if method not in ("metis", "hash"):
        raise SettingsError(f"--partition: got {method!r}; allowed: metis or hash")
    if parts < 1:
        raise SettingsError(f"--parts: parts={parts} must be >= 1")
    if parts > n_nodes:
        raise DataError(f"--parts: parts={parts} must be <= n_nodes={n_nodes}")
    if method == "hash":
        return generator(seed, "partition").permutation(n_nodes).astype(np.int64) % parts
    a = adjacency(edge_index, n_nodes, self_loops=False)
    transposed = sp.csr_array(a.T)
    if not (np.array_equal(a.indptr, transposed.indptr) and np.array_equal(a.indices, transposed.indices)):
        raise ValueError("edge_index must hold both directions of every edge: METIS may not return otherwise")
    return fill_empty(_metis(a, parts, seed), parts)


def cut_share(edge_index: NDArray[np.int64], part: NDArray[np.int64]) -> float:
    """The share of the undirected edges, without self loops, whose ends lie in different parts; 0 without edges.

    `edge_index` [2, E] has every edge once, or every edge in both directions; `part` is int64 [N].
    """
    source, target = edge_index
    edges = np.count_nonzero(source != target)
    return np.count_nonzero(part[source] != part[target]) / edges if edges else 0.0


def metis_by_degree(indptr: NDArray[np.int64], indices: NDArray[Any], parts: int, seed: int) -> NDArray[np.int64]:
    """The part [N] of every node by k-way METIS, in which a node weighs its degree + 1; parts may be empty.

    The CSR matrix has both directions of every edge. Self loops are left out, repeats become the weight of the edge.
    """
    n = indptr.size - 1
    rows = np.repeat(np.arange(n, dtype=indices.dtype), np.diff(indptr))
    keep = rows != indices
    a = sp.csr_array((np.ones(int(keep.sum()), dtype=np.int64), (rows[keep], indices[keep])), shape=(n, n))
    a.sort_indices()
    plain = a.nnz == 0 or a.data.max() == 1
    return _metis(a, parts, seed, np.diff(a.indptr).astype(np.int64) + 1, None if plain else a.data)


def _metis(a: sp.csr_array, parts: int, seed: int, nodes: Any = None, edges: Any = None) -> NDArray[np.int64]:
    """The answer of METIS for A with the weights of its nodes and edges, int64 [N]; it may leave parts empty."""
    import pymetis

    # pymetis copies anything but int64
    graph = pymetis.CSRAdjacency(a.indptr.astype(np.int64), a.indices.astype(np.int64))
    options = pymetis.Options(seed=int(generator(seed, "partition").integers(2**31 - 1)))
    answer = pymetis.part_graph(parts, adjacency=graph, vweights=nodes, eweights=edges, options=options)
    return np.asarray(answer.vertex_part, dtype=np.int64)


def fill_empty(part: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """`part` [N] with one node given to every empty part: the last node of the part that is largest at that moment.

    Of equally large parts the lowest one gives the node.
    """
    sizes = np.bincount(part, minlength=parts)
    empty = np.flatnonzero(sizes == 0)
    if not empty.size:
        return part
    part = part.copy()
    members, last = np.argsort(part, kind="stable"), np.cumsum(sizes)  # one past the last node of each part
    for target in empty:
        donor = int(np.argmax(sizes))
        last[donor] -= 1
        part[members[last[donor]]] = target
        sizes[donor], sizes[target] = sizes[donor] - 1, 1
    return part
