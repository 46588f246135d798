"""What a method may see of its input: features and edges. Labels are never a field here (design decision 8).

Axes: N nodes, F features, E directed edges (each undirected edge stands twice, a self loop once).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AttributedGraph:
    """An undirected graph with features on its nodes; made by `ops.data.load` or `ops.data.validate.make_graph`.

    `x` is float32 [N, F], finite. `edge_index` is int64 [2, E]: both directions of every edge, sorted by
    (source, target), unique, self loops kept. `ids` are the user's own row names. `notes` say, counted, what the
    loader changed or found (merged duplicates, symmetrised edges, isolated nodes ...), one sentence each.
    """

    name: str
    x: NDArray[np.float32]
    edge_index: NDArray[np.int64]
    ids: NDArray[np.character] | NDArray[np.int64] | None = None
    feature_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def n_nodes(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def n_features(self) -> int:
        """F."""
        return int(self.x.shape[1])

    def digest(self) -> str:
        """SHA-256 over features and edges; names, notes and labels do not enter."""
        h = hashlib.sha256()
        for array in (self.x, self.edge_index):
            h.update(f"{array.dtype.str}{array.shape}".encode())
            h.update(np.ascontiguousarray(array).data)
        return h.hexdigest()

    def with_notes(self, *notes: str) -> AttributedGraph:
        """The same graph with more notes."""
        return replace(self, notes=(*self.notes, *notes))
