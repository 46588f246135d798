"""Columns of words as categories: which there are, what to do about them, and a column of 0 and 1 for each value.

Axes: n rows of a piece, C values of a column.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.ids import At, is_text, unchunked
from ops.data.io.schema import is_number
from ops.data.types.encoding import MISSING, Encoding

IN_NONE = "in no category"  # ends what is said of values that no category stands for
MOST = 1000  # values of a category
FEW = 20  # so many a column of a short table may have, else one for every second row


def words_of(column: Any) -> Any:
    """A column as text without blanks around it; what stands for a missing value is null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = unchunked(column)
    words = pc.utf8_trim_whitespace(column if is_text(column) else column.cast(pa.string()))
    return pc.if_else(pc.is_in(pc.utf8_lower(words), pa.array(MISSING, words.type)), None, words)


class Encoder:
    """The categories of an `Encoding` at work on a table's pieces; `notes` says which values it did not know."""

    def __init__(self, encoding: Encoding | None) -> None:
        self.categories = dict((encoding and encoding.categories) or {})
        self._strange: dict[str, set[str]] = {}
        self._missing: dict[str, int] = {}

    def block(self, column: Any, name: str) -> NDArray[np.float32]:
        """float32 [n, C]: 1 in the place of the row's value; a row without one, or with another, has zeros."""
        import pyarrow as pa
        import pyarrow.compute as pc

        words = words_of(column)
        place = pc.index_in(words, value_set=pa.array(self.categories[name], words.type))
        if place.null_count:
            strange = pc.and_(pc.is_null(place), pc.is_valid(words))
            self._strange.setdefault(name, set()).update(pc.unique(words.filter(strange)).to_pylist())
            self._missing[name] = self._missing.get(name, 0) + words.null_count
        out = np.zeros((len(words), len(self.categories[name])), dtype=np.float32)
        rows = np.flatnonzero(place.is_valid())
        out[rows, place.drop_null().to_numpy(False)] = 1
        return out

    @property
    def notes(self) -> list[str]:
        """What was met so far that no category stands for."""
        notes = [f"column {name!r}: {count:,} rows without a value, {IN_NONE}"
                 for name, count in self._missing.items() if count]  # fmt: skip
        for name, values in ((name, sorted(values)) for name, values in self._strange.items() if values):
            shown = f"{', '.join(map(repr, values[:3]))}{' ...' if values[3:] else ''}"
            notes.append(f"column {name!r}: {len(values):,} values that training did not have ({shown}), {IN_NONE}")
        return notes


def word_columns(tables: Sequence[Any], names: Sequence[str], places: Sequence[At]) -> dict[str, str]:
    """Of the columns `names` of a table's pieces those that hold other things than numbers, each with its first."""
    first: dict[str, str] = {}
    for table, at in zip(tables, places, strict=True):
        for name in (n for n in names if n not in first):
            row = _first_word(table.column(name))
            if row is not None:
                column = unchunked(table.column(name))
                times = f"{column.type} values, not numbers (times: write them as seconds)"
                said = f"{str(column[row])[:40]!r}, which is no number" if is_text(column) else times
                first[name] = f"{at(row)}: column {name!r} holds {said}"
    return first


def _first_word(column: Any) -> int | None:
    """The first row of a column of words that is no number (nor one with a decimal comma, which is another mistake)."""
    import pyarrow as pa

    column = unchunked(column)
    if not is_text(column):
        return 0 if pa.types.is_temporal(column.type) else None
    words = words_of(column)
    try:
        words.cast(pa.float64())
    except pa.ArrowInvalid:
        for row, word in enumerate(words.to_pylist()):
            if word is not None and not is_number(word):
                return None if is_number(word.replace(",", ".", 1)) else row
    return None


def values_of(tables: Sequence[Any], name: str) -> tuple[str, ...]:
    """The different values of a column of words, sorted."""
    import pyarrow.compute as pc

    return tuple(sorted({v for table in tables for v in pc.unique(words_of(table.column(name))).to_pylist()} - {None}))


def no_categories(tables: Sequence[Any], values: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns whose values are no categories: times, or nearly one of its own for every row."""
    import pyarrow as pa

    rows = sum(table.num_rows for table in tables)
    times = [n for n in values if any(pa.types.is_temporal(unchunked(table.column(n)).type) for table in tables)]
    return [n for n, each in values.items() if n in times or len(each) > min(MOST, max(FEW, rows // 2))]


def advice(first: Mapping[str, str], values: Mapping[str, Sequence[str]], unfit: Sequence[str]) -> tuple[str, str]:
    """All columns that hold words, in one sentence, and the flags that help."""
    said, *others = first
    counts = {name: f"{name!r} ({len(each):,} value{'' if len(each) == 1 else 's'})" for name, each in values.items()}
    more = f"; {', '.join(counts[name] for name in others)} hold{'' if others[1:] else 's'} words too" if others else ""
    fits, values_said = len(unfit) < len(first), "of their values" if others else f"value of {counts[said]}"
    words = [f"--one-hot makes a column of each {values_said}"] if fits else []
    left = f"--ignore {','.join(unfit)} leaves {'them' if unfit[1:] else 'it'} out"
    words.append(left if unfit else "--ignore COLUMNS leaves some out")
    flags = ["--one-hot"] * fits + [f"--ignore {','.join(unfit)}"] * bool(unfit)
    return f"{first[said]}{more}; only ids and labels may be words: {', '.join(words)}", " ".join(flags)
