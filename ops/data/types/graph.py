"""What a method may see of its input: features and edges. Labels are never a field here (design decision 8).

Axes: N nodes, F features, E directed edges (each undirected edge stands twice, a self loop once).
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.types.encoding import Encoding
from ops.data.types.mapped_file import Mappable
from ops.data.types.scaling import Scaling

HASHED = 4096  # rows at a time


@runtime_checkable  # the tests check every annotation
class Data(Protocol):
    """What every kind of data tells a run; what a method trains on has more."""

    @property
    def name(self) -> str:
        """What the data set is called."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What loading changed or left out, one sentence each."""

    @property
    def ids(self) -> NDArray[Any] | None:
        """The user's names of the rows that are clustered, None where rows are called by their numbers."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the features, None where they have none."""

    @property
    def n_rows(self) -> int:
        """How many rows are clustered."""

    @property
    def n_features(self) -> int:
        """How many features they have."""

    def digest(self) -> str:
        """SHA-256 of all that training may see."""


def digest_of(*arrays: NDArray[Any] | None) -> str:
    """SHA-256 over the arrays that there are, read in blocks of rows: a memory map is never in memory as a whole."""
    h = hashlib.sha256()
    for array in arrays:
        if array is not None:
            h.update(f"{array.dtype.str}{array.shape}".encode())
            for first in range(0, len(array), HASHED):
                h.update(np.ascontiguousarray(array[first : first + HASHED]).data)
                memory.release(array)
    return h.hexdigest()


@dataclass(frozen=True)
class AttributedGraph(Mappable):
    """An undirected graph with features on its nodes (see `ops.data.load.load`, `ops.data.io.validate.make_graph`).

    `x` is float32 [N, F], finite. `edge_index` is int64 [2, E]: both directions of every edge, sorted by (source,
    target), unique, self loops kept. `weight` float32 [E] is theirs, None where all are alike. `ids` are the user's row
    names. `notes` say, counted, what the loader changed or met (merged duplicates, symmetrised edges, isolated nodes
    ...), one sentence each. `part` int64 [N] is the part of every node where the graph comes from the parts that
    `partition_graph.py` wrote; `scaling` is what brought the columns of `x` to one scale, `encoding` how they were read
    from a table.
    """

    name: str
    x: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    ids: NDArray[np.character] | NDArray[np.int64] | None = None
    feature_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())
    part: NDArray[np.int64] | None = None
    scaling: Scaling | None = None
    weight: NDArray[np.float32] | None = None
    encoding: Encoding | None = None

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
        """SHA-256 over features, edges, weights and given parts; names, notes and labels do not enter."""
        return digest_of(self.x, self.edge_index, self.part, self.weight)

    def with_notes(self, *notes: str) -> "AttributedGraph":
        """The same graph with more notes."""
        return replace(self, notes=(*self.notes, *notes))
