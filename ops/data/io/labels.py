"""Labels of rows, for judging only: read from tables, then whole numbers or words become codes.

Axes: N rows, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.chunks import Files, chunks_of, place_of, read_table
from ops.data.io.ids import At, Lookup, ids_of, unchunked
from ops.data.io.readers import reading
from ops.data.io.schema import is_number, label_columns
from ops.data.io.validate import count
from ops.errors import DataError

NO_LABEL = ("", "-1", "-1.0", "nan", "na", "n/a", "none", "null", "unknown", "unlabeled", "unlabelled")


def label_values(column: Any, at: At) -> NDArray[Any]:
    """An Arrow column of labels: numbers (NaN where one is missing), or words with None. DataError for lists."""
    import pyarrow as pa

    column = unchunked(column)
    if pa.types.is_nested(column.type):
        raise DataError(f"{at(0)}: labels must be numbers or words, found {column.type}")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def joined_labels(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Labels of several pieces as one array: numbers where all are, else words."""
    parts = [part for part in parts if part.size] or list(parts[:1])
    plain = len({part.dtype.kind in "biuf" for part in parts}) == 1
    return np.concatenate(parts if plain else [part.astype(object) for part in parts])


def label_table(files: Files, n: int, lookup: Lookup | None, strict: bool = False) -> NDArray[Any]:
    """Labels [n] in the order of the nodes from tables with a `label` (or one) column.

    With an `id` column (needed where `strict`) the rows may stand in any order: they are matched with the nodes, and
    every node must stand there once.
    """
    columns = [label_columns(file, strict) for file in files]
    rows, values = [], []
    for chunk in chunks_of(files, columns, "the table of labels"):
        table, at, name = read_table(chunk), place_of(chunk), chunk.columns.named("id")
        with reading(chunk.uri):
            values.append(label_values(table.column(chunk.columns.named("label")), at))
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


def make_labels(y: NDArray[Any], n: int, *, origin: str = "labels") -> NDArray[np.int64]:
    """Labels [n] (whole numbers or words) as int64 codes 0..K-1 in sorted order, -1 for a row without one.

    That is -1 (unless -1 and 1 are all there is), NaN, None, empty text, or a word for it (`NO_LABEL`). Raises
    DataError for another length, fractional numbers, or where no row has a label.
    """
    values = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    values = values.astype(np.str_) if values.dtype.kind in "mM" else values
    if values.ndim != 1:
        raise DataError(f"{origin}: labels must be one value per row [N], found shape {y.shape}")
    if values.dtype.kind in "cV":
        raise DataError(f"{origin}: labels must be whole numbers or words, found type {values.dtype}")
    if values.size != n:
        raise DataError(f"{origin}: {values.size} labels for {n} rows; there must be one per row, in the same order")
    numbers: NDArray[Any] | None
    if values.dtype.kind in "OUS":  # not as an array, which would be as wide as the longest word
        words = [_word(value, row, origin) for row, value in enumerate(values.tolist())]
        none = np.array([word.strip().lower() in NO_LABEL for word in words], dtype=np.bool_)
        present = [word for word, missing in zip(words, none, strict=True) if not missing]
        order = {word: i for i, word in enumerate(sorted(set(present)))}
        codes = np.array([order[word] for word in present], dtype=np.int64)
        numbers = np.array([float(word) for word in present]) if all(is_number(word) for word in present) else None
    else:
        numbers = np.asarray(values, dtype=np.float64)
        none = np.isnan(numbers)
        if set(np.unique(numbers[~none])) != {-1, 1}:
            none |= numbers == -1
        numbers, codes = numbers[~none], np.unique(values[~none], return_inverse=True)[1]
    if none.all():
        raise DataError(f"{origin}: all labels are -1, NaN, empty or 'unknown'; label some rows, or give no labels")
    if numbers is not None and (fraction := numbers != np.floor(numbers)).any():
        row = int(np.flatnonzero(~none)[fraction][0])
        raise DataError(f"{origin}: label {values.tolist()[row]!r} in row {row}; labels are whole numbers or words")
    labels = np.full(n, -1, dtype=np.int64)
    labels[~none] = codes
    return labels


def _word(value: Any, row: int, origin: str) -> str:
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        raise DataError(f"{origin}: labels must be numbers or words, found a {type(value).__name__} in row {row}")
    if value is None or value != value:  # noqa: PLR0124
        return ""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unlabelled(labels: NDArray[np.int64]) -> list[str]:
    """What to say of rows without a label, if there are any."""
    none = int((labels < 0).sum())
    rows = f"{count(none, 'row')} of {labels.size} without a label (-1, NaN, empty or 'unknown')"
    return [f"{rows}: left out of K and of all scores"] if none else []
