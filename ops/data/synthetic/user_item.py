"""Planted users and notes: groups, power-law degrees, three relations with weights and times, features by group, and
if asked for a side relation between users.

Made in blocks of BLOCK nodes, every draw keyed by (seed, purpose, block): the same bytes come out whatever the number
of parts, and memory is that of a block. The group of a node is its place in a keyed shuffle modulo the number of
groups, so that no table of all nodes is needed, ids tell nothing, and groups are of equal size (to one node).
Axes: B nodes of a block, F features, K groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ops import memory
from ops.data.io.validate import make_hetero
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
FRIENDS: Relation = (USER, "befriend", USER)
START, SECONDS = 1_700_000_000, 365 * 86_400
_ALPHA, _SPREAD = 1.5, 50.0  # degrees: density exponent 2.5, at most 50 times the mean
_POPULARITY, _HUBS = 0.8, 0.5  # chance of the r-th most popular member of a group: r^-0.8 (notes), r^-0.5 (nodes)
BENCH = {"users": "100000", "notes": "50000", "clusters": "100"}


class Planted(BaseModel):
    """Parameters of a planted graph. `homogeneous`: `users` nodes of one type, `mean_edges` directed edges a node.

    `feature_noise`: standard deviation around the group's centre, whose entries are standard normal. Its default
    makes k-means on the features of 100,000 users in 100 groups reach an NMI of 0.30. `friends`: users that a user
    befriends on average, of another group with chance `friend_mixing`, without times.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    users: int = Field(1000, ge=2)
    notes: int = Field(600, ge=2)
    clusters: int = Field(10, ge=1)
    mean_edges: float = Field(15.0, ge=1)
    mixing: float = Field(0.3, ge=0, le=1)
    features: int = Field(32, ge=0)
    feature_noise: float = Field(2.3, ge=0)
    friends: float = Field(0.0, ge=0)
    friend_mixing: float = Field(0.1, ge=0, le=1)
    seed: int = Field(0, ge=0)
    homogeneous: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Nodes by type."""
        return {NODE: self.users} if self.homogeneous else {USER: self.users, NOTE: self.notes}

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations that are planted."""
        return (EDGE,) if self.homogeneous else (*RELATIONS, *[FRIENDS] * (self.friends > 0))

    @property
    def most(self) -> float:
        """The largest degree: half of what the smallest group holds (all relations), or _SPREAD times the mean."""
        room = (self.users if self.homogeneous else self.notes) // self.clusters
        return min(_SPREAD * self.drawn, 0.25 * room if self.homogeneous else 0.5 * len(RELATIONS) * room)

    @property
    def drawn(self) -> float:
        """Edges that a node draws on average: of a homogeneous graph one of its two directions."""
        return self.mean_edges / 2 if self.homogeneous else self.mean_edges

    def check(self) -> "Planted":
        """Itself. DataError for more groups than nodes, SettingsError for more edges than groups have room for."""
        for kind, n in self.counts.items():
            if self.clusters > n:
                raise DataError(f"planted: clusters={self.clusters} must be <= {n}, the number of {kind}s")
        if self.drawn > self.most / 2:
            top, size = self.most / (1 if self.homogeneous else 2), min(self.counts.values()) // self.clusters
            raise SettingsError(
                f"planted: mean_edges={self.mean_edges:g} must be in [1, {top:g}] for groups of {size} nodes"
            )
        if self.friends and (self.homogeneous or not 1 <= self.friends <= (most := self.users // self.clusters / 8)):
            fits = "of a homogeneous graph must be 0" if self.homogeneous else f"must be 0 or in [1, {most:g}]"
            raise SettingsError(f"planted: friends={self.friends:g} {fits}")
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
        count = self.groups.size if self.x is None else len(self.x)
        return np.arange(self.first, self.first + count, dtype=np.int64)


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
            if p.friends:
                edges[FRIENDS] = _friends(p, number, ids, groups, places[USER])
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
    drawn = Edges(ids[owner % ids.size], note, weight, time)
    cuts = np.searchsorted(owner, np.arange(kinds + 1) * ids.size)
    return {r: drawn.take(np.arange(cuts[i], cuts[i + 1])) for i, r in enumerate(RELATIONS)}


def _friends(p: Planted, number: int, ids: Int, groups: Int, users: Shuffle) -> Edges:
    """Whom these users befriend: others, each once."""
    rng = generator(p.seed, "friends", number)
    degree = degrees(ids.size, p.friends, 4 * p.friends, _ALPHA, rng)

    def draw(owners: Int) -> Int:
        targets = users.back(members(groups[owners], p.users, p.clusters, _HUBS, p.friend_mixing, rng))
        return np.where(targets == ids[owners], -1, targets)

    codes = distinct(np.repeat(np.arange(ids.size, dtype=np.int64), degree), draw, p.users)
    return Edges(ids[codes // p.users], codes % p.users)


def _node_edges(p: Planted, number: int, ids: Int, groups: Int, nodes: Shuffle) -> Edges:
    """What these nodes draw. A pair may be drawn by one of its ends only, so none comes twice."""
    rng = generator(p.seed, "edges", number)
    degree = degrees(ids.size, p.drawn, p.most, _ALPHA, rng)

    def draw(owners: Int) -> Int:
        targets = nodes.back(members(groups[owners], p.users, p.clusters, _HUBS, p.mixing, rng))
        sources = ids[owners]
        allowed = np.where((sources + targets) % 2 == 0, sources < targets, sources > targets)
        return np.where(allowed, targets, -1)

    codes = distinct(np.repeat(np.arange(ids.size, dtype=np.int64), degree), draw, p.users)
    return Edges(ids[codes // p.users], codes % p.users)


def both_ways(edges: Edges) -> Edges:
    """Every edge (weights and times left out) and, next to it, its reverse."""
    pair = np.stack([edges.src, edges.dst])
    return Edges(pair.T.reshape(-1), pair[::-1].T.reshape(-1))


def planted_communities(parameters: str | Planted = "") -> tuple[HeteroGraph, dict[str, Int]]:
    """The planted graph in memory, and its groups int64 [N] by type.

    `parameters`: "users=1000,notes=600,clusters=10,mixing=0.3,seed=0,..." (fields of Planted), "bench" for the graph
    of the benchmark, or a Planted. Raises SettingsError for what is unknown or out of range, ResourceError for more
    than fits the memory.
    """
    p = (parse_user_item(parameters) if isinstance(parameters, str) else parameters).check()
    size = sum(p.counts.values()) * (8 * p.features + 24) + int(80 * p.users * (p.mean_edges + p.friends))
    memory.check_load(size, f"planted:users={p.users}")
    nodes: dict[str, Nodes] = {}
    groups: dict[str, Int] = {}
    edges: dict[Relation, list[Edges]] = {relation: [] for relation in p.relations}
    for kind in p.counts:
        pieces = list(blocks(p, kind))
        x = np.concatenate([b.x for b in pieces if b.x is not None]) if p.features else None
        nodes[kind] = Nodes(np.concatenate([b.ids for b in pieces]), x)
        groups[kind] = np.concatenate([b.groups for b in pieces])
        for block in pieces:
            for relation, drawn in block.edges.items():
                edges[relation].append(both_ways(drawn) if p.homogeneous else drawn)
    joined = {r: _joined(pieces) for r, pieces in edges.items()}
    return make_hetero("planted", nodes, {r: e for r, e in joined.items() if e.count}), groups


def _joined(pieces: list[Edges]) -> Edges:
    def column(name: str) -> Any:
        arrays = [getattr(edges, name) for edges in pieces]
        return None if arrays[0] is None else np.concatenate(arrays)

    return Edges(column("src"), column("dst"), column("weight"), column("time"))


def parse_user_item(parameters: str) -> Planted:
    """`users=1000,notes=600` as Planted; "bench" stands for the benchmark's users, notes and clusters."""
    values: dict[str, str] = {}
    for part in filter(None, (s.strip() for s in parameters.split(","))):
        key, _, text = (s.strip() for s in part.partition("="))
        if part == "bench":
            values |= BENCH
            continue
        if key not in Planted.model_fields:
            allowed = ", ".join(Planted.model_fields)
            raise SettingsError(f"--dataset planted: unknown {key!r}; allowed: bench, {allowed}")
        values[key] = text or "true"
    try:
        return Planted.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"--dataset planted: {first['loc'][0]}={first['input']}: {first['msg']}") from None
