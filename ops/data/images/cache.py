"""Images decoded once: one file of pixels in the cache, kept under a name that says what is in it, read by mapping.

A file is written under a temporary name and renamed; of two starts on the same images one decodes and the other waits.
Axes: N images, K kept ones (not damaged), S the side.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import locked, replacing
from ops.data.images.decode import Blocks, Tally, as_pixels, decode_all
from ops.data.io.readers import cache_file
from ops.data.types.mapped_file import IN_MEMORY, MappedFile
from ops.errors import DataError

log = logging.getLogger(__name__)

VERSION = 2  # of how images are decoded: another one is another file
HASHED = 256 << 20  # bytes of images up to which their content names the file; else their sizes and times do
Decoded = tuple[NDArray[np.uint8], Tally, Path | None]  # pixels [K, 3, S, S], what happened to them, their file


def stamp(files: list[Path], root: Path) -> str:
    """SHA-256 that names the content of `files`, by their names below `root`.

    Small sets by their bytes, large ones by sizes and times of change. A file that may not be read, or is a link to
    nothing, is named as that: whoever decodes it says so.
    """
    stats = [path.stat() if path.exists() else None for path in files]
    small = sum(stat.st_size for stat in stats if stat) <= HASHED
    h = hashlib.sha256()
    for path, stat in zip(files, stats, strict=True):
        size, changed = (stat.st_size, "" if small else stat.st_mtime_ns) if stat else ("missing", "")
        h.update(f"{path.relative_to(root).as_posix()} {size} {changed}\n".encode())
        if small:
            try:
                with path.open("rb") as file:
                    h.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                h.update(b"unreadable")  # so that it counts as another content once it can be read
    return h.hexdigest()


def decoded(blocks: Blocks, count: int, size: int, name: str, stamped: str, depth: int | None) -> Decoded:
    """All `count` images of `blocks` at `size` (`depth`: see `decode_all`), from the cache where it has them.

    Raises DataError where the cache cannot be written, ResourceError on a full disk.
    """
    if count * 3 * size * size <= IN_MEMORY:
        tally = decode_all(blocks, size, buffer := io.BytesIO(), depth)
        return as_pixels(buffer, size), tally, None
    key = hashlib.sha256(f"{VERSION} {size} {depth} {stamped}".encode()).hexdigest()[:16]
    path = cache_file("x").parent / "images" / f"{name}-{size}-{key}.pixels"
    record = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):  # of two starts one decodes and the other waits
            stored = _stored(path, record, size)
            if stored is None:
                log.info("decoding %d images to %s", count, path)
                # written in order, not by mapping: a full disk is then an error; the record comes last
                with replacing(path) as temporary, temporary.open("w+b") as file:
                    stored = decode_all(blocks, size, file, depth)
                with replacing(record) as temporary:
                    temporary.write_text(json.dumps(vars(stored)))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set TESSERA_CACHE to another folder") from None
    shape = (stored.kept, 3, size, size)
    return _file(path, shape).open() if stored.kept else np.empty(shape, np.uint8), stored, path


def _stored(path: Path, record: Path, size: int) -> Tally | None:
    """What happened to the images of a file of pixels in the cache; None where it is not there as a whole."""
    try:
        values = json.loads(record.read_text())
        damaged = {int(i): why for i, why in values["damaged"].items()}
        tally = Tally(**values | {"changed": Counter(values["changed"]), "damaged": damaged})
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # never written, or damaged since
        return None
    return tally if _file(path, (tally.kept, 3, size, size)).is_whole else None


def _file(path: Path, shape: tuple[int, ...]) -> MappedFile:
    return MappedFile(path, shape, np.dtype(np.uint8).str)
