"""Objects in a bucket: list, read, write, copy and delete them, by `pyarrow.fs`. Every failure is one line."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops.atomic_io import name_fault, replacing
from ops.errors import DataError
from ops.storage.connection import Conflict, Missing, client, endpoint, failure, file_system, translated
from ops.storage.location import Location, is_s3, parse

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileInfo

__all__ = ("Conflict", "Location", "Missing", "Stored", "endpoint", "is_s3", "parse")  # with the functions below

BLOCK = 16 << 20  # bytes that one request of a copy carries


@dataclass(frozen=True)
class Stored:
    """Size in bytes of an object, and what tells it from a later one: size and time (whole seconds, as S3 has them)."""

    size: int
    stamp: str


def _reader(location: Location, patient: bool = True) -> "NativeFile":
    return file_system(location, patient).open_input_file(location.path)


def _writer(location: Location, patient: bool = True) -> "NativeFile":
    return file_system(location, patient).open_output_stream(location.path)


def _stored(size: int, written: str) -> Stored:
    """An object's state: its time is in whole seconds only, so that its size is a part of the stamp."""
    return Stored(size, f"{size} bytes of {written}")


def _of_info(info: "FileInfo") -> Stored:
    return _stored(info.size, "" if info.mtime is None else info.mtime.strftime("%Y-%m-%dT%H:%M:%SZ"))


def stat(location: Location) -> Stored:
    """Size and time of an object. Raises Missing, ServiceError."""
    from pyarrow.fs import FileType

    with translated(location):
        info = file_system(location).get_file_info(location.path)
    if info.type != FileType.File:
        raise Missing(str(location))
    return _of_info(info)


def etag(location: Location) -> str:
    """The object's ETag, which tells it from another of the same second. Raises Missing, ServiceError."""
    with translated(location), _reader(location) as source:
        return str(source.metadata()["ETag"].decode())


def listing(location: Location, *, start: str = "", deep: bool = True, patient: bool = True) -> dict[str, Stored]:
    """The objects below `location`, by their names relative to it, sorted.

    `start`: only names that begin so; not `deep`: only those right below. A missing bucket is a ServiceError, a missing
    folder is empty. Raises DataError for an object whose name could lead out of a folder (`ops.atomic_io.name_fault`).
    """
    from pyarrow.fs import FileSelector, FileType

    infos: list["FileInfo"] = []
    with suppress(Missing), translated(location):
        infos = file_system(location, patient).get_file_info(FileSelector(location.path, recursive=deep))
    objects = {}
    for info in infos:
        name = info.path[len(location.path) + 1 :]
        if info.type == FileType.File and name and name.startswith(start):
            _check_name(location, name)
            objects[name] = _of_info(info)
    return dict(sorted(objects.items()))


def _check_name(location: Location, name: str) -> None:
    if fault := name_fault(name):
        raise DataError(
            f"{location}: holds an object whose name there, {name!r}, {fault}; names must be FOLDER/FILE without "
            "empty, . or .. parts, control characters and backslashes: rename or remove it"
        )


def download(location: Location, path: Path, *, patient: bool = True) -> Stored:
    """The object as a file, whole or not there. Raises Missing, ServiceError, ResourceError on a full disk."""
    with replacing(path) as temporary, translated(location):
        with _reader(location, patient) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, BLOCK)
            size, about = source.size(), source.metadata()
            complete = file.tell() == size
        if not complete or (size > BLOCK and etag(location) != about["ETag"].decode()):
            raise failure(location, "was replaced while it was read", "give the same command again")
    return _stored(size, about.get("Last-Modified", b"").decode())


@contextmanager
def opened(location: Location, stamp: str) -> Iterator["NativeFile"]:
    """The object to read and seek in, by ranges: nothing else of it is fetched.

    Raises Missing, ServiceError, Conflict where the object is no longer the one of that `stamp` (if there is one).
    """
    with translated(location):
        source = _reader(location)
    try:
        with source:
            yield source
    except (OSError, ValueError) as error:
        if "AWS Error" in str(error):
            with translated(location):
                raise
        _check(location, stamp)  # the bytes of two objects together say nothing
        raise
    _check(location, stamp)


def _check(location: Location, stamp: str) -> None:
    if stamp and stat(location).stamp != stamp:  # after reading: until then the bytes were those of this stamp
        raise Conflict(str(location))


def read_range(location: Location, first: int, count: int, *, stamp: str = "") -> bytes:
    """`count` bytes of an object from byte `first` on. Raises as `opened` does."""
    if count <= 0:
        return b""
    with opened(location, stamp) as source:
        data: bytes = source.read_at(count, first)
    if len(data) < count:
        raise failure(location, f"ends before byte {first + count}", "give the same command again")
    return data


def upload(path: Path, location: Location, *, patient: bool = True) -> None:
    """The file as an object, which appears whole. Raises ServiceError, FileNotFoundError."""
    with path.open("rb") as file, translated(location), _writer(location, patient) as target:
        shutil.copyfileobj(file, target, BLOCK)


def read(location: Location, *, patient: bool = True) -> bytes | None:
    """A small object, None where there is none. Raises ServiceError."""
    with suppress(Missing), translated(location), _reader(location, patient) as source:
        return bytes(source.read())
    return None


def write(location: Location, data: bytes, *, patient: bool = True) -> None:
    """Write a small object. Raises ServiceError."""
    with translated(location), _writer(location, patient) as target:
        target.write(data)


def delete(location: Location, *, patient: bool = True) -> None:
    """Remove an object; none there is no error. Raises ServiceError."""
    with suppress(Missing), translated(location):  # pyarrow would leave an empty object that stands for the folder
        client(patient).delete_object(Bucket=location.bucket, Key=location.key)
