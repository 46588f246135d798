"""What `predict` takes for a model of a heterogeneous graph: users, and edges to nodes that the model knows.

Any form that a training reads; of the types at the other ends no table is needed. Also one table of users alone.
Everything of it is in memory at once (`ops.data.user_requests_frame`: the same from a data frame).

Axes: n users, F features, M edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ops.data.hetero_load import gather_nodes, is_known, load_hetero, tables_of
from ops.data.io.chunks import place_of, read_edge_table
from ops.data.io.ids import At, Lookup, joined_ids
from ops.data.io.inductive_batch import NewRows, links, ways
from ops.data.io.layout import SUFFIXES, Layout, find_layout
from ops.data.io.readers import file_at, place_name
from ops.data.io.validate import count
from ops.data.types.hetero import REVERSE, Ids, Nodes, Relation, relation_name
from ops.errors import DataError, did_you_mean

Pieces = list[tuple[Ids, Ids, At]]  # of a relation: both ends of its edges, and where each stands


@dataclass(frozen=True)
class Vocabulary:
    """What a model knows: the type it clusters and the one it predicts edges to, all relations, ids by type.

    `ids` are of the clustered type and of those whose nodes say something of it. `n_features`: F of what it clusters,
    0 where it does not use any. `owner` is the model in messages.
    """

    owner: str
    rows: str
    others: str
    relations: tuple[Relation, ...]
    ids: dict[str, Ids]
    n_features: int

    @property
    def forward(self) -> tuple[Relation, ...]:
        """The relations as data has them, without reverse ones."""
        return tuple(r for r in self.relations if not r[1].startswith(REVERSE))

    @property
    def into(self) -> list[Relation]:
        """The relations that say something of the clustered type."""
        return [r for r in self.relations if r[2] == self.rows and r[0] in self.ids]


@dataclass(frozen=True)
class Arrived:
    """Users to place: `ids` [n] as they were given, what there is of them, and remarks on what was left out."""

    ids: Ids
    rows: NewRows
    notes: tuple[str, ...]


def read_new(spec: str, model: Vocabulary) -> Arrived:
    """Read and check users and edges: a folder or file, here or on s3://, or a name that a training takes.

    Tables of other types than the model's are not looked at. Raises DataError (file, row) for an edge to a node or of a
    relation that the model does not know, for users that stand twice, are not in their table, or have other features
    than training's.
    """
    types = tuple(dict.fromkeys(end for r in model.forward for end in (r[0], r[2])))
    layout = None if is_known(spec) else find_layout(spec, types)
    if layout is None and spec.lower().endswith(SUFFIXES):
        layout = Layout(place_name(spec), spec, {model.rows: (file_at(spec),)}, {}, {})
    notes: list[str] = []
    users, edges = _whole(spec, model, notes) if layout is None else _tables(layout, model, notes)
    if users is None:
        return arrived(_sources(spec, model, edges), _features(None, spec, model, notes), edges, model, notes)
    return arrived(users.ids, _features(users.x, spec, model, notes), edges, model, notes)


def _tables(layout: Layout, model: Vocabulary, notes: list[str]) -> tuple[Nodes | None, dict[Relation, Pieces]]:
    """Users, if they have a table, and edges."""
    users = {kind: files for kind, files in layout.nodes.items() if kind == model.rows}
    listed = tables_of(replace(layout, nodes=users, labels={}))
    usable = _usable({r: chunks[0].uri for r, chunks in listed.edges.items()}, model, notes)
    edges = {r: [(*read_edge_table(chunk)[:2], place_of(chunk)) for chunk in listed.edges[r]] for r in usable}
    return gather_nodes(model.rows, listed.nodes[model.rows]) if users else None, edges


def _whole(spec: str, model: Vocabulary, notes: list[str]) -> tuple[Nodes, dict[Relation, Pieces]]:
    """The same of what is no folder of tables."""
    graph, _ = load_hetero(spec)
    nodes = graph.nodes
    if model.rows not in nodes:
        raise DataError(f"{spec}: has no nodes of the type {model.rows!r}, which the model clusters; it has: "
                        f"{', '.join(nodes)}")  # fmt: skip
    edges: dict[Relation, Pieces] = {}
    for r in _usable(dict.fromkeys(graph.edges, spec), model, notes):
        each, at = graph.edges[r], _rows_in(f"{spec}: {relation_name(r)}")
        edges[r] = [(nodes[r[0]].ids[each.src], nodes[r[2]].ids[each.dst], at)]
    return nodes[model.rows], edges


def _rows_in(where: str) -> At:
    return lambda row: f"{where}, row {row}"


def _usable(given: Mapping[Relation, str], model: Vocabulary, notes: list[str]) -> list[Relation]:
    """The relations (and where they are) that say something of users. DataError for one that the model has not."""
    usable = []
    for relation, place in given.items():
        name, names = relation_name(relation), [relation_name(r) for r in model.forward]
        if relation not in model.forward:
            hint = did_you_mean(name, names) or "; leave it out"
            raise DataError(f"{place}: {name} is no relation of the model, which has {', '.join(names)}{hint}")
        if any(way in model.into for way, _ in ways(relation, model.rows, model.relations)):
            usable.append(relation)
        else:
            notes.append(f"{name}: left out, the model places no {model.rows} by it")
    return usable


def _sources(spec: str, model: Vocabulary, edges: dict[Relation, Pieces]) -> Ids:
    """The users of the edges, where they have no table."""
    if model.n_features or model.rows == model.others or not edges:
        why = f", and the model places them by {model.n_features} features too" if model.n_features else ""
        raise DataError(f"{spec}: has no table of {model.rows}s{why}; give nodes/{model.rows}.csv with their ids"
                        + (" and features" if model.n_features else ""))  # fmt: skip
    ends = [src if r[0] == model.rows else dst for r, pieces in edges.items() for src, dst, _ in pieces]
    return cast(Ids, np.unique(joined_ids(ends)))


def _features(
    x: NDArray[np.float32] | None, where: str, model: Vocabulary, notes: list[str]
) -> NDArray[np.float32] | None:
    """The features that the model uses. Raises DataError where they are not as many as training's."""
    if not model.n_features:
        if x is not None:
            notes.append(f"features of {model.rows}s are not used: the model places them by their edges")
        return None
    check_width(0 if x is None else x.shape[1], where, model)
    return x


def check_width(width: int, where: str, model: Vocabulary) -> None:
    """DataError where the users have another number of features than training's."""
    if width != model.n_features:
        raise DataError(f"{where}: {width} features a {model.rows}, the model was trained on {model.n_features}; give "
                        "the same columns in the same order")  # fmt: skip


def arrived(
    ids: Ids, x: NDArray[np.float32] | None, edges: dict[Relation, Pieces], model: Vocabulary, notes: list[str]
) -> Arrived:
    """Users `ids` [n] (unique), their features as the model takes them, and edges by the ids of their ends.

    Raises DataError where an end is neither among the users nor a node of the model.
    """
    users = Lookup(model.rows, ids)
    nodes = {kind: Lookup(kind, of_kind) for kind, of_kind in model.ids.items()}
    none = np.empty(0, np.int64)
    pairs: dict[Relation, list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = {r: [(none, none)] for r in model.into}
    between = 0
    for relation, pieces in edges.items():
        for src, dst, at in pieces:
            left = np.ones(len(src), np.bool_)
            for way, is_source in ways(relation, model.rows, model.relations):
                if way not in pairs:
                    continue
                ends = (src, dst) if is_source else (dst, src)
                rows, numbers = users.rows(ends[0]), nodes[way[0]].rows(ends[1])
                if relation[0] != relation[2]:
                    names = ("src", "dst") if is_source else ("dst", "src")
                    _need(
                        rows, ends[0], names[0], at, f"the {users.n:,} {model.rows}s given here; add it to their table"
                    )
                    _need(numbers, ends[1], names[1], at, f"the {nodes[way[0]].n:,} {way[0]}s that {model.owner} "
                          "knows; leave the edge out, or train again with it")  # fmt: skip
                both = (rows >= 0) & (numbers >= 0)
                pairs[way].append((rows[both], numbers[both]))
                left &= ~both
            between += int(left.sum())
            lost = np.flatnonzero(left)
            _check_left((src[lost], dst[lost]), rows_of(at, lost), users, nodes[model.rows], model)
    if between:
        notes.append(f"{count(between, 'edge')} between new {model.rows}s left out: the model knows neither end")
    linked = {}
    for way, parts in pairs.items():
        rows, numbers = (np.concatenate(ends) for ends in zip(*parts, strict=True))
        linked[way] = links(rows, numbers, users.n)
    return Arrived(ids, NewRows(model.rows, nodes[model.rows].rows(ids), x, linked), tuple(notes))


def _check_left(ends: tuple[Ids, Ids], at: At, users: Lookup, nodes: Lookup, model: Vocabulary) -> None:
    """DataError where an end of edges between nodes that the model does not know is no user either."""
    where = f"the {users.n:,} {model.rows}s given here, nor among those that {model.owner} knows; add it to their table"
    for name, keys in zip(("src", "dst"), ends, strict=True):
        _need(np.maximum(users.rows(keys), nodes.rows(keys)), keys, name, at, where)


def rows_of(at: At, rows: NDArray[np.int64]) -> At:
    """Where those rows stand that are left of more."""
    return lambda row: at(int(rows[row]))


def _need(rows: NDArray[np.int64], ids: Ids, end: str, at: At, where: str) -> None:
    lost = rows < 0
    if lost.any():
        first = int(lost.argmax())
        raise DataError(f"{at(first)}: {end} {ids[first].item()!r} is not among {where}")
