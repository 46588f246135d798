"""Data on S3, by way of a local cache: `s3://bucket/path/x.npz`, or a prefix that holds features.* and edges.*."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ops.atomic_io import inside
from ops.data.io.builder import Raw
from ops.data.io.folder import FIELD, KINDS, read_folder
from ops.data.io.npz import SUFFIXES, read_file
from ops.data.io.readers import cache_file
from ops.errors import DataError, naming
from ops.storage import s3

AT_ONCE = 8


def read_remote(spec: str) -> Raw:
    """Read a file or folder on S3; messages name `spec`, never the cache.

    Raises DataError where nothing is there or it is malformed, ServiceError where storage cannot be asked.
    """
    place = s3.parse(spec)
    objects, unread = _objects(place)
    path = cached_copy(place, objects, place.name not in objects)
    with naming(path, str(place)):
        raw = read_folder(path, unread=unread) if path.is_dir() else read_file(path)
    return replace(raw, origin=str(place))


def local_copy(spec: str) -> Path:
    """The file or folder on S3 in the local cache, as fresh as it is there. Raises as `read_remote` does."""
    place = s3.parse(spec)
    objects, _ = _objects(place)
    return cached_copy(place, objects, place.name not in objects)


def _objects(place: s3.Location) -> tuple[dict[str, s3.Stored], tuple[str, ...]]:
    """The object `place` by its name, or those of a graph right below it, and the names of the others there."""
    try:
        if place.key:
            return {place.name: s3.stat(place)}, ()
    except s3.Missing:
        pass
    below = s3.listing(place, deep=False)
    objects = {n: s for n, s in below.items() if n.rpartition(".")[0] in KINDS or n.endswith(tuple(FIELD.values()))}
    if not objects:
        what = f"holds {', '.join(sorted(below)[:5])}, but no features.*" if below else "no such object or folder"
        raise DataError(
            f"{place}: {what} (endpoint {s3.endpoint()}); "
            f"give a file ({' '.join(SUFFIXES)}) or a folder with features.* and edges.*"
        )
    return objects, tuple(sorted(below.keys() - objects.keys()))


def cached_copy(place: s3.Location, objects: dict[str, s3.Stored], folder: bool) -> Path:
    """The local copy of the object `place`, or of the `objects` below it; one with the same names, sizes and
    ETags is used again. Raises DataError, ServiceError.
    """
    words = [s3.endpoint(), str(place), *(f"{n} {s.size} {s.etag}" for n, s in sorted(objects.items()))]
    digest = hashlib.sha256("\n".join(words).encode()).hexdigest()[:32]
    home = cache_file("x").parent / "s3" / digest
    path = home / place.name
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:  # many small objects: each one waits for its answer
            sources = [(inside(path, n), place / n, s) if folder else (path, place, s) for n, s in objects.items()]
            for _ in pool.map(lambda each: _fetch(*each), sources):
                pass
    except s3.Missing as error:
        raise DataError(f"{error}: was removed while it was read; start the same command again") from None
    except OSError as error:
        raise DataError(f"{home}: cannot be written ({os.strerror(error.errno or 0)}); set TESSERA_CACHE") from None
    return path


def _fetch(path: Path, source: s3.Location, stored: s3.Stored) -> None:
    if path.is_file() and path.stat().st_size == stored.size:
        return
    if s3.download(source, path) != stored:
        path.unlink()
        raise DataError(f"{source}: was replaced while it was read; start the same command again")
