"""The tables of a homogeneous graph: features and edges, whose ids may be left out (row numbers then).

Axes: N rows, F features, E edges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.builder import Raw
from ops.data.io.chunks import Chunk, chunks_of, place_of, read_edge_table, read_table
from ops.data.io.dtypes import features_of
from ops.data.io.ids import Lookup, check_unique, flat, ids_of, is_text, joined_ids
from ops.data.io.labels import joined_labels, label_values
from ops.data.io.readers import DataFile, check_kind, file_at, read_npy, reading
from ops.data.io.schema import Columns, edge_columns, node_columns
from ops.data.io.validate import check_features
from ops.data.types.hetero import Ids
from ops.errors import DataError

# two columns of such names, the first repeated, are a table in long form: one row a value, not one a node
_LONG = re.compile(r"(.*[_ ])?(id|idx|index|node|user|item|row|feature|column|col|variable|attribute|key)s?", re.I)
FEW = 30  # rows that may look like a grid of values by chance
Split = tuple[NDArray[Any], Ids | None, NDArray[Any] | None]  # features [n, F], ids [n], labels [n] of some rows


def feature_table(path: Path) -> Raw:
    """Read features from .csv or .parquet: numeric columns, an optional `id`, an optional `label` (never a feature)."""
    chunks = _feature_chunks(path)
    memory.check_load(sum(chunk.bytes_in_memory for chunk in chunks), str(path))
    tables = [read_table(chunk) for chunk in chunks]
    notes = _long_form(path, chunks[0].columns, tables)
    pieces = [_split(chunk, table) for chunk, table in zip(chunks, tables, strict=True)]
    names, id_name = list(chunks[0].columns.features), chunks[0].columns.named("id")
    x, ids, labels = np.concatenate([p[0] for p in pieces]), None, None
    if id_name is not None:
        ids = joined_ids([p[1] for p in pieces if p[1] is not None])
        check_unique(ids, lambda row: f"{path}, row {row}", hint="ids must differ: one row a node")
    if chunks[0].columns.named("label") is not None:
        labels = joined_labels([p[2] for p in pieces if p[2] is not None])
    notes += [f"column {c!r} is taken as a feature; name it label if it holds the classes" for c in names if c in "yY"]
    return Raw(path.stem, str(path), x, None, labels, ids, names, notes + _doubtful(x, names))


def _feature_chunks(path: Path) -> tuple[Chunk, ...]:
    """The chunks of a table of features. DataError for what is none, has no rows, or has columns that do not fit."""
    check_kind(path)
    file = file_at(str(path))
    columns = node_columns(file, strict=False)
    return chunks_of((file,), [columns], "the table", len(columns.features))


def _split(chunk: Chunk, table: Any, first: int = 0) -> Split:
    """Features, ids and labels of the rows of a chunk from its row `first` on. Raises DataError."""
    columns, place = chunk.columns, place_of(chunk)
    label, name = columns.named("label"), columns.named("id")

    def at(row: int) -> str:
        return place(first + row)

    with reading(chunk.uri):
        return (
            features_of(table, columns, chunk.width, at),
            None if name is None else ids_of(table.column(name), at),
            None if label is None else label_values(table.column(label), at),
        )


@dataclass(frozen=True)
class Piece:
    """Rows `first`, `first` + 1, ... of a table: x float32 [n, F], finite; names of its columns where it has them."""

    first: int
    x: NDArray[np.float32]
    feature_names: tuple[str, ...] | None


class TableStream:
    """A table of features (.csv, .parquet, .npy) in pieces, so that memory does not grow with its rows.

    One pass counts the rows and checks their ids; then `pieces` gives the features, as often as it is asked.
    """

    def __init__(self, path: Path, batch_rows: int) -> None:
        """Raises DataError for what is no table, has no rows, or whose ids are missing or repeated."""
        self.path, self.batch_rows = path, batch_rows
        self.n_rows, parts = 0, []
        for _, x, _, ids in self._unchecked():
            self.n_rows += len(x)
            parts += [] if ids is None else [ids]
        if not self.n_rows:
            raise DataError(f"{path}: has no rows; at least one is needed")
        self.ids: Ids | None = joined_ids(parts) if parts else None
        if self.ids is not None:
            check_unique(self.ids, lambda row: f"{path}, row {row}", hint="ids must differ")

    def pieces(self) -> Iterator[Piece]:
        """The rows in order, at most `batch_rows` at a time. Raises DataError for values that are no finite numbers."""
        for first, x, names, _ in self._unchecked():
            yield Piece(first, check_features(x, feature_names=names, origin=str(self.path), first_row=first), names)

    def _unchecked(self) -> Iterator[tuple[int, NDArray[Any], tuple[str, ...] | None, Ids | None]]:
        """(first row, features as they are, names, ids) of each piece."""
        first, step = 0, self.batch_rows
        if self.path.suffix.lower() == ".npy":
            shape = read_npy(self.path, mapped=True).shape
            if len(shape) != 2:
                raise DataError(f"{self.path}: features must be a table [N, F], found shape {shape}")
            for first in range(0, shape[0], step):
                # mapped anew each time: pages that were read would count as this process's until the map is gone
                yield first, np.array(read_npy(self.path, mapped=True)[first : first + step]), None, None
            return
        for chunk in _feature_chunks(self.path):
            table = read_table(chunk)
            for row in range(0, table.num_rows, step):
                x, ids, _ = _split(chunk, table.slice(row, step), row)
                yield first + row, x, chunk.columns.features, ids
            first += table.num_rows


def _long_form(path: Path, columns: Columns, tables: Sequence[Any]) -> list[str]:
    """A note where the rows may be values, not nodes. DataError, with the pivot, where names, ids or words say so."""
    import pandas as pd
    import pyarrow as pa

    named = columns.named("id")
    names = [n for n, role in zip(columns.names, columns.roles, strict=True) if role and role != "label"]
    names.sort(key=lambda name: name != named)
    if len(names) not in (2, 3) or any(pa.types.is_nested(tables[0].schema.field(n).type) for n in names):
        return []
    pairs = pd.concat([table.select(names[:2]).to_pandas() for table in tables])
    (rows, _), (nodes, others) = pairs.shape, pairs.nunique()
    if nodes == rows:
        return []
    value = f", values={names[2]!r}" if len(names) > 2 else ", aggfunc='size'"
    pivot = (
        f"pandas.read_csv(FILE).pivot_table(index={names[0]!r}, columns={names[1]!r}{value})"
        ".fillna(0).rename_axis('id').to_csv(NEW_FILE)"
    )
    words = any(is_text(flat(table[name])) for table in tables for name in names[: 1 if named else 2])
    grid = max(nodes, others) <= rows / 2 and rows >= FEW and not pairs.duplicated().any()
    by_name = all(_LONG.fullmatch(name) for name in names[:2])
    if by_name or (named and names[2:] and 3 * nodes <= 2 * rows) or (grid and words):
        raise DataError(
            f"{path}: is in long form: {rows:,} rows for {nodes:,} of {names[0]!r}; a table of features has one "
            f"row a node: {pivot}"
        )
    doubt = f"each {names[0]!r} stands in several rows, each time with another {names[1]!r}; if a row is a value, not a"
    return [f"{doubt} node (long form): {pivot}"] if grid else []


def _doubtful(x: NDArray[Any], names: list[str]) -> list[str]:
    """Notes on columns that spoil distances between rows: one that numbers the rows, one that outweighs all others."""
    if len(x) < 3 or x.shape[1] < 2:
        return []
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused later, in a line of its own
        counts = [n for n, column in zip(names, x.T, strict=True) if (np.diff(np.sort(column)) == 1).all()]
        variance = x.astype(np.float64).var(axis=0)
    notes = [f"column {n!r} numbers the rows and is taken as a feature; name it id if it is none" for n in counts]
    if variance.max() > 0.9 * variance.sum():
        name = names[int(variance.argmax())]
        notes.append(f"column {name!r} holds over 90 % of the variance; features are not rescaled: do it beforehand")
    return notes


def edge_table(file: DataFile, ids: Ids | None) -> tuple[NDArray[Any], list[str]]:
    """Edges [2, E] as rows, looked up among `ids` (or row numbers where there are none), and notes on ignored columns.

    Columns source,target or src,dst, in any place; or the only two. DataError where a value is missing or is no node,
    or where the header line of a text file is an edge between two of the `ids`.
    """
    columns = edge_columns(file, strict=False)
    lookup = None if ids is None else Lookup("node", ids)
    names = (str(columns.named("src")), str(columns.named("dst")))
    if lookup is not None and file.suffix != ".parquet" and (lookup.rows(np.array(names)) >= 0).all():
        raise DataError(f"{file.uri}: the first line ({', '.join(names)}) is an edge; it must name the columns")
    parts = []
    for chunk in chunks_of((file,), [columns], "the table of edges"):
        src, dst, _, _ = read_edge_table(chunk)
        at = place_of(chunk)
        parts.append(np.stack([end_rows(end, lookup, name, at) for end, name in zip((src, dst), names, strict=True)]))
    rest = columns.ignored
    return np.concatenate(parts, axis=1), [f"edge columns ignored: {', '.join(rest[:5])}"] if rest else []


def end_rows(ends: Ids, lookup: Lookup | None, name: str, at: Any) -> NDArray[Any]:
    """One end of edges as rows: looked up, or as numbers (floats stay: they are refused by `check_edges`)."""
    if lookup is not None:
        return lookup(ends, name, at)
    if ends.dtype.kind == "i":
        return ends
    try:
        return ends.astype(np.float64)
    except ValueError:
        raise DataError(f"{at(0)}: {name} is {str(ends[0])!r}: without an id column in the features, edges are row "
                        "numbers from 0") from None  # fmt: skip
