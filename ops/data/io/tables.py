"""Feature tables, edge tables and label tables: which column is what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ops.data.io.readers import check_header, read_table
from ops.data.io.validate import as_keys, check_ids, check_single
from ops.errors import DataError

_SOURCES, _TARGETS = ("source", "src"), ("target", "dst")
# A table that is trained on must not carry its answer: `y` may be a coordinate, the others are most likely labels.
_LABEL_LIKE = ("labels", "class", "classes", "target", "cluster", "category")
_MISSING = ("nan", "na", "n/a", "null", "none")


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
    return split_table(path, read_table(path))


def split_table(path: Path, table: pd.DataFrame) -> FeatureTable:
    """A table of `path` (or some rows of it) as features, ids and labels; DataError names what does not fit."""
    special = {c: _only(path, table, c) for c in ("id", "label")}
    names = [c for c in table.columns if c not in special.values()]
    # a data frame written without names has the header 0,1,2,...: names, not data
    if names != [str(i) for i in range(len(names))]:
        check_header(path, table)
    for name in names:
        if name.strip().lower() in _LABEL_LIKE:
            raise DataError(
                f"{path}: column {name!r}: name it label if it holds the classes, else give it another name"
            )
    notes = [f"column {c!r} is taken as a feature; name it label if it holds the classes" for c in names if c in "yY"]
    x = np.column_stack([_numbers(path, table[c]) for c in names]) if names else np.zeros((len(table), 0))
    notes += _doubtful(x, names)
    ids = None if special["id"] is None else check_ids(_values(table[special["id"]]), len(table), origin=str(path))
    labels = None if special["label"] is None else _values(table[special["label"]])
    return FeatureTable(x, names, ids, labels, notes)


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


def edge_table(path: Path, ids: NDArray[Any] | None = None) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Both ends [E], [E] of the edges as they stand (numbers or text), and notes on ignored columns.

    Columns source,target or src,dst, in any place; otherwise the first two. DataError where a value is missing, or
    where the header line of a CSV is an edge between two of the `ids`.
    """
    table = read_table(path, names=2)
    if table.shape[1] < 2:
        raise DataError(f"{path}: edges need two columns (source,target), found {', '.join(table.columns) or 'none'}")
    check_header(path, table)
    ends = [next((c for c in table.columns if c.strip().lower() in names), "") for names in (_SOURCES, _TARGETS)]
    if ends == ["", ""]:
        ends = list(table.columns[:2])
        if ids is not None and path.suffix.lower() == ".csv" and (find_rows(np.array(ends), ids) >= 0).all():
            raise DataError(f"{path}: the first line ({', '.join(ends)}) is an edge; it must name the columns")
    elif "" in ends:
        found = ", ".join(table.columns[:5])
        raise DataError(f"{path}: edges need both columns source,target or src,dst (or neither name), found {found}")
    for end in ends:
        missing = table[end].isna().to_numpy()
        if missing.any():
            raise DataError(
                f"{path}: {int(missing.sum())} values of column {end!r} are missing, the first in row "
                f"{int(missing.argmax())}; every edge needs two ends"
            )
        check_single(_values(table[end]), f"values of column {end!r}", str(path))
    rest = [c for c in table.columns if c not in ends]
    notes = [f"edge columns ignored: {', '.join(rest[:5])}"] if rest else []
    return _values(table[ends[0]]), _values(table[ends[1]]), notes


def resolve_edges(source: NDArray[Any], target: NDArray[Any], ids: NDArray[Any] | None, *, origin: str) -> NDArray[Any]:
    """Edges [2, E] as row numbers: looked up among `ids`, or taken as they are where the features have none."""
    if ids is None:
        source, target = _row_numbers(source), _row_numbers(target)
        if source.dtype.kind not in "biuf" or target.dtype.kind not in "biuf":
            pair = f"({str(source[0])!r}, {str(target[0])!r})" if source.size else "text"
            raise DataError(
                f"{origin}: edge 0 is {pair}: without an id column in the features, edges are row numbers from 0"
            )
        return np.stack([source, target])
    rows = np.stack([find_rows(source, ids), find_rows(target, ids)])
    lost = rows < 0
    if lost.any():
        at = int(lost.any(axis=0).argmax())
        ends = (str(source[at]), str(target[at]))
        name = ends[0 if lost[0, at] else 1]
        raise DataError(f"{origin}: edge {at} is {ends}: {name!r} is not among the ids of the features")
    return rows


def _row_numbers(ends: NDArray[Any]) -> NDArray[Any]:
    """Text as numbers where all of it is some: row numbers are no names, 1.0 is row 1."""
    try:
        return ends.astype(np.float64) if ends.dtype.kind in "OU" else ends
    except (TypeError, ValueError):
        return ends


def label_table(path: Path, n: int, ids: NDArray[Any] | None) -> NDArray[Any]:
    """Labels in the order of the nodes from a table with a `label` (or one) column.

    With an `id` column the rows may stand in any order: they are matched with the `ids` of the features (row
    numbers where the features have none), and every node must stand there once.
    """
    table = read_table(path, names=2)  # the labels may be the only column, or stand beside an id, under any name
    check_header(path, table)
    id_column, label_column = (_only(path, table, c) for c in ("id", "label"))
    rest = [c for c in table.columns if c not in (id_column, label_column)]
    if label_column is None:
        if len(rest) != 1:
            raise DataError(f"{path}: labels need one column named label, found {', '.join(table.columns[:5])}")
        label_column = rest[0]
    values = _values(table[label_column])
    if id_column is None or len(values) != n:  # another length is said by make_labels
        return values
    own = check_ids(_values(table[id_column]), n, origin=str(path))
    rows = find_rows(own, np.arange(n) if ids is None else ids)
    if (rows < 0).any():
        raise DataError(f"{path}: id {own[rows < 0][0].item()!r} is not among the ids of the features")
    ordered = np.empty_like(values)
    ordered[rows] = values
    return ordered


def find_rows(keys: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.int64]:
    """The row of each key among the unique `ids`, -1 where there is none; text and numbers compare as text."""
    if ids.size == 0:
        return np.full(keys.shape, -1, dtype=np.int64)
    if ids.dtype.kind != "i" or keys.dtype.kind not in "iuf":
        keys, ids = as_keys(keys).astype(np.str_), ids.astype(np.str_)
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    at = np.minimum(np.searchsorted(ranked, keys), ids.size - 1)
    return np.where(ranked[at] == keys, order[at], -1)


def _only(path: Path, table: pd.DataFrame, name: str) -> str | None:
    """The column of that name in any case, so that `Label` never becomes a feature; two of them are an error."""
    found = [c for c in table.columns if c.strip().lower() == name]
    if len(found) > 1:
        raise DataError(f"{path}: columns {', '.join(found)} could all be the {name}; keep one")
    return found[0] if found else None


def _numbers(path: Path, column: pd.Series[Any]) -> NDArray[Any]:
    """A feature column as numbers, missing ones as NaN; DataError names the first value that is no number."""
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    if isinstance(column.iloc[0] if len(column) else 0, (list, dict, bytes, np.ndarray)):
        raise DataError(f"{path}: column {column.name!r} holds {type(column.iloc[0]).__name__} values, not numbers")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    words = column.astype(str).str.strip().str.lower()
    wrong = np.isnan(numbers) & ~column.isna().to_numpy(dtype=bool) & ~words.isin(_MISSING).to_numpy(dtype=bool)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{path}: column {column.name!r} is not numeric ({str(column.iloc[row])[:40]!r} in row {row}); features "
            "are numbers (comma-separated in a CSV), only columns named id and label may hold words"
        )
    return numbers


def _values(column: pd.Series[Any]) -> NDArray[Any]:
    """A column as numpy: numbers as they are, everything else as objects with None for missing values."""
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    return column.astype(object).where(column.notna(), None).to_numpy(dtype=object)
