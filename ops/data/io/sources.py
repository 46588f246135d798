"""Files of an input, on disk or on S3 alike: what there is, and bytes out of the middle of one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ops.errors import DataError, ResourceError, TesseraError
from ops.storage import object_store as s3

_DEPTH = 3  # nodes/user/part-0.parquet


@dataclass(frozen=True)
class Source:
    """A file: path or s3://..., its bytes, and a stamp that changes when it is written again."""

    uri: str
    size: int
    stamp: str

    @property
    def suffix(self) -> str:
        """In small letters, with its dot."""
        return Path(self.uri).suffix.lower()


def is_folder(place: str) -> bool:
    """Whether `place` is a folder, or a prefix on S3 with something below it."""
    if s3.is_s3(place):
        return bool(s3.listing(s3.parse(place), deep=False)) or bool(listing(place))
    return os.path.isdir(os.path.expanduser(place))


def listing(place: str) -> dict[str, Source]:
    """The files below a folder by relative name, sorted; hidden ones and those deeper than nodes/TYPE/FILE left out.

    Raises DataError for a folder that cannot be listed, ServiceError where storage cannot be asked.
    """
    if s3.is_s3(place):
        where = s3.parse(place)
        found = {n: Source(str(where / n), s.size, s.stamp) for n, s in s3.listing(where).items()}
    else:
        with reading(place):
            found = dict(_walk(Path(os.path.expanduser(place)), "", _DEPTH))
    seen = {n: s for n, s in found.items() if n.count("/") < _DEPTH and not any(p[0] in "._" for p in n.split("/"))}
    return dict(sorted(seen.items()))


def _walk(folder: Path, above: str, depth: int) -> Iterator[tuple[str, Source]]:
    for entry in os.scandir(folder):
        if entry.is_dir() and depth > 1 and not entry.name.startswith("."):
            yield from _walk(Path(entry.path), f"{above}{entry.name}/", depth - 1)
        elif entry.is_file():
            yield above + entry.name, source(entry.path)


def source(uri: str) -> Source:
    """The file as it is now. Raises DataError where there is none."""
    with reading(uri):
        if s3.is_s3(uri):
            stored = s3.stat(s3.parse(uri))
            return Source(uri, stored.size, stored.stamp)
        found = os.stat(uri)
    return Source(uri, found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def read_bytes(file: Source, first: int = 0, count: int | None = None) -> bytes:
    """`count` bytes (all by default) from byte `first` on. Raises DataError where it is gone or was replaced."""
    count = file.size - first if count is None else min(count, file.size - first)
    with reading(file.uri):
        if s3.is_s3(file.uri):
            return s3.read_range(s3.parse(file.uri), first, count, stamp=file.stamp)
        with opened(file) as stream:
            stream.seek(first)
            return stream.read(count)


@contextmanager
def opened(file: Source) -> Iterator[BinaryIO]:
    """The file to read and seek in, never fetched as a whole; whatever goes wrong inside is about it (`reading`)."""
    with reading(file.uri):
        if s3.is_s3(file.uri):
            with io.BufferedReader(_Ranged(file), 1 << 16) as stream:
                yield cast(BinaryIO, stream)
            return
        if file.stamp and source(file.uri).stamp != file.stamp:
            raise DataError(_replaced(file.uri))
        with open(file.uri, "rb") as plain:
            yield plain


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Every failure of a reader as one line that names the file: DataError, or ResourceError for memory."""
    try:
        yield
    except TesseraError:
        raise
    except (s3.Missing, FileNotFoundError):
        raise DataError(f"{uri}: no such file") from None
    except s3.Conflict:
        raise DataError(_replaced(uri)) from None
    except MemoryError as error:
        raise ResourceError(f"{uri}: does not fit the memory: {error}; write it in smaller row groups") from error
    # the readers raise two dozen classes (arrow, value, unicode, zip ...), all of them about the file
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{uri}: cannot be read: {reason[:200]}") from error


def _replaced(uri: str) -> str:
    return f"{uri}: was replaced while it was read; start the same command again"


class _Ranged(io.RawIOBase):
    """An object on S3 as a file that is read by ranges."""

    def __init__(self, file: Source) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = read_bytes(self._file, self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
