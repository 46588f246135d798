"""Arrays of a task in one file, whole or not there: what tasks of a build hand to each other by way of the disk."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import unwritable

_ALIGN, _HEAD = 64, 8  # bytes: of every array, of the header's length


def save_pack(path: Path, arrays: Mapping[str, NDArray[Any] | None], facts: Mapping[str, Any] | None = None) -> None:
    """Write arrays (None ones are left out) and JSON `facts`; the file's presence means that all of it is there.

    A killed process leaves nothing half-written; the file is not flushed to disk, so a machine that loses its power
    may: `forget_after_reboot`.
    Raises ResourceError on a full disk, SettingsError where the place cannot be written.
    """
    own = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    about: dict[str, Any] = {"facts": dict(facts or {}), "arrays": {}}
    at = 0
    for name, array in own.items():
        at += -at % _ALIGN
        about["arrays"][name] = [array.dtype.str, array.shape, at]
        at += array.nbytes
    head = json.dumps(about).encode()
    head += b" " * (-(len(head) + _HEAD) % _ALIGN)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # two attempts of a task may run at a time
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(head).to_bytes(_HEAD, "little") + head)
            for array in own.values():
                file.write(b"\0" * (-file.tell() % _ALIGN))
                array.tofile(file)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def forget_after_reboot(work: Path) -> None:
    """Empty a folder of packs that were written before this machine was started: they may not have reached the disk."""
    now = ""
    with suppress(OSError):
        now = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mark = work / "boot"
    if work.exists() and (not mark.exists() or mark.read_text() != now):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(now)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a pack."""
    facts: dict[str, Any] = _header(path)[0]["facts"]
    return facts


def open_pack(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a pack, mapped copy-on-write (compiled loops take them as any array); only what is read is read."""
    about, first = _header(path)
    found: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape, at) in about["arrays"].items():
        if 0 in shape:  # nothing to map
            found[name] = np.empty(shape, dtype=dtype)
        else:
            found[name] = np.memmap(path, dtype=dtype, mode="c", offset=first + at, shape=tuple(shape)).view(np.ndarray)
    return found


def read_run(path: Path, part: int) -> dict[str, NDArray[Any]]:
    """One part's rows of the arrays of a pack whose `bounds` [P + 1] tell where they are; nothing else is read."""
    about, start = _header(path)

    def rows(name: str, first: int, last: int) -> NDArray[Any]:
        dtype, shape, at = about["arrays"][name]
        width = int(np.prod(shape[1:]))
        offset = start + at + first * width * np.dtype(dtype).itemsize
        found = np.fromfile(path, dtype=dtype, count=(last - first) * width, offset=offset)
        return found.reshape(last - first, *shape[1:])

    first, last = (int(bound) for bound in rows("bounds", part, part + 2))
    return {name: rows(name, first, last) for name in about["arrays"] if name != "bounds"}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(_HEAD), "little")
        return json.loads(file.read(size)), _HEAD + size
