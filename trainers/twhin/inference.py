"""Clusters of new users by a trained TwHIN: they are folded in from the nodes at the other ends of their edges.

The model stores the table of those nodes and the translations. A user's vector is the mean of what each of its edges
implies (`t - r`, or `s + r` where the user is the destination). `--fold-steps` refines it on those edges while
everything else is fixed.

Axes: n users, N nodes of the training, M edges, m negatives of each, D width.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from ops.clustering.shards import gather_rows
from ops.data.io.inductive_batch import NewRows, Placed, ways
from ops.data.types.hetero import Relation, relation_name, relation_of
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.sampling.client import Client
from ops.graph.sampling.dataset import PartitionedGraph
from ops.rng import generator
from trainers.hgt.inference import packed_ids, placed
from trainers.hgt.loop import shard_of, shares
from trainers.twhin.model import fold_in, refine, unseen_ends
from trainers.twhin.settings import Settings

VALUES = 1 << 24  # values of the negatives that a refinement has in memory at once
NEGATIVES = 64  # nodes of the training, the same for all users, against which every edge is refined


def inductive_tensors(
    local: Float32[Tensor, "_ D"], data: PartitionedGraph, client: Client, group: ProcessGroup
) -> dict[str, Tensor]:
    """What a model stores for new users: `ids.TYPE`, and `table.TYPE` [N D] of the nodes at the other end.

    `local` are the rows of that table that this worker has. Every worker has to call it.
    """
    kind = data.others
    return packed_ids(data, client, [kind]) | {
        f"table.{kind}": gather_rows(local, shard_of(data, kind, group), group).cpu()
    }


def predict(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], new: NewRows) -> Placed:
    """Clusters of new or training users by the given edges alone; without edges the confidence is 0.

    Raises ValueError where the model stores no vectors (`--no-store-states`).
    """
    chosen = Settings.model_validate(settings)
    n = len(new.numbers)
    nodes, a, b, which, pools = _edges(tensors, new)
    z = fold_in(nodes, a, b, n)
    edges = torch.bincount(nodes, minlength=n).cpu().numpy()
    if chosen.fold_steps and len(nodes):
        many = max(1, VALUES // (NEGATIVES * z.shape[1]))
        for rows, edge_rows in _pieces(edges, many):
            z[rows] = refine(
                z[rows], nodes[edge_rows] - rows.start, a[edge_rows], b[edge_rows], pools[which[edge_rows]],
                chosen.fold_steps, chosen.lr, chosen.temperature, chosen.normalise,
            )  # fmt: skip
    return placed(z, tensors, chosen, edges, edges > 0)


def _edges(tensors: Mapping[str, Tensor], new: NewRows) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For each edge [M], ascending by user: its user, its a and b [M D] (`unseen_ends`), and its row of the pools.

    A row of the pools [R m D] has the b of drawn nodes; there is one row for each relation and end.
    """
    nodes: list[Tensor] = []
    a: list[Tensor] = []
    b: list[Tensor] = []
    which: list[Tensor] = []
    pools: list[Tensor] = []
    for relation, way, is_source in used(tensors, new):
        other = relation[2] if is_source else relation[0]
        if f"table.{other}" not in tensors:
            raise ValueError(f"the model keeps no vectors of type {other}")
        table, shift = tensors[f"table.{other}"], tensors[f"shift.{relation_name(relation)}"]
        numbers = generator(0, "fold-in negatives").integers(len(table), size=NEGATIVES), new.edges[way].numbers
        drawn, others = (table[send(each, table.device)] for each in numbers)
        ends = unseen_ends(shift, others, is_source)
        nodes.append(send(new.edges[way].rows, table.device))
        a.append(ends[0])
        b.append(ends[1])
        which.append(nodes[-1].new_full((len(ends[0]),), len(pools)))
        pools.append(unseen_ends(shift, drawn, is_source)[1])
    order = torch.cat(nodes).argsort(stable=True)
    return (
        torch.cat(nodes)[order],
        torch.cat(a)[order],
        torch.cat(b)[order],
        torch.cat(which)[order],
        torch.stack(pools),
    )


def used(tensors: Mapping[str, Tensor], new: NewRows) -> list[tuple[Relation, Relation, bool]]:
    """(label relation, relation of `new.edges` that has its edges, whether users are its sources), in fixed order."""
    labels = [relation_of(name) for name in sorted(shares(tensors, "shift."))]
    return [(r, *way) for r in labels for way in ways(r, new.kind, new.edges) if way[0] in new.edges]


def _pieces(edges: NDArray[np.int64], many: int) -> Iterator[tuple[slice, slice]]:
    """Ranges of users and of their edges, with about `many` edges each."""
    ends = np.concatenate([[0], np.cumsum(edges)])
    first = 0
    while first < len(edges):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + many, side="right")) - 1)
        yield slice(first, last), slice(int(ends[first]), int(ends[last]))
        first = last
