"""`read_images(spec)`: a name, folder, Parquet file or s3:// URI -> an ImageSet, and labels beside it.

Axes: N images, S the side at which they are kept, F features.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.download import in_data_folder
from ops.data.images.cache import decoded
from ops.data.images.catalog import NAMES, canonical_images, of_name, of_path
from ops.data.images.decode import common_size
from ops.data.images.features import FROZEN, TABLES, feature_set, features_file, with_features
from ops.data.images.parquet import image_column, parquet_files
from ops.data.images.sources import SUFFIXES, EncodedImages, images_copy
from ops.data.io.ids import check_ids
from ops.data.io.labels import make_labels, unlabelled
from ops.data.io.readers import check_name
from ops.data.io.validate import count
from ops.data.types.images import ImageSet
from ops.errors import DataError, SettingsError, naming
from ops.storage.object_store import is_s3

LARGEST = 96  # pixels a side of images whose size nobody gave


@dataclass(frozen=True)
class LoadedImages:
    """A data set; beside it, never in it, labels int64 [N] in 0..C-1 and the names of the C classes, if it has them."""

    data: ImageSet
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None


def read_images(
    spec: str, *, size: int | None = None, backbone: str = "", skip_damaged: bool = False, depth: int | None = None,
    largest: int = LARGEST,
) -> LoadedImages:  # fmt: skip
    """Load a data set of images at `size` pixels a side (None: its own, up to `largest`).

    `spec`: a listed name (`cifar10`, `stl10`, `digits` ...; write `./cifar10` for a folder of that name), a folder of
    images (its sub-folders are the classes), a Parquet file or a folder of them (column `image`), either also as
    s3://BUCKET/PATH, or the NAME of a folder in TESSERA_DATA. With `backbone` frozen:FILE the features [N, F] of
    FILE (.npy, .parquet, .csv) come along; `spec` may then be a feature table itself. `depth`: how many bits images of
    more than 8 bits a channel use (None: as many as their largest value needs).
    Raises DataError for what is missing, malformed or (unless `skip_damaged`) damaged, SettingsError for a size.
    """
    if size is not None and not 1 <= size <= 1024:
        raise SettingsError(f"--image-size {size}: allowed are 1 to 1024 pixels, or none for the data's own")
    check_name(spec + backbone)
    table = features_file(backbone)
    with _local(spec, table is not None) as path:
        if path is not None and _is_table(path):
            if table is None:
                raise DataError(f"{path}: holds features, not images; give --backbone {FROZEN}{path} to train on them")
            data, given = feature_set(spec, path, table)
            return _labelled(data, given, str(path))
        images = _encoded(spec, path)
        if images.count == 0:
            raise DataError(f"{images.origin}: holds no images")
        data, rows = _decoded(images, size or images.side or common_size(images.sample(), largest), skip_damaged, depth)
    if path is not None and is_s3(spec):  # what is left out is named as the user knows it
        data = replace(data, notes=tuple(note.replace(str(path), spec.rstrip("/")) for note in data.notes))
    if table is not None:
        data = with_features(data, table, rows, images.count)
    return _labelled(data, None if images.labels is None else images.labels[rows], images.origin, images.classes)


@contextmanager
def _local(spec: str, tables: bool) -> Iterator[Path | None]:
    """The file or folder on this machine, None for a listed name; messages inside call an S3 copy by its URI."""
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
    path: Path | None = Path(os.path.expanduser(spec))
    try:
        there = bool(spec) and path is not None and path.exists()
    except OSError as error:  # a name that is too long, no access
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    path = path if there else in_data_folder(spec)
    if path is None:
        raise DataError(
            f"{spec!r}: no such data set, file or folder; known names: {', '.join(NAMES)}; or give a folder of images, "
            "or Parquet files with a column image"
        )
    yield path


def _is_table(path: Path) -> bool:
    """Whether a file holds features: an array, a CSV, or Parquet without images."""
    suffix = path.suffix.lower()
    return path.is_file() and suffix in TABLES and (suffix != ".parquet" or image_column(path) is None)


def _encoded(spec: str, path: Path | None) -> EncodedImages:
    if path is None:
        return of_name(str(canonical_images(spec)), spec.partition(":")[2])
    if path.is_file() and not parquet_files(path):
        raise DataError(
            f"{path}: is neither Parquet nor a table of features; images are given as a folder ({' '.join(SUFFIXES)}) "
            "or Parquet file"
        )
    return of_path(path)


def _decoded(images: EncodedImages, size: int, skip: bool, depth: int | None) -> tuple[ImageSet, NDArray[np.int64]]:
    """The images that are not damaged, and which of all those are."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in images.name)[:40] or "images"
    pixels, tally, file = decoded(images.blocks, images.count, size, name, images.stamped, depth)
    notes, damaged = [*images.notes, *tally.notes(size)], tally.damaged
    rows = np.setdiff1d(np.arange(images.count), np.array(list(damaged), dtype=np.int64))
    if damaged:
        said = [f"{images.place(i)}: {why}" for i, why in sorted(damaged.items())]
        more = f" (and {count(len(said) - 1, 'more image')} damaged)" if len(said) > 1 else ""
        if not skip or not len(rows):
            raise DataError(f"{said[0]}{more}; remove or replace what is damaged, or give --skip-damaged")
        notes.append(f"{count(len(said), 'damaged image')} left out: {'; '.join(said[:3])}{' ...' if said[3:] else ''}")
    if file is not None:
        notes.append(f"decoded once to {size} x {size}; the pixels are kept in {file}")
    ids = None if images.ids is None else check_ids(images.ids, images.count, origin=images.origin)[rows]
    ids = rows if ids is None and damaged else ids  # the rows keep their numbers
    bits = tally.depth if tally.changed["deep"] else 8
    return ImageSet(images.name, pixels, None, ids, tuple(notes), bits), rows


def _labelled(
    data: ImageSet, given: NDArray[Any] | None, origin: str, names: tuple[str, ...] | None = None
) -> LoadedImages:
    """The data with its labels checked, and the names of its classes: `names`, or the labels where they are words."""
    if given is None:
        return LoadedImages(data, None, None)
    labels = make_labels(given, data.n_rows, origin=origin)
    data, given = data.with_notes(*unlabelled(labels)), given[labels >= 0]
    present = np.unique(given if given.dtype.kind in "biufU" else given.astype(np.str_))  # in the labels' order
    if present.dtype.kind == "U":
        return LoadedImages(data, labels, tuple(map(str, present)))
    numbered = names and present.dtype.kind in "iu" and present.max() < len(names)
    return LoadedImages(data, labels, tuple(names[i] for i in present) if names and numbered else None)
