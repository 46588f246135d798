"""Images decoded once: one file of pixels in the cache, kept under a name that says what is in it, read by mapping.

A file is written under a temporary name and renamed; of two starts on the same images one decodes and the other waits.
Axes: N images, K kept ones (not damaged), S the side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import locked, replacing
from ops.data.images.decode import Encoded, Tally, decode_all
from ops.data.io.readers import cache_file, reading
from ops.errors import DataError

log = logging.getLogger(__name__)

VERSION = 1  # of how images are decoded: another one is another file
IN_MEMORY = 8 << 20  # bytes of pixels up to which decoding again is faster than anybody notices
HASHED = 256 << 20  # bytes of images up to which their content names the file; else their sizes and times do
Blocks = Callable[[], Iterator[list[Encoded]]]


@dataclass(frozen=True)
class Decoded:
    """`pixels` uint8 [K, 3, S, S]; `damaged`: number among all N and reason; `where`: the file, if there is one."""

    pixels: NDArray[np.uint8]
    tally: Tally
    where: Path | None


def stamp(files: list[Path], root: Path) -> str:
    """SHA-256 that names the content of `files`, by their names below `root`.

    Small sets by their bytes, large ones by sizes and times of change. A file that may not be read is told by its size
    alone: whoever decodes it says so. DataError where not even that is to be had.
    """
    with reading(root):
        found = [(p.relative_to(root).as_posix(), p.stat()) for p in files]
    small = sum(s.st_size for _, s in found) <= HASHED
    h = hashlib.sha256()
    for path, (name, stat) in zip(files, found, strict=True):
        h.update(f"{name} {stat.st_size} {'' if small else stat.st_mtime_ns}\n".encode())
        if small:
            try:
                with path.open("rb") as file:
                    h.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                h.update(b"unreadable")  # so that it counts as another content once it can be read
    return h.hexdigest()


def decoded(blocks: Blocks, count: int, size: int, name: str, stamped: str) -> Decoded:
    """All `count` images of `blocks` at `size`, from the cache where they are there already.

    Raises DataError where the cache cannot be written, ResourceError on a full disk.
    """
    if count * 3 * size * size <= IN_MEMORY:
        pieces: list[NDArray[np.uint8]] = []
        tally = decode_all(blocks(), size, pieces.append)
        return Decoded(np.concatenate([np.empty((0, 3, size, size), np.uint8), *pieces]), tally, None)
    key = hashlib.sha256(f"{VERSION} {size} {stamped}".encode()).hexdigest()[:16]
    path = cache_file("x").parent / "images" / f"{name}-{size}-{key}.npy"
    told = path.with_suffix(".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):  # of two starts one decodes and the other waits
            if not (path.is_file() and told.is_file()):
                log.info("decoding %d images to %s", count, path)
                _make(path, told, blocks, count, size)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set TESSERA_CACHE to another folder") from None
    found = json.loads(told.read_text())
    tally = Tally(Counter(found["changed"]), {int(i): why for i, why in found["damaged"].items()})
    return Decoded(np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray), tally, path)


def _make(path: Path, told: Path, blocks: Blocks, count: int, size: int) -> None:
    """Pixels first, what is told of them last. Written in order, not by mapping: a full disk is then an error."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        length = _header(file, count, size)
        tally = decode_all(blocks(), size, lambda pixels: file.write(pixels.data))
        if tally.damaged:
            file.seek(0)
            again = _header(file, count - len(tally.damaged), size)
            assert again == length, "numpy pads headers so that the number of rows may change"
    with replacing(told) as temporary:
        temporary.write_text(json.dumps({"changed": tally.changed, "damaged": tally.damaged}))


def _header(file: object, rows: int, size: int) -> int:
    from numpy.lib import format as npy

    shape = (rows, 3, size, size)
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})  # type: ignore[arg-type]
    return int(file.tell())  # type: ignore[attr-defined]
