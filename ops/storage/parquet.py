"""Columns to one parquet file or object, piece by piece, whole or not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ops.atomic_io import replacing
from ops.errors import SettingsError
from ops.storage.object_store import is_s3, parse, upload
from ops.storage.run_dir import scratch


def check_file(out: str) -> None:
    """Raise SettingsError, before any work, for what cannot be a file's name: a folder, another scheme than s3."""
    if is_s3(out):
        return
    if "://" in out:
        raise SettingsError(f"--out {out}: give a file or s3://BUCKET/KEY")
    if Path(out).expanduser().is_dir() or not Path(out).name:
        raise SettingsError(f"--out {out}: is a folder; give a file in it")


def write_pieces(out: str, pieces: Iterable[Mapping[str, Any]]) -> None:
    """Write columns (arrays by name, as many rows each; the same names in every piece) to a path or s3://...

    Raises SettingsError where the place cannot be written, ResourceError on a full disk, ServiceError for S3.
    """
    if not is_s3(out):
        _write(Path(out).expanduser(), pieces)
        return
    place = parse(out)
    with TemporaryDirectory(dir=scratch(), prefix="predict-") as temporary:
        _write(Path(temporary) / place.name, pieces)
        upload(Path(temporary) / place.name, place)


def _write(out: Path, pieces: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(out) as temporary:
        writer: Any = None
        try:
            for columns in pieces:
                table = pa.table(dict(columns))
                writer = writer or pq.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
