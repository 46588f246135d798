"""The HGT network: linear inputs by node type, one layer a hop, embeddings of unit length. Tensors in, tensors out.

`h_0 = x W_type + b_type`; a type without features has a learned vector instead, and with `id_buckets` a learned row for
the node is added. `h_{l+1} = layer(h_l)` over the blocks from the outermost hop inwards, then rows of length 1. Weights
are a plain dict by readable name, so that an optimiser, a checkpoint and an all-reduce see the same thing.

Axes: N nodes of a type at a depth, B roots of a type, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.hetero import Relation
from ops.device import send
from ops.errors import SettingsError
from ops.graph.sampling.dataset import PartitionedGraph
from ops.losses.normalize import unit_rows
from ops.rng import torch_generator
from trainers.hgt.layer import Block, Weights, dropout, hgt_layer, layer_weights, linear, linear_weights
from trainers.hgt.settings import Settings


@dataclass(frozen=True)
class Metadata:
    """What the network's shape depends on: nodes and feature width (0: none) by type, relations and reverse ones."""

    counts: Mapping[str, int]
    features: Mapping[str, int]
    relations: tuple[Relation, ...]


@runtime_checkable  # the tests check every annotation
class Sample(Protocol):
    """What the network reads of a Sample: nodes by depth, blocks by hop, features of the outermost nodes."""

    @property
    def nodes(self) -> tuple[dict[str, NDArray[np.int64]], ...]:
        """Node numbers by type, roots first; each depth begins with the nodes of the depth before."""

    @property
    def blocks(self) -> tuple[dict[Relation, Block], ...]:
        """`blocks[d]`: a row for each node of depth d, whose entries are positions among the sources of depth d + 1."""

    @property
    def features(self) -> dict[str, Float[Tensor, "_ _"]]:
        """Float [N F] of the nodes of the last depth, for types with features."""

    @property
    def numbers(self) -> dict[str, Int64[Tensor, "_"]]:
        """The numbers of the nodes of the last depth on the device, where they were sent to it."""


def metadata_of(data: PartitionedGraph) -> Metadata:
    """The metadata of a partitioned graph."""
    nodes = data.manifest.nodes
    counts, features = {k: n.count for k, n in nodes.items()}, {k: n.features for k, n in nodes.items()}
    return Metadata(counts, features, tuple(data.manifest.edges))


def parameters(settings: Settings, metadata: Metadata, seed: int) -> dict[str, Tensor]:
    """All weights by name, float32, alphabetical, requiring gradients; first values are keyed by (seed, name).

    `input.TYPE.weight` [F H], `input.TYPE.bias` [H], `input.TYPE.ids` [min(nodes, id_buckets) H], then those of every
    layer (`layer_weights`). Raises SettingsError where nothing would tell one node from another.
    """
    if not settings.id_buckets and not any(metadata.features.values()):
        raise SettingsError(
            "no node type has features, so all nodes would look alike: give --id-buckets, "
            f"e.g. {max(metadata.counts.values())} (a learned row a node)"
        )
    weights: dict[str, Tensor] = {}
    for kind, count in metadata.counts.items():
        weights |= _input_weights(kind, count, metadata.features.get(kind, 0), settings, seed)
    types, widths = sorted(metadata.counts), (settings.hidden, settings.hidden)
    for number in range(1, settings.layers + 1):
        weights |= layer_weights(f"layer{number}.", types, metadata.relations, widths, settings.heads, seed)
    return {name: weights[name].requires_grad_() for name in sorted(weights)}


def forward(
    weights: Weights, settings: Settings, sample: Sample, generator: torch.Generator | None = None
) -> dict[str, Float[Tensor, "_ H"]]:
    """Embeddings [B H] of the roots by type, rows of length 1.

    With a `generator` there is dropout, as in training. A node number of -1 (a node that the training has not seen)
    gets no row of `input.TYPE.ids`. A weight that the sample does not reach gets no gradient (`grad` stays None).
    """
    if len(sample.blocks) != settings.layers:
        raise ValueError(f"a sample of {len(sample.blocks)} hops for a network of {settings.layers} layers")
    return {kind: unit_rows(x.float()) for kind, x in states(weights, settings, sample, generator)[-1].items()}


def states(
    weights: Weights, settings: Settings, sample: Sample, generator: torch.Generator | None = None
) -> list[dict[str, Float[Tensor, "_ H"]]]:
    """States by type after 0, 1, ... layers, of a sample that may have fewer hops than the network has layers.

    After l layers there are the nodes of depth `hops - l`, of which the roots are the first. Dropout is as in
    `forward`.
    """
    outermost, hops = sample.nodes[-1], len(sample.blocks)
    h = {
        kind: inputs(weights, kind, sample.numbers.get(kind, ids), sample.features.get(kind))
        for kind, ids in sorted(outermost.items())
    }
    after = [{kind: dropout(x, settings.dropout, generator) for kind, x in h.items()}]
    for number, depth in enumerate(reversed(range(hops)), start=1):
        targets = {kind: len(ids) for kind, ids in sample.nodes[depth].items()}
        after.append(layer(weights, settings, number, after[-1], sample.blocks[depth], targets, generator))
    return after


def layer(
    weights: Weights,
    settings: Settings,
    number: int,
    h: Mapping[str, Float[Tensor, "_ H"]],
    blocks: Mapping[Relation, Block],
    targets: Mapping[str, int],
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, "_ H"]]:
    """Layer `number` (1 .. L) of the network over `blocks`: `hgt_layer`, then the norm where the settings have one."""
    h = hgt_layer(weights, f"layer{number}.", h, blocks, targets, settings.dropout, generator)
    if settings.norm == "layer":
        h = {kind: torch.nn.functional.layer_norm(x, x.shape[1:]) for kind, x in h.items()}
    return dict(h)


def _input_weights(kind: str, count: int, features: int, settings: Settings, seed: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    if features:
        weights |= linear_weights(f"input.{kind}", features, settings.hidden, seed)
    free: dict[str, tuple[int, ...]] = {} if features else {"bias": (settings.hidden,)}
    if settings.id_buckets:
        free["ids"] = (min(count, settings.id_buckets), settings.hidden)
    for part, shape in free.items():
        # entries have variance 1/3, like the outputs of a linear layer on standardised features
        g = torch_generator(seed, f"hgt input.{kind}.{part}")
        weights[f"input.{kind}.{part}"] = torch.empty(shape).uniform_(-1, 1, generator=g)
    return weights


def inputs(
    weights: Weights, kind: str, ids: NDArray[np.int64] | Int64[Tensor, "N"], x: Float[Tensor, "N F"] | None
) -> Float[Tensor, "N H"]:
    """States of nodes of a type before the first layer; `ids` int64 [N] are their numbers, -1 for nodes not seen."""
    name, bias = f"input.{kind}", weights[f"input.{kind}.bias"]
    if f"{name}.weight" in weights:
        if x is None:
            raise ValueError(f"the sample has no features of type {kind}, which the network was built for")
        h = linear(weights, name, x)
    else:
        h = bias.expand(len(ids), -1)
    table = weights.get(f"{name}.ids")
    if table is None:
        return h
    rows = ids if isinstance(ids, Tensor) else send(ids, table.device)
    learned = torch.nn.functional.embedding(rows.clamp(min=0) % len(table), table)
    return h + learned * (rows >= 0)[:, None]
