"""The tables of a homogeneous graph: features, edges and labels, whose ids may be left out (row numbers then).

Axes: N rows, F features, E edges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.chunks import Chunk, Files, chunks_of, place_of, read_edge_table, read_table
from ops.data.io.dtypes import features_of, label_values
from ops.data.io.ids import Lookup, check_unique, ids_of, joined_ids
from ops.data.io.readers import DataFile, check_kind, file_at, reading
from ops.data.io.schema import edge_columns, label_columns, node_columns
from ops.data.types.hetero import Ids
from ops.errors import DataError

# two columns of such names, the first repeated, are a table in long form: one row a value, not one a node
_LONG = re.compile(r"(.*[_ ])?(id|idx|index|node|user|item|row|feature|column|col|variable|attribute|key)s?", re.I)


@dataclass(frozen=True)
class FeatureTable:
    """x numeric [N, F]; ids and labels [N] where the table has such columns; `notes` on what was read how."""

    x: NDArray[Any]
    feature_names: list[str]
    ids: NDArray[Any] | None
    labels: NDArray[Any] | None
    notes: list[str]


def feature_table(path: Path) -> FeatureTable:
    """Read features from .csv or .parquet: numeric columns, an optional `id`, an optional `label` (never a feature)."""
    chunks = feature_chunks(path)
    pieces = [split_features(chunk, read_table(chunk)) for chunk in chunks]
    names, special = list(chunks[0].header.features), chunks[0].header.named("id")
    x, ids, labels = np.concatenate([p[0] for p in pieces]), None, None
    if special is not None:
        ids = joined_ids([p[1] for p in pieces if p[1] is not None])
        _check_long(path, [special, *names], ids)
        check_unique(ids, lambda row: f"{path}, row {row}", hint="ids must differ: one row a node")
    elif x.size:
        _check_long(path, names, x[:, 0])
    if chunks[0].header.named("label") is not None:
        labels = joined_labels([p[2] for p in pieces if p[2] is not None])
    notes = [f"column {c!r} is taken as a feature; name it label if it holds the classes" for c in names if c in "yY"]
    return FeatureTable(x, names, ids, labels, notes + _doubtful(x, names))


def feature_chunks(path: Path) -> tuple[Chunk, ...]:
    """The chunks of a table of features. DataError for what is none, has no rows, or has columns that do not fit."""
    check_kind(path)
    file = file_at(str(path))
    columns = node_columns(file, strict=False)
    return chunks_of((file,), [columns], "the table", len(columns.features))


def split_features(chunk: Chunk, table: Any, first: int = 0) -> tuple[NDArray[Any], Ids | None, NDArray[Any] | None]:
    """Features [n, F], ids and labels of the rows of a chunk from its row `first` on. Raises DataError."""
    columns = chunk.header
    place = place_of(chunk)

    def at(row: int) -> str:
        return place(first + row)

    with reading(chunk.uri):
        label, name = columns.named("label"), columns.named("id")
        return (
            features_of(table, columns, chunk.width, at),
            None if name is None else ids_of(table.column(name), at),
            None if label is None else label_values(table.column(label), at),
        )


def joined_labels(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Labels of several pieces as one array: numbers where all are, else words."""
    parts = [part for part in parts if part.size] or list(parts[:1])
    plain = len({part.dtype.kind in "biuf" for part in parts}) == 1
    return np.concatenate(parts if plain else [part.astype(object) for part in parts])


def _check_long(path: Path, names: list[str], first: NDArray[Any]) -> None:
    if len(names) not in (2, 3) or not all(_LONG.fullmatch(n) for n in names[:2]):
        return
    nodes = len(np.unique(first))
    if nodes < len(first):
        value = f", values={names[2]!r}" if len(names) > 2 else ", aggfunc='size'"
        raise DataError(
            f"{path}: is in long form: {len(first):,} rows for {nodes:,} of {names[0]!r}; a table of features has one "
            f"row a node: pandas.read_csv(FILE).pivot_table(index={names[0]!r}, columns={names[1]!r}{value})"
            ".fillna(0).rename_axis('id').to_csv(NEW_FILE)"
        )


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


def label_table(files: Files, n: int, lookup: Lookup | None, strict: bool = False) -> NDArray[Any]:
    """Labels [n] in the order of the nodes from tables with a `label` (or one) column.

    With an `id` column (needed where `strict`) the rows may stand in any order: they are matched with the nodes, and
    every node must stand there once.
    """
    columns = [label_columns(file, strict) for file in files]
    rows, values = [], []
    for chunk in chunks_of(files, columns, "the table of labels"):
        table, at, name = read_table(chunk), place_of(chunk), chunk.header.named("id")
        with reading(chunk.uri):
            values.append(label_values(table.column(chunk.header.named("label")), at))
            if name is not None:
                rows.append((lookup or Lookup("node", np.arange(n)))(ids_of(table.column(name), at), "id", at))
    labels = joined_labels(values)
    if not rows:  # another length is said by make_labels
        return labels
    row = np.concatenate(rows)
    if row.size != n or np.unique(row).size != n:
        raise DataError(
            f"{files[0].uri}: {row.size} rows label {np.unique(row).size} of {n} nodes; label every node once (or "
            "'unknown'), or leave the file out"
        )
    ordered = np.empty_like(labels)
    ordered[row] = labels
    return ordered
