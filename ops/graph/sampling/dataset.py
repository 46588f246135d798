"""A partitioned graph as a method gets it: where its parts are, what serves them, and which nodes are clustered.

Axes: N nodes that are clustered, P parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import Relation, relation_name
from ops.graph.partition.manifest import Manifest
from ops.graph.sampling.client import Client, local_client, remote_client, start_service, stop_service
from ops.rng import generator


@dataclass(frozen=True)
class PartitionedGraph:
    """Parts below `place` (folder or s3://) with their manifest; `labels` are the relations whose edges are predicted.

    These lead from the type `rows`, whose nodes are clustered, to one other type (or to the same type). Rows are in the
    order of their global numbers. `actors` serve the parts; without any, the parts are mapped in this process.
    """

    name: str
    place: str
    manifest: Manifest
    labels: tuple[Relation, ...]
    notes: tuple[str, ...] = ()
    actors: tuple[Any, ...] = ()
    replicated: bool = False

    @property
    def rows(self) -> str:
        """The type whose nodes are clustered."""
        return self.labels[0][0]

    @property
    def others(self) -> str:
        """The type at the other end of the label relations."""
        return self.labels[0][2]

    @property
    def n_rows(self) -> int:
        """N, the number of clustered nodes."""
        return self.count(self.rows)

    @property
    def n_features(self) -> int:
        """The number of features of the clustered nodes; 0: they have none."""
        return self.manifest.nodes[self.rows].features

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the features of the clustered nodes."""
        return self.manifest.nodes[self.rows].names or None

    @property
    def parts(self) -> int:
        """P, the number of parts."""
        return self.manifest.parts

    @cached_property
    def ids(self) -> NDArray[Any]:
        """The original ids of the clustered nodes."""
        return self.connect().ids(self.rows)

    def part_ids(self, part: int) -> NDArray[Any]:
        """The original ids of the clustered nodes of one part."""
        answers = self.connect().call("ids", {part: (self.rows,)})
        return np.asarray(answers[part])

    @property
    def featured(self) -> list[str]:
        """The types whose nodes have features."""
        return [kind for kind, info in self.manifest.nodes.items() if info.features]

    def count(self, kind: str) -> int:
        """How many nodes of a type there are."""
        return self.manifest.nodes[kind].count

    def digest(self) -> str:
        """SHA-256 of the labels and of the graph in its parts, as the order of its nodes is part of the result."""
        h = hashlib.sha256(self.manifest.digest.encode())
        for kind, nodes in sorted(self.manifest.nodes.items()):
            h.update(f"{kind} {nodes.feature_dtype}".encode() + np.ascontiguousarray(nodes.offsets).tobytes())
        h.update(repr(sorted(self.manifest.partitioner.items())).encode())
        h.update(" ".join(map(relation_name, self.labels)).encode())
        return h.hexdigest()

    def connect(self, *, verify: bool = False) -> Client:
        """A client of the running service, or of the files (`verify` checks their checksums, which actors always do).

        Raises DataError, which names the missing or damaged file.
        """
        if self.actors:
            return remote_client(self.place, self.manifest, self.actors, replicated=self.replicated)
        return local_client(self.place, self.manifest, verify=verify)

    @contextmanager
    def served(self, *, replicated: bool) -> Iterator[PartitionedGraph]:
        """The same graph, served by one Ray actor for each part inside the context; Ray must be running."""
        actors = start_service(self.place, self.manifest)
        try:
            yield replace(self, actors=tuple(actors), replicated=replicated)
        finally:
            stop_service(actors)

    def part_rows(self, kind: str, part: int) -> NDArray[np.int64]:
        """The global numbers of the nodes of a type in a part."""
        offsets = self.manifest.nodes[kind].offsets
        return np.arange(offsets[part], offsets[part + 1], dtype=np.int64)


Which = tuple[int, int, int]  # a batch: (pass over the edges, part, number within the part)


def steps_of(
    sizes: Sequence[int], batch: int, seed: int, epoch: int, together: int, limit: int = 0
) -> list[list[Which]]:
    """The steps of an epoch: each has up to `together` batches, which workers share: their number changes no sum.

    `sizes` are the label edges of each part; part p has ceil(sizes[p] / batch) batches. An epoch is a pass over all of
    them in keyed order, or `limit` steps, which continue where the epoch before ended.
    """
    batches = [(part, number) for part, size in enumerate(sizes) for number in range(-(-size // batch))]
    many = -(-len(batches) // together)
    orders: dict[int, list[list[Which]]] = {}

    def step(index: int) -> list[Which]:
        turn, place = divmod(index, many)
        if turn not in orders:
            order = [(turn, *batches[i]) for i in generator(seed, "steps", turn).permutation(len(batches))]
            orders[turn] = [order[at : at + together] for at in range(0, len(order), together)]
        return orders[turn][place]

    length = limit or many
    return [step(index) for index in range(epoch * length, (epoch + 1) * length)]
