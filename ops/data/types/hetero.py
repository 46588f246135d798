"""What a method may see of a heterogeneous graph: nodes and edges by type. Labels are never a field here.

Axes: N nodes of a type, F features of a type, M edges of a relation.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError

Relation = tuple[str, str, str]  # (source type, relation, destination type)
Ids = NDArray[np.int64] | NDArray[np.character]

NODE, EDGE = "node", ("node", "edge", "node")  # the one type and relation of a homogeneous graph
# names become file names joined by "__": no such pair, and no "_" at an end, may be in them
_NAME = re.compile(r"[A-Za-z0-9.-]+(?:_[A-Za-z0-9.-]+)*")
REVERSE = "rev_"


@dataclass(frozen=True)
class Nodes:
    """The nodes of one type: unique `ids` (int64 or text) [N], features `x` float32 [N, F], finite, or None.

    `names`: F, or none where the features have none.
    """

    ids: Ids
    x: NDArray[np.float32] | None = None
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """N."""
        return int(self.ids.shape[0])

    @property
    def n_features(self) -> int:
        """F, 0 where there are none."""
        return 0 if self.x is None else int(self.x.shape[1])


@dataclass(frozen=True)
class Edges:
    """The edges of one relation, each pair once, sorted by (src, dst).

    `src`, `dst` int64 [M] are rows of the two node types; `weight` float32 [M], finite and >= 0, or None; `time`
    int64 [M] in seconds, or None.
    """

    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None
    time: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """M."""
        return int(self.src.shape[0])

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Edges":
        """Those edges only, by number or mask."""
        weight = None if self.weight is None else self.weight[rows]
        return Edges(self.src[rows], self.dst[rows], weight, None if self.time is None else self.time[rows])


def merge_repeats(
    keys: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], *, merge: bool = True
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], int]:
    """Edges [M] by `keys`, one number each, sorted; their "weight" and "time"; and how many repeats were merged.

    Of repeated edges the weights are summed (in float64, in the order given) and the latest time stays; without
    `merge` all stay.
    """
    ranked = np.sort(keys)
    new = np.ones(ranked.size, dtype=np.bool_)
    np.not_equal(ranked[1:], ranked[:-1], out=new[1:])
    repeats = int(ranked.size - np.count_nonzero(new)) if merge else 0
    merged: dict[str, NDArray[Any]] = {}
    if columns:
        order = np.argsort(keys, kind="stable" if repeats else None)  # any order will do where all differ
        merged = {name: column[order] for name, column in columns.items()}
    if repeats:
        starts = np.flatnonzero(new)
        ranked = ranked[starts]
        if "weight" in merged:
            merged["weight"] = np.add.reduceat(merged["weight"].astype(np.float64), starts).astype(np.float32)
        if "time" in merged:
            merged["time"] = np.maximum.reduceat(merged["time"], starts)
    return ranked, merged, repeats


@dataclass(frozen=True)
class HeteroGraph:
    """Nodes by type and edges by relation (see `ops.data.hetero_load.load_hetero`).

    No reverse relations: partitions add them. A homogeneous graph has the type "node" and the relation
    ("node", "edge", "node") with every directed edge once. `notes` say, counted, what loading merged or left out.
    """

    name: str
    nodes: dict[str, Nodes]
    edges: dict[Relation, Edges]
    notes: tuple[str, ...] = field(default=())

    def digest(self) -> str:
        """SHA-256 over types, ids, features and edges; name, notes and labels do not enter."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        h = hashlib.sha256()
        for kind, nodes in sorted(self.nodes.items()):
            _feed(h, kind, (nodes.ids, nodes.x))
        for relation, edges in sorted(self.edges.items()):
            _feed(h, relation_name(relation), (edges.src, edges.dst, edges.weight, edges.time))
        return h.hexdigest()

    def with_notes(self, *notes: str) -> "HeteroGraph":
        """The same graph with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def _feed(h: "hashlib._Hash", name: str, arrays: Iterable[NDArray[np.generic] | None]) -> None:
    for array in arrays:
        kind = "none" if array is None else f"{array.dtype.str}{array.shape}"
        h.update(f"{name} {kind}\n".encode())
        if array is not None:
            h.update(np.ascontiguousarray(array).view(np.uint8).data)


def relation_name(r: Relation) -> str:
    """("user", "follow_note", "note") -> "user__follow_note__note", as files are named."""
    return "__".join(r)


def relation_of(name: str) -> Relation:
    """The relation of a name as `relation_name` makes it. Raises DataError for anything else."""
    parts = tuple(name.split("__"))
    if len(parts) != 3 or not all(_NAME.fullmatch(part) for part in parts):
        raise DataError(
            f"{name!r}: is no relation; it is named SOURCE__RELATION__DESTINATION (two underscores between, letters, "
            "digits, . - and single _ within), e.g. user__follow_note__note"
        )
    return parts


def check_type_name(name: str, origin: str) -> str:
    """The name of a node type, if files can be named after it. Raises DataError."""
    if not _NAME.fullmatch(name):
        raise DataError(f"{origin}: {name!r} cannot name a node type; use letters, digits, . - and single _ within")
    return name


def find_relations(relations: Iterable[Relation], names: Sequence[str]) -> tuple[Relation, ...]:
    """The relations meant by `names`, in the order of `relations`; no names: all of them.

    A name is the full one (user__follow_note__note), its middle (follow_note), or the middle without or with the
    destination's type (follow, follow_note). Raises SettingsError for a name that none has.
    """
    relations = tuple(relations)
    meant: set[Relation] = set()
    for name in names:
        of_name = {r for r in relations if name in (relation_name(r), r[1])} or {
            r for r in relations if f"{name}_{r[2]}" == r[1] or f"{r[1]}_{r[2]}" == name
        }
        if not of_name:
            raise SettingsError(f"{name}: no such relation; the graph has: {', '.join(r[1] for r in relations)}")
        meant |= of_name
    return tuple(r for r in relations if r in meant) if names else relations


def from_homogeneous(graph: AttributedGraph) -> HeteroGraph:
    """An AttributedGraph (both directions of every edge) as type "node" and relation ("node", "edge", "node")."""
    ids: Ids = np.arange(graph.n_nodes, dtype=np.int64)
    if graph.ids is not None:
        ids = graph.ids.astype(np.str_) if graph.ids.dtype.kind != "i" else graph.ids.astype(np.int64)
    edges = Edges(graph.edge_index[0].copy(), graph.edge_index[1].copy(), graph.weight)
    return HeteroGraph(graph.name, {NODE: Nodes(ids, graph.x, graph.feature_names or ())}, {EDGE: edges}, graph.notes)
