"""Columns of an Arrow table as arrays, checked: ids, numbers, times, weights, features.

Ids become int64 where every id of the block is a whole number as Python writes it (so 007 stays text and nothing is
lost), else text. Axes: N rows of the block, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.schema import Columns, is_number
from ops.data.types.hetero import Ids
from ops.errors import DataError

At = Callable[[int], str]  # where a row of the block stands: "FILE, row 7"


def ids_of(column: Any, at: At) -> Ids:
    """An Arrow column as int64 or text. Raises DataError where one is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _flat(column)
    if column.null_count:
        row = int(np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))[0])
        raise DataError(f"{at(row)}: the id is missing ({column.null_count} in all); every row needs its ids")
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False), dtype=np.int64)
    if pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        if (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**63)).all():
            return np.asarray(values, dtype=np.int64)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.string())
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.str_) if len(column) else np.empty(0, np.str_)


def whole_numbers(column: Any) -> Any:
    """A text column of Arrow as int64 where every value is a whole number as Python writes it, else as it is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _flat(column)
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if pc.all(pc.equal(numbers.cast(column.type), column), min_count=0).as_py() else column


def numbers_of(column: Any, name: str, at: At) -> NDArray[Any]:
    """An Arrow column as float64 or its own kind of number, missing ones as NaN. DataError names what is none."""
    import pyarrow as pa

    column = _flat(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        if column.null_count or pa.types.is_boolean(column.type):
            column = column.cast(pa.float64(), safe=False)
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if pa.types.is_decimal(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    for row, value in enumerate(column.to_pylist()):
        if not isinstance(value, str) or not is_number(value):
            shown = repr(value)[:40]
            raise DataError(f"{at(row)}: column {name!r} holds {shown}, which is no number; only ids may be words")
    return np.array([float(v) for v in column.to_pylist()])


def times_of(column: Any, name: str, at: At) -> NDArray[np.int64]:
    """An Arrow column of whole seconds, or of timestamps, as int64 seconds. DataError names what is neither."""
    import pyarrow as pa

    column = _flat(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if column.null_count == 0:
            return np.asarray(
                column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
            )
        column = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    values = numbers_of(column, name, at)
    if values.dtype.kind == "u":
        values = values.astype(np.float64) if values.size and values.max() > np.iinfo(np.int64).max else values
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values) | (np.abs(values) >= 2**63)
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


def features_of(table: Any, columns: Columns, width: int, at: At) -> NDArray[np.float32] | None:
    """The features of an Arrow table as finite float32 [N, width], None for width 0. DataError names what is wrong."""
    if not columns.features:
        return None
    if columns.named("list") or columns.named("joined"):
        x = _listed(table.column(columns.features[0]), columns.features[0], width, at)
    else:
        x = np.empty((table.num_rows, width), dtype=np.float32)
        for i, name in enumerate(columns.features):
            with np.errstate(over="ignore"):
                x[:, i] = numbers_of(table.column(name), name, at)
    bad = ~np.isfinite(x)
    if bad.any():
        row, column = divmod(int(bad.argmax()), width)
        name = columns.features[column] if len(columns.features) == width else str(column)
        raise DataError(
            f"{at(row)}: feature {name!r} is missing, infinite or beyond float32 ({int(bad.any(axis=1).sum())} such "
            "rows); only finite numbers are allowed, fill or remove them"
        )
    return x


def _listed(column: Any, name: str, width: int, at: At) -> NDArray[np.float32]:
    """One column of lists, or of numbers joined by ":", as float32 [N, width]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _flat(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.split_pattern(column, ":")
    if not (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        raise DataError(f"{at(0)}: column {name!r} must hold lists of numbers, found {column.type}")
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    ragged = lengths != width
    if ragged.any():
        row = int(ragged.argmax())
        found = "none" if lengths[row] < 0 else str(lengths[row])
        raise DataError(f"{at(row)}: ragged features: {found} where the first row has {width}; every row needs as many")
    flat = pc.list_flatten(column)
    if pa.types.is_string(flat.type) or pa.types.is_large_string(flat.type):
        flat = pc.utf8_trim_whitespace(flat)
    try:
        values = flat.cast(pa.float64(), safe=False)
    except pa.ArrowException:
        values = pa.array(numbers_of(flat, name, lambda i: at(i // width)))
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)


def _flat(column: Any) -> Any:
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
