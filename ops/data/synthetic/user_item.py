"""Planted users and notes: groups, power-law degrees, three relations with weights and times, features by group.

Made in blocks of BLOCK nodes, every draw keyed by (seed, purpose, block): the same bytes come out whatever the number
of parts, and memory is that of a block. The group of a node is its place in a keyed shuffle modulo the number of
groups, so that no table of all nodes is needed, ids tell nothing, and groups are of equal size (to one node).
Axes: B nodes of a block, F features, K groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ops.data.io.hetero_validate import make_hetero
from ops.data.synthetic.draws import Int, Shuffle, degrees, distinct, members
from ops.data.types.hetero import EDGE, NODE, Edges, HeteroGraph, Nodes, Relation
from ops.errors import DataError, SettingsError
from ops.rng import generator

BLOCK = 1 << 15
USER, NOTE = "user", "note"
# the relations and their shares of the edges
RELATIONS: dict[Relation, float] = {
    (USER, "follow_note", NOTE): 0.5, (USER, "comment_note", NOTE): 0.3, (USER, "share_note", NOTE): 0.2,
}  # fmt: skip
START, SECONDS = 1_700_000_000, 365 * 86_400
_ALPHA, _SPREAD = 1.5, 50.0  # degrees: density exponent 2.5, at most 50 times the mean
_POPULARITY, _HUBS = 0.8, 0.5  # chance of the r-th most popular member of a group: r^-0.8 (notes), r^-0.5 (nodes)
BENCH = {"users": 100_000, "notes": 50_000, "clusters": 100}


@dataclass(frozen=True)
class Planted:
    """Parameters of a planted graph. `homogeneous`: `users` nodes of one type, `mean_edges` directed edges a node.

    `feature_noise`: standard deviation around the group's centre, whose entries are standard normal. Its default
    makes k-means on the features of 100,000 users in 100 groups reach an NMI of 0.30.
    """

    users: int = 1000
    notes: int = 600
    clusters: int = 10
    mean_edges: float = 15.0
    mixing: float = 0.3
    features: int = 32
    feature_noise: float = 2.3
    seed: int = 0
    homogeneous: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Nodes by type."""
        return {NODE: self.users} if self.homogeneous else {USER: self.users, NOTE: self.notes}

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations that are planted."""
        return (EDGE,) if self.homogeneous else tuple(RELATIONS)

    @property
    def most(self) -> float:
        """The largest degree: half of what the smallest group holds (all relations), or _SPREAD times the mean."""
        room = (self.users if self.homogeneous else self.notes) // self.clusters
        return min(_SPREAD * self._drawn, 0.25 * room if self.homogeneous else 0.5 * len(RELATIONS) * room)

    @property
    def _drawn(self) -> float:
        """Edges that a node draws on average: of a homogeneous graph one of its two directions."""
        return self.mean_edges / 2 if self.homogeneous else self.mean_edges

    def check(self) -> Planted:
        """Itself. SettingsError names the value out of range, DataError more groups than nodes."""
        for name, least in (("users", 2), ("notes", 2), ("clusters", 1), ("features", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise SettingsError(f"planted: {name}={getattr(self, name)} must be >= {least}")
        if not 0 <= self.mixing <= 1:
            raise SettingsError(f"planted: mixing={self.mixing:g} must be in [0, 1]")
        if not 0 <= self.feature_noise < np.inf:
            raise SettingsError(f"planted: feature_noise={self.feature_noise:g} must be finite and >= 0")
        for kind, n in self.counts.items():
            if self.clusters > n:
                raise DataError(f"planted: clusters={self.clusters} must be <= {n}, the number of {kind}s")
        if not (self.mean_edges >= 1 and self._drawn <= self.most / 2):
            top = self.most * (1 if not self.homogeneous else 2) / 2
            raise SettingsError(
                f"planted: mean_edges={self.mean_edges:g} must be in [1, {top:g}] for groups of "
                f"{min(self.counts.values()) // self.clusters} nodes"
            )
        return self


@dataclass(frozen=True)
class Block:
    """Nodes first, first + 1, ... of one type: groups int64 [B], features float32 [B, F] or None, edges by relation.

    Ends of edges are ids; edges are sorted by node (their source), relation by relation. Those of a homogeneous graph
    stand there in the direction they were drawn in: `both_ways` adds the other.
    """

    first: int
    groups: Int
    x: NDArray[np.float32] | None
    edges: dict[Relation, Edges]

    @property
    def ids(self) -> Int:
        """The ids, which are the numbers of the rows."""
        return np.arange(self.first, self.first + self.groups.size, dtype=np.int64)


def blocks(p: Planted, kind: str) -> Iterator[Block]:
    """All blocks of a node type in order; users (and nodes of a homogeneous graph) bring the edges they draw."""
    places = {k: Shuffle(n, p.seed, k) for k, n in p.counts.items()}
    centres = generator(p.seed, f"centres of {kind}").standard_normal((p.clusters, p.features), dtype=np.float32)
    n = p.counts[kind]
    for number, first in enumerate(range(0, n, BLOCK)):
        ids = np.arange(first, min(first + BLOCK, n), dtype=np.int64)
        groups = places[kind].place(ids) % p.clusters
        x = None
        if p.features:
            noise = generator(p.seed, f"features of {kind}", number).standard_normal((ids.size, p.features), np.float32)
            x = centres[groups] + np.float32(p.feature_noise) * noise
        edges: dict[Relation, Edges] = {}
        if kind == USER:
            edges = _user_edges(p, number, ids, groups, places[NOTE])
        elif kind == NODE:
            edges = {EDGE: _node_edges(p, number, ids, groups, places[NODE])}
        yield Block(first, groups, x, edges)


def _user_edges(p: Planted, number: int, ids: Int, groups: Int, notes: Shuffle) -> dict[Relation, Edges]:
    """What these users follow, comment and share: (user, relation, note) are all different."""
    rng = generator(p.seed, "edges", number)
    degree = degrees(ids.size, p.mean_edges, p.most, _ALPHA, rng)
    users = np.repeat(np.arange(ids.size, dtype=np.int64), degree)
    kinds = len(RELATIONS)
    chosen = rng.choice(kinds, size=users.size, p=list(RELATIONS.values()))

    def draw(owners: Int) -> Int:
        return notes.back(members(groups[owners % ids.size], p.notes, p.clusters, _POPULARITY, p.mixing, rng))

    # an owner is a pair (relation, user), so that the codes come out by relation, then user, then note
    codes = distinct(chosen * ids.size + users, draw, p.notes)
    owner, note = codes // p.notes, codes % p.notes
    time = START + rng.integers(0, SECONDS, size=codes.size)
    # eighths are exact in every format
    weight = (np.ceil(8 * rng.standard_exponential(codes.size, dtype=np.float32)) / 8).clip(0.125).astype(np.float32)
    cuts = np.searchsorted(owner, np.arange(kinds + 1) * ids.size)
    found = {}
    for i, relation in enumerate(RELATIONS):
        s = slice(cuts[i], cuts[i + 1])
        found[relation] = Edges(ids[owner[s] - i * ids.size], note[s], weight[s], time[s])
    return found


def _node_edges(p: Planted, number: int, ids: Int, groups: Int, nodes: Shuffle) -> Edges:
    """What these nodes draw. A pair may be drawn by one of its ends only, so none comes twice."""
    rng = generator(p.seed, "edges", number)
    degree = degrees(ids.size, p.mean_edges / 2, p.most, _ALPHA, rng)

    def draw(owners: Int) -> Int:
        targets = nodes.back(members(groups[owners], p.users, p.clusters, _HUBS, p.mixing, rng))
        own = ids[owners]
        mine = np.where((own + targets) % 2 == 0, own < targets, own > targets)
        return np.where(mine, targets, -1)

    codes = distinct(np.repeat(np.arange(ids.size, dtype=np.int64), degree), draw, p.users)
    return Edges(ids[codes // p.users], codes % p.users)


def both_ways(edges: Edges) -> Edges:
    """Every edge (weights and times left out) and, next to it, its reverse."""
    pair = np.stack([edges.src, edges.dst])
    return Edges(pair.T.reshape(-1), pair[::-1].T.reshape(-1))


def planted_communities(parameters: str | Planted = "") -> tuple[HeteroGraph, dict[str, Int]]:
    """The planted graph in memory, and its groups int64 [N] by type.

    `parameters`: "users=1000,notes=600,clusters=10,mixing=0.3,seed=0,..." (fields of Planted), "bench" for the graph
    of the benchmark, or a Planted. Raises SettingsError for what is unknown or out of range.
    """
    p = (parse(parameters) if isinstance(parameters, str) else parameters).check()
    nodes: dict[str, Nodes] = {}
    groups: dict[str, Int] = {}
    edges: dict[Relation, list[Edges]] = {relation: [] for relation in p.relations}
    for kind in p.counts:
        made = list(blocks(p, kind))
        x = np.concatenate([b.x for b in made if b.x is not None]) if p.features else None
        nodes[kind] = Nodes(np.concatenate([b.ids for b in made]), x)
        groups[kind] = np.concatenate([b.groups for b in made])
        for block in made:
            for relation, part in block.edges.items():
                edges[relation].append(both_ways(part) if p.homogeneous else part)
    joined = {r: _joined(parts) for r, parts in edges.items()}
    return make_hetero("planted", nodes, {r: e for r, e in joined.items() if e.count}), groups


def _joined(parts: list[Edges]) -> Edges:
    weights = [e.weight for e in parts if e.weight is not None]
    times = [e.time for e in parts if e.time is not None]
    return Edges(
        np.concatenate([e.src for e in parts]),
        np.concatenate([e.dst for e in parts]),
        np.concatenate(weights) if weights else None,
        np.concatenate(times) if times else None,
    )


def parse(parameters: str) -> Planted:
    """`users=1000,notes=600` as Planted; "bench" stands for the benchmark's users, notes and clusters."""
    kinds = {f.name: f.type for f in fields(Planted)}
    values: dict[str, int | float | bool] = {}
    for part in filter(None, (s.strip() for s in parameters.split(","))):
        key, _, text = (s.strip() for s in part.partition("="))
        if part == "bench":
            values |= BENCH
            continue
        if key not in kinds:
            raise SettingsError(f"--dataset planted: unknown {key!r}; allowed: bench, {', '.join(kinds)}")
        try:
            values[key] = _value(kinds[key], text)
        except ValueError:
            kind = {"int": "a whole number", "float": "a number"}.get(str(kinds[key]), "true or false")
            raise SettingsError(f"--dataset planted: {key}={text} must be {kind}") from None
    return Planted(**values)  # type: ignore[arg-type]


def _value(kind: object, text: str) -> int | float | bool:
    if kind == "bool":
        return {"true": True, "1": True, "": True, "false": False, "0": False}.get(text.lower()) or _no(text)
    return int(text) if kind == "int" else float(text)


def _no(text: str) -> bool:
    if text.lower() not in ("false", "0"):
        raise ValueError(text)
    return False
