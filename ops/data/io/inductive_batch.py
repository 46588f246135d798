"""Rows to be placed by a trained model of a heterogeneous graph: their features, and their edges to nodes it knows.

Axes: n rows, F features, M edges of a relation, D width of a vector.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import REVERSE, Ids, Relation


@dataclass(frozen=True)
class Links:
    """The nodes at the other ends of each row's edges: numbers[indptr[i] : indptr[i + 1]] are row i's, ascending."""

    indptr: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @property
    def degrees(self) -> NDArray[np.int64]:
        """int64 [n]."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each edge: int64 [M]."""
        return np.repeat(np.arange(len(self.indptr) - 1), self.degrees)


@dataclass(frozen=True)
class NewRows:
    """Rows `first`, `first` + 1, ... of some data, all of the node type `kind`.

    `numbers` int64 [n]: the number each had in training, -1 for one that training did not know. `x` float32 [n F] or
    None. `edges` has every relation that leads into `kind` in the model, reverse ones too, perhaps without any edge;
    the nodes at the other ends are called by their numbers in training.
    """

    kind: str
    numbers: NDArray[np.int64]
    x: NDArray[np.float32] | None
    edges: dict[Relation, Links]
    first: int = 0

    def take(self, first: int, last: int) -> "NewRows":
        """The rows first .. last - 1 alone."""
        edges = {}
        for relation, links in self.edges.items():
            indptr = links.indptr[first : last + 1]
            edges[relation] = Links(indptr - indptr[0], links.numbers[indptr[0] : indptr[-1]])
        x = None if self.x is None else self.x[first:last]
        return NewRows(self.kind, self.numbers[first:last], x, edges, self.first + first)


@dataclass(frozen=True)
class Placed:
    """What a model says of rows: cluster int64 [n], confidence float32 [n], vector float32 [n D].

    `edges` int64 [n]: how many edges of each row the model could use; `evidence` bool [n]: whether there is any
    (an edge, a feature) of where the row belongs. Confidence is 0 where there is none.
    """

    cluster: NDArray[np.int64]
    confidence: NDArray[np.float32]
    vector: NDArray[np.float32]
    edges: NDArray[np.int64]
    evidence: NDArray[np.bool_]


def links(rows: NDArray[np.int64], numbers: NDArray[np.int64], n: int) -> Links:
    """The links of n rows from edges [M] as (row, number at the other end); an edge that stands twice counts once."""
    order = np.lexsort((numbers, rows))
    rows, numbers = rows[order], numbers[order]
    first = np.ones(len(rows), np.bool_)
    first[1:] = (rows[1:] != rows[:-1]) | (numbers[1:] != numbers[:-1])
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows[first], minlength=n), out=indptr[1:])
    return Links(indptr, numbers[first])


def ways(relation: Relation, kind: str, relations: Iterable[Relation]) -> list[tuple[Relation, bool]]:
    """How edges of a relation of the graph (no reverse one) reach rows of type `kind`: (relation into it, row is src).

    A relation of the type with itself reaches both ends; one without a reverse in `relations` is symmetric and stands
    for both directions by itself.
    """
    source, name, target = relation
    present, reached = set(relations), []
    if source == kind:
        back = (target, REVERSE + name, source)
        reached.append((back if back in present else relation, True))
    if target == kind:
        reached.append((relation, False))
    return reached


def pack_ids(ids: Ids) -> NDArray[np.int64] | NDArray[np.uint8]:
    """Ids as safetensors can hold them: int64 [N], or text as UTF-8 bytes uint8 [N width] with zeros at the end."""
    if ids.dtype.kind in "iu":
        return ids.astype(np.int64)
    words = np.char.encode(ids.astype(np.str_), "utf-8")
    return np.frombuffer(words.tobytes(), np.uint8).reshape(len(words), words.itemsize).copy()


def unpack_ids(packed: NDArray[np.int64] | NDArray[np.uint8]) -> Ids:
    """The ids that `pack_ids` packed."""
    if packed.ndim == 1:
        return packed.astype(np.int64)
    words = np.ascontiguousarray(packed).view(f"S{packed.shape[1]}")[:, 0]
    return np.char.decode(words, "utf-8")


def neighbour_types(relations: Sequence[Relation], kind: str) -> list[str]:
    """The types that relations (reverse ones too) lead from into `kind`, sorted."""
    return sorted({r[0] for r in relations if r[2] == kind})
