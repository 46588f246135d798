"""Arrays that the tasks of a build hand to each other on disk: a folder of .npy files, complete or absent."""

import errno
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
from ops.errors import DataError

FACTS = "facts.json"


def write_arrays(
    folder: Path, arrays: Mapping[str, NDArray[Any] | None], facts: Mapping[str, Any] | None = None
) -> None:
    """Write NAME.npy for every array (None is left out) and JSON `facts`; all appear at once, by a rename.

    Nothing is flushed to disk, so that a power cut may damage a folder: see `forget_after_reboot`. Where the folder
    exists, another attempt of the same task was faster, and its folder stays. Raises ResourceError on a full disk,
    SettingsError where the folder cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            if array is not None:
                np.save(temporary / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        (temporary / FACTS).write_text(json.dumps(dict(facts or {})))
        temporary.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a folder."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return facts


def map_array(path: Path) -> NDArray[Any]:
    """A stored array, mapped copy-on-write: the file never changes, and compiled loops accept it like any array.

    Raises DataError where it cannot be read.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: cannot be read ({reason}); partition the graph again") from None
    return array


def open_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder by name, mapped, so that only what is used is read."""
    return {path.stem: map_array(path) for path in sorted(folder.glob("*.npy"))}


def read_rows_of_part(folder: Path, part: int) -> dict[str, NDArray[Any]]:
    """The rows of one part of all arrays, copied; the array `bounds` [P + 1] says where the rows of each part begin."""
    arrays = open_arrays(folder)
    bounds = arrays.pop("bounds")
    return {name: np.array(array[bounds[part] : bounds[part + 1]]) for name, array in arrays.items()}


def forget_after_reboot(work: Path) -> None:
    """Empty a folder that was written before this machine started, as its files may not have reached the disk."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    mark = work / "boot"
    if work.exists() and (not mark.exists() or mark.read_text() != boot):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(boot)
