"""Writing files so that they are whole or not there: a temporary name, flushed to disk, one rename."""

import errno
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError, ResourceError, SettingsError, TesseraError

Arrays = dict[str, NDArray[Any]]  # by name
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffd]")  # the last one stands for others in listings


def name_fault(name: str) -> str | None:
    """Why a relative name (FOLDER/FILE) must not be joined to a folder, in words that follow it; None: it may be."""
    parts = name.split("/")
    if name.startswith("/") or re.fullmatch("[A-Za-z]:", parts[0]):
        return "is absolute"
    if "" in parts:
        return "has an empty part"
    if "." in parts or ".." in parts:
        return "has a part . or .."
    if _CONTROL.search(name):
        return "has a control character"
    return "has a backslash" if "\\" in name else None


def inside(folder: Path, name: str) -> Path:
    """The path of a file below `folder` by its relative name: the one way from a name that others chose to a path.

    Raises DataError for a name that is absolute, leads out of the folder (also by way of a symbolic link), or holds
    control characters or backslashes.
    """
    path, fault = folder / name, name_fault(name)
    if fault is None and not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        fault = "leads out of the folder by a symbolic link"
    if fault:
        raise DataError(f"{folder}: the name {name!r} {fault}; names must be FOLDER/FILE and stay inside: rename it")
    return path


def unwritable(path: Path, error: OSError, remedy: str = "choose a place that can") -> TesseraError:
    """The one line for a file that could not be written: ResourceError on a full disk, else SettingsError."""
    if error.errno in FULL:
        return ResourceError(f"{path}: {error.strerror}; free some space and start the same command again")
    return SettingsError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to; afterwards it is flushed and renamed to `path`, or removed if anything failed.

    Makes the folders above. Raises ResourceError on a full disk, SettingsError where the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a symbolic link there would be written through
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Flush a file or a folder's list of names to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file (made where there is none), which dies with the process; wait while another holds it."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a whole file or none (`ops.atomic_io.replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """`atomic_write` of indented JSON; NaN becomes null, so that every reader can read it."""
    atomic_write(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, mappings and sequences as dict and list."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return value


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(each for each in (path, *path.rglob("*")) if each.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        total.update(bytes.fromhex(sha256(file)))
    return total.hexdigest()


def save_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """A whole compressed npz file or none (`ops.atomic_io.replacing`)."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def now() -> str:
    """The time in UTC, to the second, as it stands in results."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where the file is missing, not whole or anything else."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
