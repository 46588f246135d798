"""Columns of an Arrow table as arrays of numbers, checked: features, weights, times.

Axes: N rows, F features.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.categories import Encoder, words_of
from ops.data.io.ids import At, is_text, unchunked
from ops.data.io.schema import Columns, is_number
from ops.errors import DataError


def numbers_of(column: Any, name: str, at: At) -> NDArray[Any]:
    """An Arrow column as float64 or its own kind of number, missing ones as NaN. DataError names what is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = unchunked(column)
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray((column.cast(pa.float64(), safe=False) if column.null_count else column).to_numpy(False))
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(False))
    if not is_text(column):
        hint = "; write times as seconds, or leave the column out" if pa.types.is_temporal(kind) else ""
        raise DataError(f"{at(0)}: column {name!r} holds {kind} values, not numbers{hint}")
    words = pc.utf8_lower(words_of(column))
    try:
        return np.asarray(words.cast(pa.float64()).to_numpy(False))
    except pa.ArrowInvalid:
        values = words.to_pylist()
    for row, value in enumerate(values):
        if value is not None and not is_number(value):
            comma = is_number(value.replace(",", ".", 1))
            hint = "its decimal mark is a comma: write 1.5, not 1,5" if comma else "only ids and labels may be words"
            raise DataError(f"{at(row)}: column {name!r} holds {str(column[row])[:40]!r}, which is no number; {hint}")
    return np.array([np.nan if v is None else float(v) for v in values])


def times_of(column: Any, name: str, at: At) -> NDArray[np.int64]:
    """An Arrow column of whole seconds, or of timestamps, as int64 seconds. DataError names what is neither."""
    import pyarrow as pa

    column = unchunked(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    values = numbers_of(column, name, at)
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        values = values.astype(np.float64)
    if values.dtype.kind == "f":
        bad = ~(np.abs(values) < 2**63)
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"{at(row)}: {name} is {values[row]}; times are seconds as finite numbers")
        values = np.floor(values)
    return values.astype(np.int64)


def weights_of(column: Any, name: str, at: At) -> NDArray[np.float32]:
    """An Arrow column of finite weights >= 0 as float32. DataError names the first that is not."""
    values = numbers_of(column, name, at)
    with np.errstate(over="ignore", invalid="ignore"):
        weight = values.astype(np.float32)
        bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"{at(row)}: {name} is {values[row]:g}; weights are finite numbers >= 0")
    return weight


def feature_columns(table: Any, columns: Columns, width: int, at: At, encoder: Encoder | None = None) -> NDArray[Any]:
    """The features of an Arrow table as numbers [N, width], unchecked: NaN where one is missing.

    Columns that `encoder` has categories of become a column a value.
    """
    if columns.named("list") or columns.named("joined"):
        return _listed(table.column(columns.features[0]), columns.features[0], width, at)
    categories = encoder.categories if encoder else {}
    values = [encoder.block(table.column(name), name) if encoder and name in categories
              else numbers_of(table.column(name), name, at) for name in columns.features]  # fmt: skip
    return np.column_stack(values) if values else np.zeros((table.num_rows, 0))


def _listed(column: Any, name: str, width: int, at: At) -> NDArray[np.float64]:
    """One column of lists, or of numbers joined by ":", as [N, width]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = unchunked(column)
    column = pc.split_pattern(column, ":") if is_text(column) else column
    if not pa.types.is_nested(column.type):
        raise DataError(f"{at(0)}: column {name!r} must hold lists of numbers, found {column.type}")
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    ragged = lengths != width
    if ragged.any():
        row = int(ragged.argmax())
        count = "none" if lengths[row] < 0 else str(lengths[row])
        raise DataError(f"{at(row)}: ragged features: {count} where the first row has {width}; every row needs as many")
    return numbers_of(pc.list_flatten(column), name, lambda i: at(i // width)).astype(np.float64).reshape(-1, width)
