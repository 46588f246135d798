"""The tables of a homogeneous graph: features and edges, whose ids may be left out (row numbers then).

Axes: N rows, F features, E edges.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.builder import UNSCALED, Raw
from ops.data.io.categories import Encoder, advice, no_categories, values_of, word_columns
from ops.data.io.chunks import Chunk, chunks_of, place_of, read_edge_table, read_table
from ops.data.io.dtypes import feature_columns
from ops.data.io.ids import Lookup, check_unique, ids_of, is_text, joined_ids, unchunked
from ops.data.io.labels import joined_labels, label_values
from ops.data.io.readers import DataFile, check_kind, file_at, read_npy, reading
from ops.data.io.schema import Columns, edge_columns, node_columns
from ops.data.io.validate import check_features
from ops.data.types.encoding import Encoding
from ops.data.types.hetero import Ids
from ops.errors import DataError

# two columns of such names, the first repeated, are a table in long form: one row a value, not one a node
_LONG = re.compile(r"(.*[_ ])?(id|idx|index|node|user|item|row|feature|column|col|variable|attribute|key)s?", re.I)
FEW = 30  # rows that may look like a grid of values by chance
TableColumns = tuple[NDArray[Any], Ids | None, NDArray[Any] | None]  # features [n, F], ids [n], labels [n] of some rows


def feature_table(path: Path, encoding: Encoding | None = None) -> Raw:
    """Read features from .csv or .parquet: numeric columns, an optional `id`, an optional `label` (never a feature).

    `encoding` says which columns are left out, and whether columns of words are categories, or which.
    """
    encoding = encoding or Encoding()
    chunks = _feature_chunks(path, encoding)
    memory.check_load(sum(chunk.bytes_in_memory for chunk in chunks), str(path))
    tables = [read_table(chunk) for chunk in chunks]
    notes = _long_form(path, chunks[0].columns, tables)
    encoding, chunks, missing = _settled(encoding, chunks, tables)
    if encoding.categories:  # as they are written: 01 is not 1
        tables = [read_table(chunk) for chunk in chunks]
    names, id_name = encoding.expanded(chunks[0].columns.features), chunks[0].columns.named("id")
    memory.check_load(8 * len(names) * sum(table.num_rows for table in tables), str(path))
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column is named as a value of another (COLUMN=VALUE); give it another name")
    encoder = Encoder(encoding)
    pieces = [_split(chunk, table, encoder=encoder) for chunk, table in zip(chunks, tables, strict=True)]
    x, ids, labels = np.concatenate([p[0] for p in pieces]), None, None
    if id_name is not None:
        ids = joined_ids([p[1] for p in pieces if p[1] is not None])
        check_unique(ids, lambda row: f"{path}, row {row}", hint="ids must differ: one row a node")
    if chunks[0].columns.named("label") is not None:
        labels = joined_labels([p[2] for p in pieces if p[2] is not None])
    notes += [f"column {c!r} is taken as a feature; name it label if it holds the classes" for c in names if c in "yY"]
    notes += _doubtful(x, names)
    notes += [f"columns left out: {', '.join(encoding.ignored)}"] if encoding.ignored else []
    for name, values in (encoding.categories or {}).items():
        notes.append(f"column {name!r} is {len(values)} columns of 0 and 1, one a value")
    notes += encoder.notes
    return Raw(path.stem, str(path), x, None, labels, ids, names, notes, encoding, missing)


def _settled(
    encoding: Encoding, chunks: tuple[Chunk, ...], tables: Sequence[Any]
) -> tuple[Encoding, tuple[Chunk, ...], tuple[str, str] | None]:
    """The encoding with its categories, the chunks with columns of words as these, and what is missing for that."""
    if encoding.categories is not None:
        return encoding, chunks, None
    names = chunks[0].columns.feature_names
    words = word_columns(tables, names, [place_of(chunk) for chunk in chunks])
    values = {name: values_of(tables, name) for name in words}
    unfit = no_categories(tables, values)
    fits = encoding.one_hot and not unfit
    missing = advice(words, values, unfit) if words and not fits else None
    roles = tuple(("category" if fits else "") if name in words else role
                  for name, role in zip(chunks[0].columns.names, chunks[0].columns.roles, strict=True))  # fmt: skip
    columns = replace(chunks[0].columns, roles=roles)
    chunks = tuple(replace(chunk, columns=columns) for chunk in chunks)
    return replace(encoding, categories=values if fits else {}), chunks, missing


def _feature_chunks(path: Path, encoding: Encoding | None = None) -> tuple[Chunk, ...]:
    """The chunks of a table of features. DataError for what is none, has no rows, or has columns that do not fit."""
    check_kind(path)
    file = file_at(str(path))
    columns = node_columns(file, strict=False, encoding=encoding)
    return chunks_of((file,), [columns], "the table", len(columns.features))


def _split(chunk: Chunk, table: Any, first: int = 0, encoder: Encoder | None = None) -> TableColumns:
    """Features, ids and labels of the rows of a chunk from its row `first` on. Raises DataError."""
    columns, place = chunk.columns, place_of(chunk)
    label, name = columns.named("label"), columns.named("id")

    def at(row: int) -> str:
        return place(first + row)

    with reading(chunk.uri):
        return (
            feature_columns(table, columns, chunk.width, at, encoder),
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

    def __init__(self, path: Path, batch_rows: int, encoding: Encoding | None = None) -> None:
        """Raises DataError for what is no table, has no rows, or whose ids are missing or repeated.

        `encoding` is a training's; `notes` says which values its categories do not know.
        """
        self.path, self.batch_rows = path, batch_rows
        self._encoding, self._encoder = encoding or Encoding(), Encoder(encoding)
        self.n_rows, parts = 0, []
        for _, x, _, ids in self._unchecked():
            self.n_rows += len(x)
            parts += [] if ids is None else [ids]
        if not self.n_rows:
            raise DataError(f"{path}: has no rows; at least one is needed")
        self.ids: Ids | None = joined_ids(parts) if parts else None
        if self.ids is not None:
            check_unique(self.ids, lambda row: f"{path}, row {row}", hint="ids must differ")
        self.notes = self._encoder.notes

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
        for chunk in _feature_chunks(self.path, self._encoding):
            table, names = read_table(chunk), tuple(self._encoding.expanded(chunk.columns.features))
            for row in range(0, table.num_rows, step):
                x, ids, _ = _split(chunk, table.slice(row, step), row, self._encoder)
                yield first + row, x, names, ids
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
    words = any(is_text(unchunked(table[name])) for table in tables for name in names[: 1 if named else 2])
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
        notes.append(f"column {name!r} {UNSCALED}; --scale standard brings all columns to one scale")
    return notes


def edge_table(file: DataFile, ids: Ids | None) -> tuple[NDArray[Any], NDArray[np.float32] | None, list[str]]:
    """Edges [2, E] as rows, looked up among `ids` (or row numbers where there are none), weights [E], and notes.

    Columns source,target or src,dst, in any place, and perhaps weight; or the only two. DataError where a value is
    missing or is no node, or where the header line of a text file is an edge between two of the `ids`.
    """
    lookup = None if ids is None else Lookup("node", ids)
    columns = edge_columns(file, strict=False)
    names = (str(columns.named("src")), str(columns.named("dst")))
    if lookup is not None and file.suffix != ".parquet" and (lookup.rows(np.array(names)) >= 0).all():
        raise DataError(f"{file.uri}: the first line ({', '.join(names)}) is an edge; it must name the columns")
    parts, weights = [], []
    for chunk in chunks_of((file,), [columns], "the table of edges"):
        src, dst, weight, _ = read_edge_table(chunk)
        weights += [] if weight is None else [weight]
        at = place_of(chunk)
        parts.append(np.stack([end_rows(end, lookup, name, at) for end, name in zip((src, dst), names, strict=True)]))
    rest = columns.ignored
    weight = np.concatenate(weights) if weights else None
    return np.concatenate(parts, axis=1), weight, [f"edge columns ignored: {', '.join(rest[:5])}"] if rest else []


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
