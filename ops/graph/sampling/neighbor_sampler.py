"""Sampled neighbourhoods of a partitioned graph as dense blocks, the same whatever process answers and however often.

Each part gets one question per hop, with all relations and batches in it. Every draw is keyed by (seed, epoch, part,
number, hop, relation, node, slot): a retried request, a restarted actor, another number of workers or another order of
requests gives the same sample.

Axes: B rows of a block, F fan-out, N nodes of a type at a depth, P parts, L hops.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.hetero import Relation, relation_name
from ops.device import send
from ops.graph.partition.manifest import Manifest
from ops.graph.sampling.part_service import HopRequest, by_owner, numbers_within
from ops.rng import key64

Mode = str
MODES = {"replace": 0, "distinct": 1, "padded": 2}
# (method of `PartService`, arguments by part) -> answers by part; the parts of one call are independent of each other
Call = Callable[[str, Mapping[int, tuple[Any, ...]]], dict[int, Any]]
Ids = Mapping[str, NDArray[np.int64]]  # node type -> global numbers
Masked = tuple[NDArray[np.int64], NDArray[np.bool_]]  # source numbers [B F], and which of them count [B F]
Block = tuple[Int64[Tensor, "_ _"], Bool[Tensor, "_ _"]]  # [B F]; B and F differ between blocks


@dataclass(frozen=True)
class Sample:
    """An L-hop neighbourhood.

    `nodes[d]`: global numbers of depth d by type, roots first; depth d + 1 begins with the nodes of depth d in the same
    order. `blocks[d]`: a row for each node of depth d; its entries are positions among the sources of depth d + 1,
    where the mask is True. `features`: float32 [N F] of the outermost nodes. `numbers`: the numbers of these on the
    device, where they were requested.
    """

    nodes: tuple[dict[str, NDArray[np.int64]], ...]
    blocks: tuple[dict[Relation, Block], ...]
    features: dict[str, Float[Tensor, "_ _"]]
    numbers: dict[str, Int64[Tensor, "_"]] = field(default_factory=dict)

    def sent(self, device: torch.device, *, numbers: bool) -> Sample:
        """The sample with blocks and features on `device`, and the `numbers` of the outermost nodes where requested."""
        if device.type == "cpu":
            return self
        outermost = self.nodes[-1] if numbers else {}
        sent = {kind: send(ids, device) for kind, ids in outermost.items()}
        blocks = [{r: (send(at, device), send(mask, device)) for r, (at, mask) in hop.items()} for hop in self.blocks]
        features = {kind: send(x, device) for kind, x in self.features.items()}
        return Sample(self.nodes, tuple(blocks), features, sent)

    @property
    def edges(self) -> int:
        """How many edges were drawn."""
        return sum(int(mask.sum()) for hop in self.blocks for _, mask in hop.values())


@dataclass(frozen=True)
class Neighbourhood:
    """What is to be sampled: the neighbourhood of `roots` (unique within a type), one hop for each entry of `fanout`.

    `key` = (seed, epoch, part, number) keys the draws. `without` = (label relation, pairs int64 [2 M] of global
    numbers): no edge between the ends of one of these pairs is in the sample, whatever its relation or direction; all
    these ends must be roots. `mode`: with replacement, distinct (all neighbours where there are few enough), or
    distinct and circularly padded.
    """

    roots: Ids
    fanout: Sequence[int]
    key: tuple[int, ...]
    mode: Mode = "distinct"
    without: tuple[Relation, NDArray[np.int64]] | None = None


def samples(manifest: Manifest, draw: Call, wanted: Sequence[Neighbourhood]) -> list[Sample]:
    """Sample neighbourhoods, without features, by one question per (part, hop) for all of them together."""
    samplers = {i: _sampler(manifest, each) for i, each in enumerate(wanted)}
    finished: dict[int, Sample] = {}
    answers: dict[int, Any] = dict.fromkeys(samplers)
    while answers:
        by_part: dict[int, list[tuple[int, HopRequest]]] = {}
        for i, answer in answers.items():
            try:
                for part, request in samplers[i].send(answer).items():
                    by_part.setdefault(part, []).append((i, request))
            except StopIteration as end:
                finished[i] = end.value
        answers = {i: {} for i in samplers if i not in finished}
        questions = {part: ([request for _, request in asked],) for part, asked in by_part.items()}
        drawn = draw("sample", questions) if questions else {}
        for part, asked in by_part.items():
            for (i, _), answer in zip(asked, drawn[part], strict=True):
                answers[i][part] = answer
    return [finished[i] for i in samplers]


def _sampler(
    manifest: Manifest, wanted: Neighbourhood
) -> Generator[dict[int, HopRequest], dict[int, dict[Relation, Any]], Sample]:
    """A generator: yields the questions to each part at a hop, is sent the answers, and returns the sample."""
    roots = wanted.roots
    nodes, blocks = [{kind: np.ascontiguousarray(ids) for kind, ids in roots.items()}], []
    for hop, width in enumerate(wanted.fanout):
        drawn = yield from _hop(manifest, nodes[-1], hop, width, wanted)
        if wanted.without is not None:
            _forbid(manifest, drawn, nodes[-1], {kind: len(ids) for kind, ids in roots.items()}, *wanted.without)
        deeper, block = _one_depth(manifest, nodes[-1], drawn)
        nodes.append(deeper)
        blocks.append(block)
    return Sample(tuple(nodes), tuple(blocks), {})


def _one_depth(
    manifest: Manifest, nodes: Ids, drawn: Mapping[Relation, Masked]
) -> tuple[dict[str, NDArray[np.int64]], dict[Relation, Block]]:
    """The nodes one depth further out, those of this depth first, and the drawn edges as positions among them."""
    from ops.graph.kernels.draws import renumber

    deeper, block = dict(nodes), {}
    for kind in manifest.nodes:
        sources = [r for r in drawn if r[0] == kind]
        if not sources:
            continue
        inner = nodes.get(kind, np.empty(0, np.int64))
        ids, mask = (np.concatenate([drawn[r][i].ravel() for r in sources]) for i in (0, 1))
        positions, new = renumber(inner, ids, mask)
        deeper[kind] = np.concatenate([inner, new])
        ends = np.cumsum([drawn[r][0].size for r in sources])
        for r, places in zip(sources, np.split(positions, ends[:-1]), strict=True):
            block[r] = torch.from_numpy(places.reshape(drawn[r][0].shape)), torch.from_numpy(drawn[r][1])
    return {kind: ids for kind, ids in deeper.items() if len(ids)}, {r: block[r] for r in manifest.edges if r in block}


def _hop(
    manifest: Manifest, nodes: Ids, hop: int, width: int, wanted: Neighbourhood
) -> Generator[dict[int, HopRequest], dict[int, dict[Relation, Any]], dict[Relation, Masked]]:
    relations = [r for r in manifest.edges if len(nodes.get(r[2], ()))]
    seed, *rest = wanted.key
    keys = {r: key64(seed, f"sample {relation_name(r)}", *rest, hop) for r in relations}
    owned = {kind: by_owner(manifest, kind, ids) for kind, ids in nodes.items()}
    requests = {}
    for part in range(manifest.parts):
        rows = {kind: numbers_within(manifest, kind, part, nodes[kind][places[part]])
                for kind, places in owned.items() if part in places}  # fmt: skip
        asked = {r: keys[r] for r in relations if r[2] in rows}
        if asked:
            requests[part] = HopRequest(rows, asked, width, MODES[wanted.mode])
    answers = yield requests
    drawn: dict[Relation, Masked] = {}
    for r in relations:
        ids = np.empty((len(nodes[r[2]]), width), np.int64)
        for part, places in owned[r[2]].items():
            ids[places] = answers[part][r]
        drawn[r] = ids, ids >= 0
    return drawn


def _forbid(
    manifest: Manifest, drawn: dict[Relation, Masked], nodes: Ids, n_roots: Mapping[str, int], label: Relation,
    pairs: NDArray[np.int64],
) -> None:  # fmt: skip
    """Set the mask of every edge between the ends of a forbidden pair to False; only roots can be such ends."""
    source, _, target = label
    many = manifest.nodes[target].count
    forbidden = np.unique(pairs[0] * many + pairs[1])
    for r, (ids, mask) in drawn.items():
        rows = nodes[r[2]][: n_roots.get(r[2], 0), None]
        ends = ids[: len(rows)]
        for kinds, keys in (((source, target), ends * many + rows), ((target, source), rows * many + ends)):
            if (r[0], r[2]) == kinds and len(rows):
                at = np.searchsorted(forbidden, keys)
                mask[: len(rows)] &= forbidden[np.minimum(at, len(forbidden) - 1)] != keys
