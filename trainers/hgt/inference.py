"""Clusters of new users by a trained HGT without its graph: what a model stores for that, and how it is used.

A user's state after layer l needs its own state and those of its neighbours after layer l - 1. The model stores the
neighbours' states (`states.TYPE.l`, of every type that neighbours users, l = 0 .. L - 1), computed at the end of the
training from sampled neighbourhoods. The states of a new user follow layer by layer from its features and edges.

Axes: n users, N nodes of a type, H hidden width, F neighbours over a relation, K centres or map units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.lloyd import nearest_two
from ops.clustering.shards import gather_rows
from ops.clustering.som import read_map
from ops.data.io.inductive_batch import Links, NewRows, Placed, neighbour_types, pack_ids
from ops.data.types.hetero import Relation, relation_name
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.sampling.client import Client, prefetched
from ops.graph.sampling.dataset import PartitionedGraph
from ops.graph.sampling.neighbor_sampler import Sample
from ops.losses.normalize import unit_rows
from ops.rng import key64
from trainers.hgt.layer import Block, Weights
from trainers.hgt.loop import parts_of_rank, shard_of
from trainers.hgt.model import inputs, layer, states
from trainers.hgt.settings import GraphSettings, Settings

CAP = 64  # neighbours of a user over a relation; of more, so many are drawn
ROWS = 2048
STATE_EPOCH = 2**32 - 2  # keys the neighbourhoods that states are computed from


def packed_ids(data: PartitionedGraph, client: Client, kinds: list[str]) -> dict[str, Tensor]:
    """`ids.TYPE` of the clustered type and of `kinds`, in the order of the nodes' numbers (`inductive_batch`)."""
    wanted = sorted({data.rows, *kinds})
    return {f"ids.{kind}": torch.from_numpy(pack_ids(client.ids(kind))) for kind in wanted}


@torch.no_grad()
def inductive_tensors(
    weights: Weights,
    settings: Settings,
    data: PartitionedGraph,
    client: Client,
    group: ProcessGroup,
    seed: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """What a model stores for new users: `states.TYPE.l` float32 [N H] and `ids.TYPE`.

    Every worker has to call it.
    """
    kinds = neighbour_types(tuple(client.manifest.edges), data.rows)
    tensors = packed_ids(data, client, kinds)
    # a user takes the first hop itself; the further hops are those of its neighbours
    fan_outs, key = settings.fan_outs[1:], (seed, STATE_EPOCH)
    for kind in kinds:
        local = [torch.zeros(0, settings.layers, settings.hidden, device=device)]
        for n, sample in neighbourhoods(client, data, group, kind, settings, fan_outs, key, device):
            local.append(torch.stack([h[kind][:n] for h in states(weights, settings, sample)], 1))
        full = gather_rows(torch.cat(local), shard_of(data, kind, group), group).cpu()
        tensors |= {f"states.{kind}.{depth}": full[:, depth].contiguous() for depth in range(settings.layers)}
    return tensors


def neighbourhoods(
    client: Client, data: PartitionedGraph, group: ProcessGroup, kind: str, settings: Settings, fan_outs: Sequence[int],
    key: tuple[int, int], device: torch.device,
) -> Iterator[tuple[int, Sample]]:  # fmt: skip
    """All nodes of a type in this worker's parts, chunk after chunk: how many there are, and their neighbourhood.

    `key` keys the draws, together with part and chunk; it has the seed, and a number for the purpose in the place of an
    epoch.
    """

    def draw(part: int, at: int) -> tuple[int, Sample]:
        numbers = data.part_rows(kind, part)[at : at + ROWS]
        sample = client.sample({kind: numbers}, fan_outs, (*key, part, at), settings.sampling, featured=data.featured)
        return len(numbers), sample.sent(device, numbers=bool(settings.id_buckets))

    chunks = [
        (part, at) for part in parts_of_rank(data, group) for at in range(0, len(data.part_rows(kind, part)), ROWS)
    ]
    return prefetched((partial(draw, *chunk) for chunk in chunks), min(settings.prefetch, 2))


def predict(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], new: NewRows) -> Placed:
    """Clusters of users by a stored model; users without edges are placed by their features.

    Without both the confidence is 0. Raises ValueError where the model stores no states (`--no-store-states`).
    """
    chosen = Settings.model_validate(settings)
    z = embed(tensors, chosen, new)
    edges = sum((links.degrees for links in new.edges.values()), np.zeros(len(new.numbers), np.int64))
    learned = bool(chosen.id_buckets) & (new.numbers >= 0)
    informed = (edges > 0) | learned | (f"input.{new.kind}.weight" in tensors)
    return placed(z, tensors, chosen, edges, informed)


def placed(
    z: Float32[Tensor, "n D"],
    tensors: Mapping[str, Tensor],
    settings: GraphSettings,
    edges: NDArray[np.int64],
    informed: NDArray[np.bool_],
) -> Placed:
    """The nearest centre, or the cluster of the nearest map unit, as the training assigns its users.

    The confidence is 0 for users that are not `informed`, of which nothing is known.
    """
    spherical, centres = settings.kmeans == "spherical", tensors["centres"].float()
    if settings.cluster == "som":
        cluster, sure = read_map(z, centres, tensors["unit_clusters"], spherical)
    else:
        cluster, sure = nearest_two(normalize(z) if spherical else z, centres)
    labels, confidence, vectors = (each.cpu().numpy() for each in (cluster, sure, z))
    return Placed(labels, np.where(informed, confidence, np.float32(0)), vectors, edges, informed)


@torch.no_grad()
def embed(tensors: Weights, settings: Settings, new: NewRows) -> Float32[Tensor, "n H"]:
    """Embeddings of users, rows of length 1. Raises ValueError where the model stores no states."""
    n, blocks, needed, device = len(new.numbers), {}, {}, tensors["centres"].device
    drawn = {r: draw(links, r, new.first, max(CAP, *settings.fan_outs)) for r, links in sorted(new.edges.items())}
    for kind in sorted({r[0] for r in drawn}):
        if f"states.{kind}.0" not in tensors:
            raise ValueError(f"the model keeps no states of type {kind}")
        mine = [r for r in drawn if r[0] == kind]
        flat = np.concatenate([drawn[r][0].ravel() for r in mine])
        needed[kind], places = np.unique(flat, return_inverse=True)
        ends = np.cumsum([drawn[r][0].size for r in mine])[:-1]
        shift = n if kind == new.kind else 0  # in this type the users' states come first
        for r, at in zip(mine, np.split(places, ends), strict=True):
            blocks[r] = _block(at.reshape(drawn[r][0].shape) + shift, drawn[r][1], device)
    h = inputs(tensors, new.kind, new.numbers, None if new.x is None else send(new.x, device))
    for number in range(1, settings.layers + 1):
        there = {k: tensors[f"states.{k}.{number - 1}"][send(ids, device)] for k, ids in needed.items()}
        there[new.kind] = torch.cat([h, there[new.kind]]) if new.kind in there else h
        h = layer(tensors, settings, number, there, blocks, {new.kind: n})[new.kind]
    return unit_rows(h)


def _block(places: NDArray[np.int64], mask: NDArray[np.bool_], device: torch.device) -> Block:
    return send(places, device), send(mask, device)


def draw(links: Links, relation: Relation, first: int, cap: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Numbers of neighbours [n F] and which are real: all of a row, or `cap` distinct ones where it has more.

    Draws are keyed by relation and row number (counted from `first`), so that pieces of any size draw the same.
    """
    degrees = links.degrees
    width = int(min(cap, degrees.max(initial=0)))
    if degrees.max(initial=0) > cap:
        from ops.graph.kernels.draws import DISTINCT, neighbours

        numbers = np.empty((len(degrees), width), np.int64)
        key = np.uint64(key64(0, f"fold-in {relation_name(relation)}"))
        neighbours(links.indptr, links.numbers, np.arange(len(degrees)), first, key, width, DISTINCT, numbers)
        return np.where(numbers >= 0, numbers, links.numbers[0]), numbers >= 0
    mask = np.arange(width) < degrees[:, None]
    numbers = np.zeros(mask.shape, np.int64)
    numbers[mask] = links.numbers
    return numbers, mask
