"""Sampled neighbourhoods of a partitioned graph as dense blocks, the same whoever answers and however often.

A client asks the owner of each node, one request per (part, hop) with all relations in it. Every draw is keyed by
(seed, epoch, part, number, hop, relation, node, slot): a retried request, a restarted shard, another number of workers
or another order of requests returns the same sample.

Axes: B rows of a block, F fan-out, N nodes of a type at a depth, P parts, L hops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.hetero import Relation, relation_name
from ops.graph.sampling.part_service import Book, Drawn, Request, by_owner
from ops.rng import key64

Mode = str
MODES = {"replace": 0, "distinct": 1, "padded": 2}
Ids = Mapping[str, NDArray[np.int64]]  # node type -> global numbers
Masked = tuple[NDArray[np.int64], NDArray[np.bool_]]  # source numbers [B F], where they count [B F]
Block = tuple[Int64[Tensor, "_ _"], Bool[Tensor, "_ _"]]  # [B F], other B and F for each


@runtime_checkable  # the tests check every annotation
class Topology(Protocol):
    """Whoever answers requests; the parts of one call are independent of each other."""

    book: Book

    def draw(self, requests: Mapping[int, Request]) -> dict[int, dict[Relation, Drawn]]:
        """Per part and relation, the neighbours of the request's nodes of the relation's destination type."""


@dataclass(frozen=True)
class Sample:
    """An L-hop neighbourhood.

    `nodes[d]`: global numbers of depth d by type, roots first; depth d + 1 begins with the nodes of depth d in the same
    order. `blocks[d]`: a row per node of depth d, entries are positions among the sources of depth d + 1, where the
    mask is True. `features`: float32 [N F] of the outermost nodes.
    """

    nodes: tuple[dict[str, NDArray[np.int64]], ...]
    blocks: tuple[dict[Relation, Block], ...]
    features: dict[str, Float[Tensor, "_ _"]]

    @property
    def edges(self) -> int:
        """How many edges were drawn."""
        return sum(int(mask.sum()) for hop in self.blocks for _, mask in hop.values())


def sample(
    graph: Topology,
    roots: Ids,
    fanout: Sequence[int],
    key: tuple[int, ...],
    mode: Mode = "distinct",
    without: tuple[Relation, NDArray[np.int64]] | None = None,
) -> Sample:
    """The neighbourhood of `roots` (unique within a type), one hop per entry of `fanout`, without features.

    `key` = (seed, epoch, part, number) keys the draws. `without` = (label relation, pairs int64 [2 M] of global
    numbers): no edge between the ends of one of these pairs is in the sample, whatever its relation or direction; all
    ends must be roots. `mode`: with replacement, distinct (all neighbours where there are few enough), or distinct and
    circularly padded.
    """
    nodes, blocks = [{kind: np.ascontiguousarray(ids) for kind, ids in roots.items()}], []
    forbidden = None if without is None else _pair_keys(graph.book, *without)
    n_roots = {kind: len(ids) for kind, ids in roots.items()}
    for hop, width in enumerate(fanout):
        drawn = _hop(graph, nodes[-1], hop, width, key, MODES[mode])
        if forbidden is not None:
            _forbid(graph.book, drawn, nodes[-1], n_roots, *forbidden)
        deeper, block = _one_depth(graph.book, nodes[-1], drawn)
        nodes.append(deeper)
        blocks.append(block)
    return Sample(tuple(nodes), tuple(blocks), {})


def _one_depth(
    book: Book, nodes: Ids, drawn: Mapping[Relation, Masked]
) -> tuple[dict[str, NDArray[np.int64]], dict[Relation, Block]]:
    """The nodes one depth further out, those of this depth first, and the drawn edges as positions among them."""
    from ops.graph.kernels.draws import renumber

    deeper, block = dict(nodes), {}
    for kind in book.offsets:
        sources = [r for r in drawn if r[0] == kind]
        if not sources:
            continue
        known = nodes.get(kind, np.empty(0, np.int64))
        ids, mask = (np.concatenate([drawn[r][i].ravel() for r in sources]) for i in (0, 1))
        places, new = renumber(known, ids, mask)
        deeper[kind] = np.concatenate([known, new])
        ends = np.cumsum([drawn[r][0].size for r in sources])
        for r, own in zip(sources, np.split(places, ends[:-1]), strict=True):
            block[r] = torch.from_numpy(own.reshape(drawn[r][0].shape)), torch.from_numpy(drawn[r][1])
    found = {kind: ids for kind, ids in deeper.items() if len(ids)}
    return found, {r: block[r] for r in book.relations if r in block}


def _hop(graph: Topology, nodes: Ids, hop: int, width: int, key: tuple[int, ...], mode: int) -> dict[Relation, Masked]:
    book = graph.book
    relations = [r for r in book.relations if len(nodes.get(r[2], ()))]
    keys = {r: key64(key[0], f"sample {relation_name(r)}", *key[1:], hop) for r in relations}
    places = {kind: by_owner(book, kind, ids) for kind, ids in nodes.items()}
    requests = {}
    for part in range(book.parts):
        own = {kind: book.within(kind, part, nodes[kind][at[part]]) for kind, at in places.items() if part in at}
        asked = {r: keys[r] for r in relations if r[2] in own}
        if asked:
            requests[part] = Request(own, asked, width, mode)
    answers = graph.draw(requests)
    found: dict[Relation, Masked] = {}
    for r in relations:
        shape = len(nodes[r[2]]), width
        ids = np.empty(shape, np.int64)
        for part, at in places[r[2]].items():
            ids[at] = answers[part][r]
        found[r] = ids, ids >= 0
    return found


def _pair_keys(book: Book, relation: Relation, pairs: NDArray[np.int64]) -> tuple[Relation, NDArray[np.int64]]:
    """The pairs as sorted single numbers."""
    return relation, np.unique(pairs[0] * book.count(relation[2]) + pairs[1])


def _forbid(
    book: Book, drawn: dict[Relation, Masked], nodes: Ids, n_roots: Mapping[str, int], label: Relation,
    forbidden: NDArray[np.int64],
) -> None:  # fmt: skip
    """Unmask every edge between the ends of a forbidden pair; only roots, the first rows, can be such an end."""
    source, _, target = label
    many = book.count(target)
    for r, (ids, mask) in drawn.items():
        own = nodes[r[2]][: n_roots.get(r[2], 0), None]
        there = ids[: len(own)]
        for ends, keys in (((source, target), there * many + own), ((target, source), own * many + there)):
            if (r[0], r[2]) == ends and len(own):
                at = np.searchsorted(forbidden, keys)
                mask[: len(own)] &= forbidden[np.minimum(at, len(forbidden) - 1)] != keys
