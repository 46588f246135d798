"""Ids, kept exactly, and the one look-up of them: whole numbers as int64, everything else as text.

The same rule for every format. Text stays text (007 is not 7), but in text files, which have no types, a column is
whole numbers where each value is one as Python writes it. Whole numbers beyond int64 are the text of their digits.
Floats that are whole numbers count as these; from 2^53 on (single precision: 2^24) they are not exact and refused.
Axes: N ids, M keys.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ops.data.io.readers import reading
from ops.data.types.hetero import Ids
from ops.errors import DataError

At = Callable[[int], str]  # where a row stands, for messages: "FILE, row 7"
_TEXT_BYTES, _TEXT_FACTOR = 1 << 28, 32  # how large text may grow as an array of equally long cells


def ids_of(column: Any, at: At, what: str = "id") -> Ids:
    """An Arrow column as int64 or text [N]. DataError where one is missing, a list, or an inexact float."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = unchunked(column)
    kind = column.type
    if pa.types.is_nested(kind):
        raise DataError(f"{at(0)}: {what} must be numbers or words, found {kind}")
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        column = column.cast(pa.string())
    missing = pc.is_null(column)
    if is_text(column):
        missing = pc.or_kleene(missing, pc.equal(column, ""))
    rows = np.flatnonzero(missing.to_numpy(zero_copy_only=False))
    if rows.size:
        raise DataError(f"{at(int(rows[0]))}: the {what} is missing ({rows.size} in all); every row needs its ids")
    if pa.types.is_floating(kind):
        return _of_floats(column.to_numpy(zero_copy_only=False), at, what)
    if pa.types.is_integer(kind):
        values = column.to_numpy(zero_copy_only=False)
        if kind != pa.uint64() or not len(values) or values.max() <= np.iinfo(np.int64).max:
            return np.asarray(values, dtype=np.int64)
    return _text(column if is_text(column) else column.cast(pa.string()), at, what)


def _of_floats(values: NDArray[Any], at: At, what: str) -> Ids:
    digits = np.finfo(values.dtype).nmant + 1
    inexact = np.abs(values) >= 2**digits
    if inexact.any():
        row = int(inexact.argmax())
        raise DataError(f"{at(row)}: the {what} {values[row].item()!r} is a floating-point number of 2^{digits} or "
                        "more, which is not exact any more; write ids as whole numbers or as text")  # fmt: skip
    return values.astype(np.int64) if (values == np.floor(values)).all() else values.astype(np.str_)


def _text(column: Any, at: At, what: str) -> NDArray[np.character]:
    """Text as NumPy holds it: cells as wide as the longest. DataError where that one is far longer than the rest."""
    import pyarrow.compute as pc

    if not len(column):
        return np.empty(0, np.str_)
    lengths = pc.utf8_length(column).to_numpy(zero_copy_only=False)
    size = 4 * int(lengths.max()) * len(column)
    if size > max(_TEXT_BYTES, _TEXT_FACTOR * int(lengths.sum())):
        row = int(lengths.argmax())
        raise DataError(f"{at(row)}: the {what} has {lengths[row]:,} characters, most have {np.median(lengths):g}: "
                        f"all would need {size >> 20:,} MiB; shorten it")  # fmt: skip
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.str_)


def whole_numbers(column: Any) -> Any:
    """A text column of Arrow as int64 where every value is a whole number as Python writes it, else as it is.

    A space beside a number makes no word of it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column = unchunked(column)
    plain = pc.utf8_trim_whitespace(column)
    try:
        numbers = plain.cast(pa.int64())
    except pa.ArrowInvalid:
        return column
    return numbers if pc.all(pc.equal(numbers.cast(plain.type), plain), min_count=0).as_py() else column


def unchunked(column: Any) -> Any:
    """One array of a chunked or dictionary column of Arrow."""
    import pyarrow as pa

    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def is_text(column: Any) -> bool:
    """Whether an Arrow column holds text."""
    import pyarrow as pa

    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def as_keys(values: NDArray[Any], origin: str = "ids", what: str = "id") -> Ids:
    """Ids of an array of any kind as int64 or text (see above): 7 and 7.0 are one id, mixed kinds are text."""
    import pyarrow as pa

    if values.dtype == np.int64 or values.dtype.kind == "U":
        return cast(Ids, values)
    if values.dtype.kind in "cV":
        raise DataError(f"{origin}: ids must be numbers or words, found {values.dtype}")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):  # numbers and words, or numbers of any length
        column = pa.array([None if v is None or v != v else str(v) for v in values.tolist()], pa.string())  # noqa: PLR0124
    with reading(origin):
        return ids_of(column, lambda row: f"{origin}, row {row}", what)


def check_ids(ids: NDArray[Any], n: int, *, origin: str = "ids") -> Ids:
    """Unique row names [n] as int64 or text; DataError otherwise."""
    if ids.shape != (n,):
        raise DataError(f"{origin}: {ids.shape[0] if ids.ndim else 0} ids for {n} rows")
    keys = as_keys(ids, origin)
    check_unique(keys, lambda row: f"{origin}, row {row}")
    return keys


def check_unique(ids: Ids, at: At, kind: str = "", hint: str = "ids of one type must differ") -> None:
    """DataError where an id (of a node type) is missing or stands twice, naming the row of the second."""
    if ids.dtype.kind == "U" and (empty := np.flatnonzero(ids == "")).size:
        raise DataError(f"{at(int(empty[0]))}: the id is missing ({empty.size} in all); every row needs its ids")
    repeated = _index(ids).duplicated()
    if repeated.any():
        row = int(repeated.argmax())
        raise DataError(f"{at(row)}: {f'{kind} id'.strip()} {ids[row].item()!r} stands twice; {hint}")


def joined_ids(parts: Sequence[Ids]) -> Ids:
    """Ids of several pieces as one array: int64 where all are numbers, else text. DataError where that is too wide."""
    parts = [part for part in parts if part.size]
    if len({part.dtype.kind for part in parts}) > 1:
        parts = [part.astype(np.str_) for part in parts]
    if parts and parts[0].dtype.kind == "U":
        rows, width = sum(part.size for part in parts), max(part.dtype.itemsize for part in parts)
        text = [np.char.str_len(cast("NDArray[np.str_]", part)) for part in parts]
        if rows * width > max(_TEXT_BYTES, _TEXT_FACTOR * int(np.concatenate(text).sum())):
            raise DataError(f"ids of up to {width // 4:,} characters, {rows:,} in all, would need "
                            f"{rows * width >> 20:,} MiB; shorten the longest")  # fmt: skip
    return cast(Ids, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64))


def find_rows(keys: NDArray[Any], ids: NDArray[Any]) -> NDArray[np.int64]:
    """The row of each key [M] among the unique `ids` [N], -1 where there is none."""
    return Lookup("", as_keys(ids)).rows(as_keys(keys))


class Lookup:
    """Rows of a node type's unique ids: `lookup(keys, ...)` int64. Numbers and text compare as text; "7.0" is 7."""

    def __init__(self, kind: str, ids: Ids) -> None:
        self.kind, self.n = kind, ids.shape[0]
        self._numbers, self._index = ids.dtype.kind == "i", _index(ids)

    def rows(self, keys: Ids) -> NDArray[np.int64]:
        """The row of each key, -1 where there is no such node."""
        if self._numbers and keys.dtype.kind == "i":
            return np.asarray(self._index.get_indexer(keys), np.int64)
        words = keys.astype(np.str_).astype(object)
        rows = self._of_words(words)
        lost = np.flatnonzero(rows < 0)
        rows[lost] = self._of_words(_other_form(words[lost]))
        return rows

    def _of_words(self, words: NDArray[np.object_]) -> NDArray[np.int64]:
        if not self._numbers:
            return np.array(self._index.get_indexer(words), np.int64)
        rows = np.full(words.shape, -1, dtype=np.int64)
        whole = np.array([_is_whole(word) for word in words], dtype=np.bool_)
        rows[whole] = self._index.get_indexer(words[whole].astype(np.int64))
        return rows

    def __call__(self, keys: Ids, end: str, at: At) -> NDArray[np.int64]:
        """The row of each key. DataError (file, row, id) for the first that is no node."""
        rows = self.rows(keys)
        lost = rows < 0
        if lost.any():
            first = int(lost.argmax())
            raise DataError(f"{at(first)}: {end} {keys[first].item()!r} is not among the {self.n} {self.kind} ids")
        return rows


def _index(ids: Ids) -> Any:
    """The hash table of pandas over ids; text as objects, which are as long as they are."""
    import pandas as pd

    return pd.Index(ids) if ids.dtype.kind == "i" else pd.Index(ids.astype(object), dtype=object)


def _other_form(words: NDArray[np.object_]) -> NDArray[np.object_]:
    """Text like 1000.0 as 1000 and the other way round: a column with a gap is written with points by many programs."""
    return np.array([w[:-2] if w.endswith(".0") and _is_whole(w[:-2]) else f"{w}.0" if _is_whole(w) else w
                     for w in words], dtype=object)  # fmt: skip


def _is_whole(word: str) -> bool:
    digits = word.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(word)) == word
