"""What a method may see of its input: features and edges. Labels are never a field here (design decision 8).

Axes: N nodes, F features, E directed edges (each undirected edge stands twice, a self loop once).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable  # the tests check every annotation
class Data(Protocol):
    """What a run knows of its data, whatever kind it is: a method's own data has more."""

    @property
    def name(self) -> str:
        """The data set's, for people."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading changed or found, one sentence each."""

    @property
    def ids(self) -> NDArray[Any] | None:
        """The user's own names of the rows that are clustered."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Of the rows' features."""

    @property
    def n_rows(self) -> int:
        """How many rows are clustered."""

    @property
    def n_features(self) -> int:
        """How many features they have."""

    def digest(self) -> str:
        """SHA-256 of all that training may see."""


@dataclass(frozen=True)
class AttributedGraph:
    """An undirected graph with features on its nodes; made by `ops.data.load` or `ops.data.io.validate.make_graph`.

    `x` is float32 [N, F], finite. `edge_index` is int64 [2, E]: both directions of every edge, sorted by
    (source, target), unique, self loops kept. `ids` are the user's own row names. `notes` say, counted, what the
    loader changed or found (merged duplicates, symmetrised edges, isolated nodes ...), one sentence each. `part`
    int64 [N] is the part of every node where the graph comes from the parts that `partition_graph.py` made.
    """

    name: str
    x: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    ids: NDArray[np.character] | NDArray[np.int64] | None = None
    feature_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())
    part: NDArray[np.int64] | None = None

    @property
    def n_nodes(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def n_rows(self) -> int:
        """N: the nodes are what is clustered."""
        return self.n_nodes

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.x.shape[1])

    def digest(self) -> str:
        """SHA-256 over features, edges and given parts; names, notes and labels do not enter."""
        h = hashlib.sha256()
        for array in (self.x, self.edge_index, *(() if self.part is None else (self.part,))):
            h.update(f"{array.dtype.str}{array.shape}".encode())
            h.update(np.ascontiguousarray(array).data)
        return h.hexdigest()

    def with_notes(self, *notes: str) -> AttributedGraph:
        """The same graph with more notes."""
        return replace(self, notes=(*self.notes, *notes))
