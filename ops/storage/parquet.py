"""Columns to one file or object by its suffix (.parquet, .csv, .npy), piece by piece, whole or not there."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ops.atomic_io import replacing
from ops.errors import SettingsError
from ops.storage.object_store import Missing, is_s3, parse, stat, upload
from ops.storage.run_dir import scratch

SUFFIXES = (".parquet", ".csv", ".npy", "")  # without one it is Parquet


def check_file(out: str, run: str = "", inputs: Iterable[str] = ()) -> None:
    """Raise SettingsError, before any work, for what is no file's name or must not be replaced.

    That is a folder, what is no regular file, whatever is in the `run`, and a file of the `inputs`.
    """
    if "://" in out and not is_s3(out):
        raise SettingsError(f"--out {out}: give a file or s3://BUCKET/KEY")
    path = Path(out).expanduser()
    if not is_s3(out) and (path.is_dir() or not path.name):
        raise SettingsError(f"--out {out}: is a folder; give a file in it")
    if not is_s3(out) and path.exists() and not path.is_file():
        raise SettingsError(f"--out {out}: is no regular file; give another one")
    if run and _is_in(out, run):
        raise SettingsError(f"--out {out}: is in the run {run}, whose files stay as they are; give another file")
    for each in inputs:
        if _is_in(out, each) and _exists(out):
            raise SettingsError(f"--out {out}: is a file of the input {each}; give another file")
    if path.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"--out {out}: give a file that ends in {', '.join(filter(None, SUFFIXES))}")


def _exists(out: str) -> bool:
    if not is_s3(out):
        return Path(out).expanduser().exists()
    with suppress(Missing):
        stat(parse(out))
        return True
    return False


def _is_in(out: str, place: str) -> bool:
    """Whether a file is a place itself, or in it."""
    if is_s3(out) != is_s3(place):
        return False
    file, folder = (parse(p).path if is_s3(p) else os.path.realpath(os.path.expanduser(p)) for p in (out, place))
    return file == folder or file.startswith(f"{folder}/")


def write_pieces(out: str, pieces: Iterable[Mapping[str, object]]) -> None:
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


def _write(out: Path, pieces: Iterable[Mapping[str, object]]) -> None:
    with replacing(out) as temporary:
        if out.suffix.lower() == ".npy":
            with temporary.open("wb") as file:  # np.save would add a suffix to the name
                np.save(file, np.concatenate([np.asarray(columns["cluster"]) for columns in pieces]))
        else:
            _write_table(temporary, pieces, out.suffix.lower() == ".csv")


def _write_table(path: Path, pieces: Iterable[Mapping[str, object]], csv: bool) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    writer = None
    try:
        for columns in pieces:
            left_out = {"vector"} if csv else ()  # CSV has no lists
            table = pa.table({name: values for name, values in columns.items() if name not in left_out})
            writer = writer or (pa.csv.CSVWriter if csv else pa.parquet.ParquetWriter)(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
