"""The part of every node of a heterogeneous graph in memory: all types as one undirected graph.

Axes: N nodes of all types in one numbering (type by type, sorted), n nodes of one type, P parts.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops.data.types.hetero import HeteroGraph
from ops.errors import DataError
from ops.graph.partition.assign import hash_parts
from ops.graph.partition.fennel import fennel_stream
from ops.graph.partition.metis import fill_empty, metis_by_degree


def part_of_nodes(graph: HeteroGraph, parts: int, method: str, seed: int) -> dict[str, NDArray[np.int64]]:
    """The part of each node by type, int64 [n] in [0, P); no part is empty. `method`: hash, fennel or metis.

    The same that `workflows/partition_graph.py` finds with one stream. Raises DataError for more parts than nodes.
    """
    sizes = {kind: graph.nodes[kind].count for kind in sorted(graph.nodes)}
    total = sum(sizes.values())
    if parts > total:
        raise DataError(f"--parts {parts}: {graph.name} has {total} nodes; take at most as many parts")
    if parts == 1:
        return {kind: np.zeros(size, np.int64) for kind, size in sizes.items()}
    ends = np.cumsum(list(sizes.values())).astype(np.int64)
    if method == "hash":
        found = hash_parts(list(sizes.values()), parts, seed)
    else:
        firsts = (ends - np.array(list(sizes.values()))).tolist()
        a = _union(graph, dict(zip(sizes, firsts, strict=True)), total)
        indptr, indices = a.indptr.astype(np.int64), a.indices.astype(np.int64)
        if method == "metis":
            part = metis_by_degree(indptr, indices, parts, seed)
        else:
            part = fennel_stream(indptr, indices, ends, parts, seed, lambda said: None)
        found = fill_empty(part.astype(np.int64), parts)
    return dict(zip(sizes, np.split(found, ends[:-1]), strict=True))


def _union(graph: HeteroGraph, first: dict[str, int], total: int) -> sp.csr_array:
    """The pattern of all relations and their reverses [N, N], without self loops."""
    ends = [(edges.src + first[r[0]], edges.dst + first[r[2]]) for r, edges in graph.edges.items()]
    source = np.concatenate([e[i] for e in ends for i in (0, 1)])
    target = np.concatenate([e[i] for e in ends for i in (1, 0)])
    keep = source != target
    made = sp.csr_array((np.ones(int(keep.sum()), np.int8), (source[keep], target[keep])), shape=(total, total))
    made.sum_duplicates()
    made.sort_indices()
    return made
