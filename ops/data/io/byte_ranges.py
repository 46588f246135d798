"""Where a table's file can be cut: between row groups (parquet) or line ends (text). Depends on the file alone."""

from __future__ import annotations

from collections.abc import Iterator

from ops.data.io.layout import HEADER_BYTES
from ops.data.io.sources import Source, opened, read_bytes

TEXT_BYTES = 16 << 20  # about 1 M edges
ROWS = 1 << 20


def row_groups(file: Source) -> Iterator[tuple[int, int, int]]:
    """(first row group, their number, first row) of about ROWS rows or four text chunks' bytes each."""
    import pyarrow.parquet as pq

    with opened(file) as stream, pq.ParquetFile(stream) as parquet:
        groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    first = row = rows = size = 0
    for i, (n, b) in enumerate(sizes):
        if rows and (rows + n > ROWS or size + b > 4 * TEXT_BYTES):
            yield first, i - first, row
            first, row, rows, size = i, row + rows, 0, 0
        rows, size = rows + n, size + b
    if rows:
        yield first, len(sizes) - first, row


def byte_ranges(file: Source) -> Iterator[tuple[int, int, int]]:
    """(first byte, bytes, first row) between line ends, about TEXT_BYTES each; values hold no line breaks."""
    start = first = line_end(file, 0)
    while first < file.size:
        after = line_end(file, min(first + TEXT_BYTES, file.size) - 1)
        yield first, after - first, 0 if first == start else -1
        first = after


def line_end(file: Source, at: int) -> int:
    """The first byte after the line that byte `at` is in."""
    while at < file.size:
        block = read_bytes(file, at, HEADER_BYTES)
        end = block.find(b"\n")
        if end >= 0:
            return at + end + 1
        at += len(block)
    return file.size


def blocks(file: Source, end: int) -> Iterator[bytes]:
    """The file up to byte `end` in pieces."""
    for at in range(0, end, TEXT_BYTES):
        yield read_bytes(file, at, min(TEXT_BYTES, end - at))
