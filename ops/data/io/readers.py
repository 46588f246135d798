"""Files of an input, on disk or on S3 alike: which there are, their bytes, and arrays of NumPy without pickle.

Whatever a reader trips over becomes one line that names the file (`reading`). No reader runs code from a file.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.errors import DataError, ResourceError, TesseraError
from ops.storage import object_store as s3

_DEPTH = 3  # nodes/user/part-0.parquet
_MAGIC = (
    (b"PK", "a zip archive"),
    (b"\x93NUMPY", "an npy array"),
    (b"PAR1", "parquet"),
    (b"\x89HDF", "HDF5"),
    (b"\x1f\x8b", "gzip"),
    (b"\x80", "a Python pickle"),
    (b"ARROW1", "Arrow"),
)
_HOLDS = {".npz": "a zip archive", ".npy": "an npy array", ".parquet": "parquet", ".csv": "text"}
_AS_UTF8 = "save it as UTF-8 (in Excel: 'CSV UTF-8')"


@dataclass(frozen=True)
class DataFile:
    """A file: path or s3://..., its bytes, and a stamp that changes when it is written again."""

    uri: str
    size: int
    stamp: str

    @property
    def suffix(self) -> str:
        """In small letters, with its dot."""
        return Path(self.uri).suffix.lower()


def file_at(uri: str) -> DataFile:
    """The file as it is now. Raises DataError where there is none."""
    with reading(uri):
        if s3.is_s3(uri):
            stored = s3.stat(s3.parse(uri))
            return DataFile(uri, stored.size, stored.stamp)
        status = os.stat(uri)
    return DataFile(uri, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")


def cache_file(name: str) -> Path:
    """NAME.npz in the cache (TESSERA_CACHE or ~/.cache/tessera); need not exist."""
    folder = os.environ.get("TESSERA_CACHE", "") or "~/.cache/tessera"
    return Path(os.path.expanduser(folder)) / f"{name}.npz"


def is_folder(place: str) -> bool:
    """Whether `place` is a folder, or a prefix on S3 with something below it."""
    if s3.is_s3(place):
        return bool(s3.listing(s3.parse(place), deep=False)) or bool(files_below(place))
    return os.path.isdir(os.path.expanduser(place))


def place_name(place: str) -> str:
    """What a graph read from there is called: the last part of the path."""
    name = s3.parse(place).name if s3.is_s3(place) else Path(place).expanduser().resolve().name
    return escaped(name) or "graph"


def files_below(place: str) -> dict[str, DataFile]:
    """The files below a folder by relative name, sorted; hidden ones and those deeper than nodes/TYPE/FILE left out.

    Raises DataError for a folder that cannot be listed, ServiceError where storage cannot be asked.
    """
    if s3.is_s3(place):
        where = s3.parse(place)
        files = {n: DataFile(str(where / n), s.size, s.stamp) for n, s in s3.listing(where).items()}
    else:
        with reading(place):
            files = dict(_walk(Path(os.path.expanduser(place)), "", _DEPTH))
    visible = {n: f for n, f in files.items() if n.count("/") < _DEPTH and not any(p[0] in "._" for p in n.split("/"))}
    return dict(sorted(visible.items()))


def _walk(folder: Path, above: str, depth: int) -> Iterator[tuple[str, DataFile]]:
    for entry in os.scandir(folder):
        if entry.is_dir() and depth > 1 and not entry.name.startswith("."):
            yield from _walk(Path(entry.path), f"{above}{entry.name}/", depth - 1)
        elif entry.is_file():
            yield above + entry.name, file_at(entry.path)


def read_bytes(file: DataFile, first: int = 0, count: int | None = None) -> bytes:
    """`count` bytes (all by default) from byte `first` on. Raises DataError where it is gone or was replaced."""
    count = file.size - first if count is None else min(count, file.size - first)
    with reading(file.uri):
        if s3.is_s3(file.uri):
            return s3.read_range(s3.parse(file.uri), first, count, stamp=file.stamp)
        with opened(file) as stream:
            stream.seek(first)
            return stream.read(count)


def check_name(path: str | Path) -> None:
    """DataError where a path holds bytes that are no UTF-8: no record of a run could name it."""
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise DataError(f"{escaped(str(path))}: the name is not UTF-8 text; rename it")


def escaped(name: str) -> str:
    """A file's name as it can be written: bytes that are no UTF-8 as \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def opened(file: DataFile) -> Iterator[BinaryIO]:
    """The file to read and seek in, never fetched as a whole; whatever goes wrong inside is about it (`reading`)."""
    with reading(file.uri):
        if s3.is_s3(file.uri):
            with s3.opened(s3.parse(file.uri), file.stamp) as stream:
                yield cast(BinaryIO, stream)
            return
        if file.stamp and file_at(file.uri).stamp != file.stamp:
            raise DataError(_replaced(file.uri))
        with open(file.uri, "rb") as plain:
            yield plain


@contextmanager
def reading(place: str | Path) -> Iterator[None]:
    """Every failure of a reader as one line that names the file: DataError, or ResourceError for memory."""
    try:
        yield
    except TesseraError:
        raise
    except (s3.Missing, FileNotFoundError):
        raise DataError(f"{place}: no such file") from None
    except s3.Conflict:
        raise DataError(_replaced(place)) from None
    except MemoryError as error:
        raise ResourceError(f"{place}: does not fit the memory: {error}; use fewer rows or columns") from error
    # the readers raise two dozen classes (zip, arrow, value, unicode ...), all of them about the file
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "pickle" in reason.lower():
            reason = "it holds Python objects (pickle), which are never loaded; save plain number or text arrays"
        elif "utf8" in reason.lower() or isinstance(error, UnicodeDecodeError):
            reason = f"it is not UTF-8 text (Windows-1252, as Excel saves it?); {_AS_UTF8}"
        raise DataError(f"{place}: cannot be read: {reason[:200]}") from error


def _replaced(place: str | Path) -> str:
    return f"{place}: was replaced while it was read; start the same command again"


def check_kind(path: Path) -> None:
    """DataError where a file is missing, empty, or not what its suffix (.npz .npy .parquet .csv) says."""
    with reading(path):
        if not path.is_file():
            raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            start = file.read(4096)
    suffix, kind = path.suffix.lower(), _kind(start)
    wanted = _HOLDS.get(suffix, "text")
    if wanted == "text":
        check_text(str(path), start)
    if kind != wanted:
        must = "comma-separated text" if wanted == "text" else wanted
        raise DataError(f"{path}: is named {suffix} but holds {kind}; a {suffix} file must hold {must}")


def check_text(uri: str, start: bytes) -> None:
    """DataError where the first bytes of a text file are those of UTF-16 (every other byte of plain words is 0)."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or (
        len(start) > 4 and not any(start[1:16:2]) and all(start[:16:2])
    ):
        raise DataError(f"{uri}: is UTF-16 text (Excel's 'Unicode Text'); {_AS_UTF8}")


def _kind(start: bytes) -> str:
    if not start:
        return "nothing (an empty file)"
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    return "unknown binary data" if b"\0" in start else "text"


def read_npy(path: Path, mapped: bool = False) -> NDArray[Any]:
    """The array of a .npy file, or a read-only memory map of it.

    Raises DataError where it is something else, cut off, or would need pickle; ResourceError where it is too large.
    """
    check_kind(path)
    with reading(path):
        if not mapped:
            memory.check_load(path.stat().st_size, str(path))
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    return array
