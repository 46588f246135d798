"""Files to arrays and tables; whatever a reader trips over becomes one line that names the file (DataError).

No reader runs code from a file: npy and npz are read without pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ops.errors import DataError, ResourceError

_MAGIC = (
    (b"PK", "a zip archive"),
    (b"\x93NUMPY", "an npy array"),
    (b"PAR1", "parquet"),
    (b"\x89HDF", "HDF5"),
    (b"\x1f\x8b", "gzip"),
    (b"\x80", "a Python pickle"),
    (b"ARROW1", "Arrow"),
)
# columns that name things: 01 and 1 are two names, and both must come back as they stand in the file
_NAMES = ("id", "label", "source", "src", "target", "dst")
_HOLDS = {".npz": "a zip archive", ".npy": "an npy array", ".parquet": "parquet", ".csv": "text"}


def check_kind(path: Path) -> None:
    """DataError where a file is missing, empty, or not what its suffix (.npz .npy .parquet .csv) says."""
    with reading(path):
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as f:
            start = f.read(4096)
    found = _kind(start)
    wanted = _HOLDS[path.suffix.lower()]
    if found != wanted:
        name = path.suffix.lower()
        raise DataError(f"{path}: is named {name} but holds {found}; a {name} file must hold {_article(wanted)}")


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file; DataError where it is something else, cut off, or would need pickle."""
    check_kind(path)
    with reading(path), path.open("rb") as f:
        array: NDArray[Any] = np.load(f, allow_pickle=False)
    return array


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a .npz file by name; DataError where it is something else, cut off, or would need pickle."""
    check_kind(path)
    # opened here: numpy leaves a file open that turns out not to be a zip archive
    with reading(path), path.open("rb") as f, np.load(f, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def read_table(path: Path, names: int = 0) -> pd.DataFrame:
    """A .csv (with a header line, separated by commas) or .parquet file as a table with text column names.

    In a CSV only empty fields are missing, so that a node may be called NA. Its columns id, label, source, src,
    target, dst (any case) and its first `names` are int64 where every value is a whole number as Python writes it,
    else text as it stands there (007). A named parquet index becomes a column.
    """
    check_kind(path)
    with reading(path):
        table = _csv(path, names) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    return _checked(path, table)


def read_table_by(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    """`read_table` in tables of at most `rows` rows, one at a time in memory; nothing for a table without rows."""
    check_kind(path)
    with reading(path):
        pieces = _csv_by(path, rows) if path.suffix.lower() == ".csv" else _parquet_by(path, rows)
    while True:
        with reading(path):
            piece = next(pieces, None)
        if piece is None:
            return
        yield _checked(path, piece)


def _checked(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    table.columns = [str(c) for c in table.columns]
    nameless = [i for i, c in enumerate(table.columns) if not c.strip() or c.startswith("Unnamed: ")]
    if nameless:
        raise DataError(f"{path}: column {nameless[0]} has no name (a row index?); name it id or leave it out")
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"{path}: column {twice[0]!r} stands twice; column names must differ")
    return table


def check_header(path: Path, table: pd.DataFrame) -> None:
    """DataError for a CSV whose header is numbers: its first row would be lost, or read as names."""
    if path.suffix.lower() == ".csv" and all(_is_number(c) for c in table.columns):
        raise DataError(f"{path}: the first line ({', '.join(table.columns[:3])}) is data; it must name the columns")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every failure of a reader into one line that names the file: DataError, or ResourceError for memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except DataError:
        raise
    except MemoryError as error:
        raise ResourceError(f"{path}: does not fit the memory: {error}; use fewer rows or columns") from error
    # the readers raise two dozen classes (zip, zlib, arrow, value, unicode, memory ...), all of them about the file
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in reason or "pickle" in reason.lower():
            reason = "it holds Python objects (pickle), which are never loaded; save plain number or text arrays"
        raise DataError(f"{path}: cannot be read: {reason[:200]}") from error


def _csv(path: Path, names: int) -> pd.DataFrame:
    header = _header(path)
    # index_col: a row longer than the header is an error, not a hidden index
    table: pd.DataFrame = pd.read_csv(
        path, index_col=False, keep_default_na=False, na_values=[""], low_memory=False, dtype=_text(header, names)
    )
    return _as_written(table, header, names)


def _csv_by(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    header = _header(path)
    with pd.read_csv(
        path, index_col=False, keep_default_na=False, na_values=[""], chunksize=rows, dtype=_text(header, 0)
    ) as pieces:
        for piece in pieces:
            yield _as_written(piece.reset_index(drop=True), header, 0)


def _header(path: Path) -> list[str]:
    # read apart, because pandas renames a repeated name
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    return [str(c) for c in header.iloc[0]]


def _text(header: list[str], names: int) -> Any:
    """The columns that pandas must not infer a type for, as its `dtype`."""
    return {c: str for i, c in enumerate(header) if i < names or c.strip().lower() in _NAMES}


def _as_written(table: pd.DataFrame, header: list[str], names: int) -> pd.DataFrame:
    """The table under the names of its header; what was read as text is int64 where nothing is lost by it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ops.data.io.dtypes import whole_numbers  # by way of named and files it needs this module

    text = _text(header, names)
    table.columns = [c.strip() for c in header]
    for i, name in enumerate(header):
        if name not in text or not pd.api.types.is_string_dtype(table.dtypes.iloc[i]):
            continue
        column = table.iloc[:, i]
        # a space after the comma makes no word of a number
        numbers = whole_numbers(pc.utf8_trim_whitespace(pa.array(column, type=pa.string(), from_pandas=True)))
        if pa.types.is_integer(numbers.type) and not numbers.null_count:
            table.isetitem(i, numbers.to_numpy())
        elif name.strip().lower() == "label" and _fractional(column):
            table.isetitem(i, column.to_numpy(dtype=np.float64))  # measurements, which are refused as labels
    return table


def _fractional(column: pd.Series[Any]) -> bool:
    """Whether all values are numbers, some of them no whole ones."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return bool(np.isfinite(numbers).all() and (numbers != np.floor(numbers)).any())


def _parquet_by(path: Path, rows: int) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pandas()


def _kind(start: bytes) -> str:
    if not start:
        return "nothing (an empty file)"
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    # UTF-8 may be cut in the middle of its last character
    text = start.decode("utf-8", errors="ignore")
    plain = b"\0" not in start and len(text.encode()) >= len(start) - 3
    return "text" if plain else "unknown binary data"


def _article(kind: str) -> str:
    return "comma-separated text" if kind == "text" else kind


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
