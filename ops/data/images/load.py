"""`load_images(spec)`: a name, folder, Parquet file or s3:// URI -> (ImageSet, labels or None).

Axes: N images, S the side at which they are kept, F features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.images.cache import decoded
from ops.data.images.catalog import NAMES, canonical_images, of_name, own_folder, parameters
from ops.data.images.decode import common_size
from ops.data.images.remote import images_copy
from ops.data.images.sources import SUFFIXES, Pile, image_column, of_folder, of_parquet, parquet_files
from ops.data.io.builder import Raw
from ops.data.io.readers import read_npy
from ops.data.io.tables import feature_table
from ops.data.io.validate import as_keys, check_features, check_ids, count, make_labels
from ops.data.types.images import ImageSet
from ops.errors import DataError, SettingsError, naming
from ops.storage.object_store import is_s3

FROZEN = "frozen:"
TABLES = (".npy", ".parquet", ".csv")


@dataclass(frozen=True)
class Read:
    """A data set; beside it, never in it, labels int64 [N] in 0..C-1 and the names of the C classes, where known."""

    data: ImageSet
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None


def load_images(
    spec: str, *, size: int | None = None, backbone: str = "", skip_damaged: bool = False
) -> tuple[ImageSet, NDArray[np.int64] | None]:
    """`read_images` without the classes' names."""
    found = read_images(spec, size=size, backbone=backbone, skip_damaged=skip_damaged)
    return found.data, found.labels


def read_images(spec: str, *, size: int | None = None, backbone: str = "", skip_damaged: bool = False) -> Read:
    """Load a data set of images at `size` pixels a side (None: its own).

    `spec`: a known name (`cifar10`, `stl10`, `digits` ...; write `./cifar10` for a folder of that name), a folder of
    images (its sub-folders are the classes), a Parquet file or a folder of them (column `image`), either also as
    s3://BUCKET/PATH, or the NAME of a folder in TESSERA_DATA. With `backbone` frozen:FILE the features [N, F] of
    FILE (.npy, .parquet, .csv) come along; `spec` may then be a feature table itself.
    Raises DataError for what is missing, malformed or (unless `skip_damaged`) damaged, SettingsError for a size.
    """
    if size is not None and not 1 <= size <= 1024:
        raise SettingsError(f"--image-size {size}: allowed are 1 to 1024 pixels, or none for the data's own")
    table = backbone.removeprefix(FROZEN) if backbone.startswith(FROZEN) else None
    if table == "":
        raise SettingsError(f"--backbone {backbone}: give a file of features: frozen:FILE (.npy, .parquet or .csv)")
    with _here(spec, table is not None) as path:
        if path is not None and _is_table(path):
            if table is None:
                raise DataError(f"{path}: holds features, not images; give --backbone {FROZEN}{path} to train on them")
            return _only_features(spec, path, table)
        pile = _pile(spec, path)
        if pile.count == 0:
            raise DataError(f"{pile.origin}: holds no images")
        found, kept = _decode(pile, size, skip_damaged)
    if path is not None and is_s3(spec):  # what is left out is named as the user knows it
        notes = tuple(note.replace(str(path), spec.rstrip("/")) for note in found.data.notes)
        found = replace(found, data=replace(found.data, notes=notes))
    return found if table is None else replace(found, data=_with_features(found.data, table, kept, pile.count))


@contextmanager
def _here(spec: str, tables: bool) -> Iterator[Path | None]:
    """The file or folder on this machine, None for a known name; messages inside call an S3 copy by its URI."""
    if is_s3(spec):
        copy = images_copy(spec, tables)
        with naming(copy, spec.rstrip("/")):
            yield copy
        return
    if canonical_images(spec) is not None:
        yield None
        return
    if "://" in spec:
        raise DataError(f"{spec}: only local files, folders and s3:// can be read; download it first")
    path = Path(os.path.expanduser(spec))
    if not spec or not _there(path):
        own = own_folder(spec)
        if own is None:
            raise DataError(
                f"{spec!r}: no such data set, file or folder; known names: {', '.join(NAMES)}; or give a folder of "
                "images, or Parquet files with a column image"
            )
        path = own
    yield path


def _there(path: Path) -> bool:
    """Whether there is such a file or folder; DataError for a name that cannot be asked for (too long, no access)."""
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _is_table(path: Path) -> bool:
    """Whether a file holds features: an array, a CSV, or Parquet without images."""
    suffix = path.suffix.lower()
    return path.is_file() and (suffix in (".npy", ".csv") or (suffix == ".parquet" and image_column(path) is None))


def _pile(spec: str, path: Path | None) -> Pile:
    if path is None:
        return of_name(str(canonical_images(spec)), parameters(spec))
    if path.is_file() and not parquet_files(path):
        raise DataError(
            f"{path}: is neither Parquet nor a table of features; images are given as a folder ({' '.join(SUFFIXES)}) "
            "or Parquet file"
        )
    return of_parquet(path) if parquet_files(path) else of_folder(path)


def _decode(pile: Pile, size: int | None, skip: bool) -> tuple[Read, NDArray[np.int64]]:
    """The images that are not damaged, and which of all those are."""
    if size is None:
        size = pile.side or common_size(pile.sample())
    found = decoded(pile.blocks, pile.count, size, _plain(pile.name), pile.stamped)
    notes, damaged = [*pile.notes, *found.tally.notes(size)], found.tally.damaged
    kept = np.setdiff1d(np.arange(pile.count), np.array(list(damaged), dtype=np.int64))
    if damaged:
        said = [f"{pile.place(i)}: {why}" for i, why in sorted(damaged.items())]
        more = f" (and {count(len(said) - 1, 'more image')} damaged)" if len(said) > 1 else ""
        if not skip or not len(kept):
            raise DataError(f"{said[0]}{more}; remove or replace what is damaged, or give --skip-damaged")
        notes.append(f"{count(len(said), 'damaged image')} left out: {'; '.join(said[:3])}{' ...' if said[3:] else ''}")
    if found.where is not None:
        notes.append(f"decoded once to {size} x {size}; the pixels are kept in {found.where}")
    ids = None if pile.ids is None else check_ids(pile.ids, pile.count, origin=pile.origin)[kept]
    ids = kept if ids is None and damaged else ids  # the rows keep their numbers
    given = None if pile.labels is None else pile.labels[kept]
    return _read(ImageSet(pile.name, found.pixels, None, ids, tuple(notes)), given, pile.origin, pile.classes), kept


def _read(data: ImageSet, given: NDArray[Any] | None, origin: str, names: tuple[str, ...] | None = None) -> Read:
    """The data with its labels checked, and the names of its classes: `names`, or the labels where they are words."""
    if given is None:
        return Read(data, None, None)
    labels = make_labels(given, data.n_rows, origin=origin)
    present = np.unique(given if given.dtype.kind in "biufU" else given.astype(np.str_))  # in the labels' order
    if names is not None and present.dtype.kind in "iu":
        return Read(data, labels, tuple(names[i] for i in present) if present.max() < len(names) else None)
    return Read(data, labels, None if present.dtype.kind in "iufb" else tuple(str(c) for c in present))


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:40] or "images"


def _only_features(spec: str, path: Path, table: str) -> Read:
    """A feature table as the data set itself; it must be the one that the backbone names."""
    own = Path(os.path.expanduser(table))
    if not (spec == table if is_s3(table) or is_s3(spec) else _there(own) and own.samefile(path)):
        raise DataError(f"{path}: is a table of features, but --backbone names {table}; give the images or that table")
    raw = _table(path)
    x = check_features(raw.x, feature_names=raw.feature_names, origin=raw.origin)
    ids = None if raw.ids is None else check_ids(raw.ids, len(x), origin=raw.origin)
    return _read(ImageSet(raw.name, None, x, ids, tuple(raw.notes)), raw.labels, raw.origin)


def _table(path: Path) -> Raw:
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: features are read from {', '.join(TABLES)}")
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.ndim != 2:
            raise DataError(f"{path}: features must have two dimensions (images, features), found {array.shape}")
        return Raw(path.stem, str(path), array)
    found = feature_table(path)
    return Raw(path.stem, str(path), found.x, None, found.labels, found.ids, found.feature_names, found.notes)


def _with_features(data: ImageSet, table: str, kept: NDArray[np.int64], n: int) -> ImageSet:
    """The images with their features: in the same order, or matched by id where both have ids.

    The features may be those of all `n` images, or of the ones alone that are `kept` (not damaged).
    """
    path = images_copy(table, True) if is_s3(table) else Path(os.path.expanduser(table))
    raw = _table(path)
    x = check_features(raw.x, feature_names=raw.feature_names, origin=table)
    rows = _rows(data, raw, table)
    if rows is None:
        if len(x) not in (data.n_rows, n):
            raise DataError(f"{table}: {len(x):,} rows of features for {data.n_rows:,} images; give one row an image")
        rows = np.arange(len(x)) if len(x) == data.n_rows else kept
    return ImageSet(data.name, data.pixels, np.ascontiguousarray(x[rows]), data.ids, data.notes).with_notes(
        f"features of {x.shape[1]} values an image from {table}"
    )


def _rows(data: ImageSet, raw: Any, origin: str) -> NDArray[np.int64] | None:
    if raw.ids is None or data.ids is None:
        return None
    theirs, wanted = as_keys(check_ids(raw.ids, len(raw.x), origin=origin)), as_keys(data.ids)
    if theirs.dtype.kind != wanted.dtype.kind:
        theirs, wanted = theirs.astype(np.str_), wanted.astype(np.str_)
    order = np.argsort(theirs)
    at = order[np.minimum(np.searchsorted(theirs, wanted, sorter=order), len(order) - 1)]
    if (wrong := theirs[at] != wanted).any():
        raise DataError(f"{origin}: has no row with the id {str(wanted[wrong][0])!r}; give one row an image")
    return at
