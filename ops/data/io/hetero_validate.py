"""The checks that need more than one chunk: unique ids, edges between nodes there are, duplicates merged.

Axes: N nodes of a type, M edges of a relation, U unique edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ops.data.io.chunks import Chunk, place_of
from ops.data.io.ids import At, check_unique, joined_ids
from ops.data.io.validate import check_features, count
from ops.data.types.hetero import (
    REVERSE,
    Edges,
    HeteroGraph,
    Ids,
    Nodes,
    Relation,
    check_type_name,
    relation_name,
    relation_of,
)
from ops.errors import DataError


def places(chunks: Sequence[Chunk], counts: Sequence[int]) -> At:
    """Where row i of tables read chunk by chunk stands: "FILE, row 7"."""
    ends = np.cumsum(counts)

    def at(row: int) -> str:
        piece = int(np.searchsorted(ends, row, side="right"))
        return place_of(chunks[piece])(row - int(ends[piece] - counts[piece]))

    return at


def merge_edges(edges: Edges, n_destinations: int) -> tuple[Edges, int]:
    """Every pair once, sorted by (src, dst): weights summed, the latest time kept; and how many were duplicates."""
    codes = edges.src * n_destinations + edges.dst
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    first = np.ones(codes.size, dtype=bool)
    np.not_equal(codes[1:], codes[:-1], out=first[1:])
    merged = codes.size - int(first.sum())
    if not merged:
        return edges.take(order), 0
    starts = np.flatnonzero(first)
    weight = time = None
    if edges.weight is not None:
        weight = np.add.reduceat(edges.weight[order].astype(np.float64), starts).astype(np.float32)
    if edges.time is not None:
        time = np.maximum.reduceat(edges.time[order], starts)
    return Edges(codes[starts] // n_destinations, codes[starts] % n_destinations, weight, time), merged


def make_hetero(
    name: str, nodes: dict[str, Nodes], edges: dict[Relation, Edges], notes: Sequence[str] = (), *, origin: str = ""
) -> HeteroGraph:
    """A sound HeteroGraph of arrays: everything checked, duplicate edges merged, what was found counted in notes.

    `edges` hold row numbers. Types and relations come in the order of their names, whatever they were read
    from. Raises DataError: no nodes or edges, ids that repeat, features that are ragged or not
    finite, rows out of range, weights negative or not finite, a relation of a type that has no nodes.
    """
    where, said = origin or name, list(notes)
    if not nodes or not edges:
        raise DataError(f"{where}: empty graph: {len(nodes)} node types, {len(edges)} relations; at least one of each")
    checked = {kind: _nodes(where, kind, given) for kind, given in sorted(nodes.items())}
    linked = {kind: np.zeros(given.count, dtype=bool) for kind, given in checked.items()}
    tidy: dict[Relation, Edges] = {}
    for relation, given in sorted(edges.items()):
        title = _check_relation(where, relation, checked)
        _check_edges(f"{where}: {title}", given, checked[relation[0]].count, checked[relation[2]].count)
        tidy[relation], merged = merge_edges(given, checked[relation[2]].count)
        if merged:
            said.append(f"{title}: {count(merged, 'duplicate edge')} merged")
        loops = int((tidy[relation].src == tidy[relation].dst).sum()) if relation[0] == relation[2] else 0
        if loops:
            said.append(f"{title}: {count(loops, 'self loop')} kept")
        linked[relation[0]][tidy[relation].src] = True
        linked[relation[2]][tidy[relation].dst] = True
    for kind, has in linked.items():
        lonely = int((~has).sum())
        if lonely:
            most = "; that is most of them: do the edges use their ids?" if lonely > has.size / 2 else ""
            said.append(f"{count(lonely, f'{kind} node')} without an edge{most}")
    return HeteroGraph(name, checked, tidy, tuple(said))


def _nodes(where: str, kind: str, given: Nodes) -> Nodes:
    check_type_name(kind, where)
    if not given.count:
        raise DataError(f"{where}: {kind} has no rows; every table needs at least one")
    if given.x is None:
        return given
    if given.x.shape[0] != given.count:
        raise DataError(f"{where}: {kind}: {given.x.shape[0]} rows of features for {given.count} ids")
    return replace(given, x=check_features(given.x, origin=f"{where}: {kind}"))


def _check_relation(where: str, relation: Relation, nodes: dict[str, Nodes]) -> str:
    title = relation_name(relation)
    relation_of(title)
    if relation[1].startswith(REVERSE):
        raise DataError(f"{where}: {title}: names that begin with {REVERSE} are kept for reverse relations; rename it")
    for end in (relation[0], relation[2]):
        if end not in nodes:
            raise DataError(f"{where}: relation {title} joins the node type {end!r}, which has no nodes")
    return title


def _check_edges(where: str, edges: Edges, n_sources: int, n_destinations: int) -> None:
    if not edges.count:
        raise DataError(f"{where} has no rows; every table needs at least one")
    for end, rows, n in (("src", edges.src, n_sources), ("dst", edges.dst, n_destinations)):
        outside = (rows < 0) | (rows >= n)
        if outside.any():
            at = int(outside.argmax())
            raise DataError(f"{where}, row {at}: {end} {rows[at]} is not among the {n} nodes")
    if edges.weight is not None:
        bad = ~(np.isfinite(edges.weight) & (edges.weight >= 0))
        if bad.any():
            at = int(bad.argmax())
            raise DataError(f"{where}, row {at}: weight is {edges.weight[at]:g}; weights are finite numbers >= 0")


def gather_nodes(kind: str, chunks: Sequence[Chunk], parts: Sequence[tuple[Ids, NDArray[np.float32] | None]]) -> Nodes:
    """The chunks of one node type as one table. Raises DataError where an id stands twice."""
    ids = joined_ids([ids for ids, _ in parts])
    check_unique(ids, places(chunks, [part.shape[0] for part, _ in parts]), kind)
    features = [x for _, x in parts if x is not None]
    return Nodes(ids, np.concatenate(features) if features else None)
