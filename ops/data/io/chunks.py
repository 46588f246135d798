"""The one reader of tables (csv, tsv, txt, parquet): the chunks of a file, and one chunk as checked arrays.

A chunk is a range of row groups (parquet) or of bytes between two line ends (text). Chunks depend on the files alone,
never on who reads them.
Axes: N nodes or M edges of a chunk, F features.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.dtypes import feature_columns, times_of, weights_of
from ops.data.io.ids import At, ids_of, whole_numbers
from ops.data.io.readers import DataFile, opened, read_bytes, reading
from ops.data.io.schema import HEADER_BYTES, Columns, node_columns
from ops.data.io.validate import check_features
from ops.data.types.hetero import Ids
from ops.errors import DataError

TEXT_BYTES = 16 << 20  # about 1 M edges
ROWS = 1 << 20
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
Files = tuple[DataFile, ...]
EdgeArrays = tuple[Ids, Ids, NDArray[np.float32] | None, NDArray[np.int64] | None]  # src, dst, weight, time


@dataclass(frozen=True)
class Chunk:
    """`count` row groups (parquet) or bytes (text) of a file from `first` on; `key`: its node type or relation.

    `row`: number of its first row in the file (-1: counted only when it is asked for). `file` is refused where it was
    written again. `width`: F of nodes. `rows`: how many there are, 0 where that is not said anywhere (text).
    """

    file: DataFile
    first: int
    count: int
    columns: Columns
    key: str = ""
    row: int = -1
    width: int = 0
    rows: int = 0

    @property
    def uri(self) -> str:
        """The file it is a part of, as messages name it."""
        return self.file.uri

    @property
    def bytes_in_memory(self) -> int:
        """What its arrays take at the least: a Parquet file of a few bytes may hold many equal rows."""
        return 8 * self.rows * max(self.width, 1) or self.count

    def first_row(self) -> int:
        """The number of its first row in the file."""
        if self.row >= 0:
            return self.row
        starts = range(0, self.first, TEXT_BYTES)
        return sum(read_bytes(self.file, a, min(TEXT_BYTES, self.first - a)).count(b"\n") for a in starts) - 1


def place_of(chunk: Chunk) -> At:
    """Where a row of the chunk stands, for messages: place_of(chunk)(3) -> "FILE, row 1003" (rows from 0)."""
    return lambda row: f"{chunk.uri}, row {chunk.first_row() + row}"


def places_of(chunks: Sequence[Chunk], counts: Sequence[int]) -> At:
    """The same for row i of tables that were read chunk by chunk."""
    ends = np.cumsum(counts)

    def at(row: int) -> str:
        piece = int(np.searchsorted(ends, row, side="right"))
        return place_of(chunks[piece])(row - int(ends[piece] - counts[piece]))

    return at


def read_node_table(chunk: Chunk) -> tuple[Ids, NDArray[np.float32] | None]:
    """Ids int64 or text [N] as in the file, and features float32 [N, F], finite (None for F = 0).

    The ids of one type may be numbers in one chunk and text in another: they are all text then (`joined_ids`).
    Raises DataError (file, row) for missing ids, ragged or non-finite features, a file that changed.
    """
    table, columns, at = read_table(chunk), chunk.columns, place_of(chunk)
    with reading(chunk.uri):
        ids = ids_of(table.column(columns.named("id")), at)
        if not columns.features:
            return ids, None
        x = feature_columns(table, columns, chunk.width, at)
        if not len(ids):  # blank lines at the end of a file
            return ids, x.astype(np.float32)
        names = columns.features if len(columns.features) == chunk.width else None
        return ids, check_features(x, feature_names=names, origin=chunk.uri, first_row=chunk.first_row)


def read_edge_table(chunk: Chunk) -> EdgeArrays:
    """Both ends [M], [M] as ids of the file, weight float32 [M] (finite, >= 0) or None, time int64 [M] s or None.

    Raises DataError (file, row) for missing ids, negative or non-finite weights, times that are none.
    """
    table, columns, at = read_table(chunk), chunk.columns, place_of(chunk)
    src, dst, weight, time = (columns.named(role) for role in ("src", "dst", "weight", "time"))
    with reading(chunk.uri):
        return (
            ids_of(table.column(src), at, str(src)),
            ids_of(table.column(dst), at, str(dst)),
            None if weight is None else weights_of(table.column(weight), weight, at),
            None if time is None else times_of(table.column(time), time, at),
        )


def read_table(chunk: Chunk) -> Any:
    """The columns of a chunk that have a meaning, as an Arrow table. Raises DataError."""
    columns = chunk.columns
    wanted = [n for n, r in zip(columns.names, columns.roles, strict=True) if r]
    if chunk.file.suffix == ".parquet":
        import pyarrow.parquet as pq

        with opened(chunk.file) as stream, pq.ParquetFile(stream) as file:
            groups = list(range(chunk.first, chunk.first + chunk.count))
            return file.read_row_groups(groups, columns=wanted, use_threads=False)
    data = read_bytes(chunk.file, chunk.first, chunk.count)
    try:
        with reading(chunk.uri):
            return _parsed(data, columns, wanted)
    except DataError as error:
        ragged = _RAGGED.search(str(error))
        if ragged is None:
            raise
        row, named, values = (int(number) for number in ragged.groups())
        raise DataError(
            f"{place_of(chunk)(row - 1)}: {values} values where the first line names {named} columns"
        ) from None


def _parsed(data: bytes, columns: Columns, wanted: list[str]) -> Any:
    """Lines of text as an Arrow table; ids and labels as they are written, or int64 where nothing is lost by it."""
    import pyarrow as pa
    import pyarrow.csv as pc

    roles = dict(zip(columns.names, columns.roles, strict=True))
    words = {
        n: pa.string() for n, r in roles.items() if r in ("id", "src", "dst", "list", "joined", "label", "category")
    }
    if not data.strip():
        return pa.table({n: pa.array([], words.get(n, pa.null())) for n in wanted})
    table = pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(column_names=list(columns.names), use_threads=False, block_size=max(len(data), 1)),
        parse_options=pc.ParseOptions(
            delimiter=columns.delimiter, newlines_in_values=columns.quoted, quote_char='"' if columns.quoted else False
        ),
        convert_options=pc.ConvertOptions(
            column_types=words, null_values=[""], strings_can_be_null=True, include_columns=wanted
        ),
    )
    for name in (n for n in wanted if roles[n] in ("id", "src", "dst", "label")):
        table = table.set_column(wanted.index(name), name, whole_numbers(table.column(name)))
    return table


def chunks_of(files: Files, columns: Sequence[Columns], key: str, width: int = 0) -> tuple[Chunk, ...]:
    """The chunks of all files of one table. Raises DataError where they hold no rows."""
    chunks = [
        Chunk(file, first, size, header, key, row, width, rows)
        for file, header in zip(files, columns, strict=True)
        for first, size, row, rows in (_row_groups if file.suffix == ".parquet" else _byte_ranges)(file)
    ]
    if not chunks:
        raise DataError(f"{files[0].uri}: {key} has no rows; every table needs at least one")
    return tuple(chunks)


def node_chunks(files: Files, kind: str) -> tuple[Chunk, ...]:
    """The chunks of a node type, all of the same columns. Raises as `chunks_of` does, and for files that differ."""
    columns = [node_columns(file) for file in files]
    check_alike(files, [c.features for c in columns], "ragged features: the feature columns")
    width = len(columns[0].features)
    if columns[0].named("list") or columns[0].named("joined"):  # as many as the first row holds in its one column
        values = (value for file in files for value in _first_value(file, columns[0]))
        value = next(values, "0")
        width = len(value.split(":")) if isinstance(value, str) else len(value) if isinstance(value, list) else 0
        if not width:
            name = columns[0].features[0]
            raise DataError(f"{files[0].uri}, row 0: column {name!r} must hold a list of numbers, found {value!r}")
    return chunks_of(files, columns, kind, width)


def check_alike(files: Files, columns: Sequence[tuple[str, ...]], what: str) -> None:
    """DataError where a file of a table has other columns than the first."""
    for file, names in zip(files, columns, strict=True):
        if names != columns[0]:
            raise DataError(
                f"{file.uri}: {what} are {', '.join(names[:6]) or 'none'}; in {files[0].uri} they are "
                f"{', '.join(columns[0][:6]) or 'none'}; all files of a table need the same"
            )


def _first_value(file: DataFile, columns: Columns) -> list[Any]:
    """The feature column of the first row, nothing where there are no rows."""
    import pyarrow.parquet as pq

    name = columns.features[0]
    if file.suffix != ".parquet":
        start = line_end(file, 0)
        line = Chunk(file, start, line_end(file, start) - start, columns, row=0)
        values: list[Any] = read_table(line).column(name).to_pylist()
        return values
    with opened(file) as stream, pq.ParquetFile(stream) as parquet:
        batches = parquet.iter_batches(batch_size=1, columns=[name], use_threads=False)
        return next((batch.column(0).to_pylist() for batch in batches), [])


def _row_groups(file: DataFile) -> Iterator[tuple[int, int, int, int]]:
    """(first row group, their number, first row, rows) of about ROWS rows or four text chunks' bytes each."""
    import pyarrow.parquet as pq

    with opened(file) as stream, pq.ParquetFile(stream) as parquet:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    first = row = rows = size = 0
    for i, (n, b) in enumerate(sizes):
        if rows and (rows + n > ROWS or size + b > 4 * TEXT_BYTES):
            yield first, i - first, row, rows
            first, row, rows, size = i, row + rows, 0, 0
        rows, size = rows + n, size + b
    if rows:
        yield first, len(sizes) - first, row, rows


def _byte_ranges(file: DataFile) -> Iterator[tuple[int, int, int, int]]:
    """(first byte, bytes, first row, 0) between ends of rows, about TEXT_BYTES each."""
    start = first = line_end(file, 0)
    head = read_bytes(file, start, TEXT_BYTES)
    quoted = any(mark in b"\n" + head for mark in (b'\n"', b',"', b'\t"'))
    while first < file.size:
        after = first + TEXT_BYTES
        if after < file.size:
            after = _row_end(file, first, after) if quoted else line_end(file, after - 1)
        after = min(after, file.size)
        yield first, after - first, 0 if first == start else -1, 0
        first = after


def _row_end(file: DataFile, first: int, after: int) -> int:
    """The first byte from `after` on that begins a row, where quoted values may hold line breaks: those are passed."""
    inside = read_bytes(file, first, after - 1 - first).count(b'"') % 2
    at = after - 1
    while at < file.size:
        end = line_end(file, at)
        inside = (inside + read_bytes(file, at, end - at).count(b'"')) % 2
        if not inside:
            return end
        at = end
    return file.size


def line_end(file: DataFile, at: int) -> int:
    """The first byte after the line that byte `at` is in."""
    while at < file.size:
        block = read_bytes(file, at, HEADER_BYTES)
        end = block.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(block)
    return file.size
