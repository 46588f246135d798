"""Data on S3, by way of a local cache: `s3://bucket/path/x.npz`, or a prefix that holds features.* and edges.*."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ops.atomic_io import inside
from ops.data.io.builder import Raw
from ops.data.io.folder import FIELD, KINDS, read_folder
from ops.data.io.npz import SUFFIXES, read_file
from ops.data.io.readers import cache_file
from ops.data.types.encoding import Encoding
from ops.errors import DataError, naming
from ops.storage import object_store
from ops.storage.object_store import Location, Stored

AT_ONCE = 8
ADVICE = f"give a file ({' '.join(SUFFIXES)}) or a folder with features.* and edges.*"


def read_remote(spec: str, encoding: Encoding | None = None) -> Raw:
    """Read a file or folder on S3; messages name `spec`, never the cache.

    Raises DataError where nothing is there or it is malformed, ServiceError where storage cannot be asked.
    """
    path, unread = copy_wanted(spec, _is_table, "no features.*", ADVICE, deep=False)
    place = str(object_store.parse(spec))
    with naming(path, place):
        raw = read_folder(path, unread=unread, encoding=encoding) if path.is_dir() else read_file(path, encoding)
    return replace(raw, origin=place)


def local_copy(spec: str) -> Path:
    """The file or folder of tables on S3 in the local cache, as fresh as it is there. Raises as `read_remote` does."""
    return copy_wanted(spec, _is_table, "no features.*", ADVICE, deep=False)[0]


def _is_table(name: str) -> bool:
    return name.rpartition(".")[0] in KINDS or name.endswith(tuple(FIELD.values()))


def copy_wanted(
    spec: str, wanted: Callable[[str], bool], lacks: str, advice: str, *, deep: bool
) -> tuple[Path, tuple[str, ...]]:
    """The local copy of the object `spec`, or of those below it whose names are `wanted`, and the others' names.

    Raises DataError where none is there (the folder holds something, but `lacks`), ServiceError.
    """
    place = object_store.parse(spec)
    try:
        if place.key:
            return cached_copy(place, {place.name: object_store.stat(place)}, folder=False), ()
    except object_store.Missing:
        pass
    below = object_store.listing(place, deep=deep)
    objects = {name: stored for name, stored in below.items() if wanted(name)}
    if not objects:
        what = f"holds {', '.join(sorted(below)[:5])}, but {lacks}" if below else "no such object or folder"
        raise DataError(f"{place}: {what} (endpoint {object_store.endpoint()}); {advice}")
    return cached_copy(place, objects, folder=True), tuple(sorted(below.keys() - objects.keys()))


def cached_copy(place: Location, objects: dict[str, Stored], folder: bool) -> Path:
    """The local copy of the object `place`, or of the `objects` below it; one of the same state is used again.

    Raises DataError, ServiceError.
    """
    few = len(objects) <= AT_ONCE  # times are whole seconds: of few objects the ETags are asked for, too
    sources = {name: place / name if folder else place for name in objects}
    try:
        tags = {name: object_store.etag(source) for name, source in sources.items() if few}
        state = [object_store.endpoint(), str(place)]
        state += [f"{n} {s.size} {s.stamp} {tags.get(n, '')}" for n, s in sorted(objects.items())]
        home = cache_file("x").parent / "s3" / hashlib.sha256("\n".join(state).encode()).hexdigest()[:32]
        path = home / place.name
        with ThreadPoolExecutor(AT_ONCE) as pool:  # many small objects: each one waits for its answer
            targets = [inside(path, name) if folder else path for name in objects]
            list(pool.map(_fetch, targets, sources.values(), objects.values()))
    except object_store.Missing as error:
        raise DataError(f"{error}: was removed while it was read; start the same command again") from None
    except OSError as error:
        raise DataError(f"{home}: cannot be written ({os.strerror(error.errno or 0)}); set TESSERA_CACHE") from None
    return path


def _fetch(path: Path, source: Location, stored: Stored) -> None:
    if path.is_file() and path.stat().st_size == stored.size:
        return
    if object_store.download(source, path) != stored:
        path.unlink()
        raise DataError(f"{source}: was replaced while it was read; start the same command again")
