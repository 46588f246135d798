"""Where images lie: a folder of files, or arrays. Listed here, decoded elsewhere.

Axes: N images, H x W pixels.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.images.cache import stamp
from ops.data.images.decode import Blocks, Encoded
from ops.data.io.readers import check_name, reading
from ops.data.io.remote import copy_wanted
from ops.data.io.validate import count
from ops.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
HIDDEN = (".", "__")
BLOCK = 1024  # images that are read at a time
SAMPLE = 256  # images whose sizes tell the size of all


@dataclass(frozen=True)
class EncodedImages:
    """N images that are not decoded yet.

    `blocks()` gives them in order, `sample()` some of them; `places` [N] say in messages where each one is (None:
    `origin`, row i). `labels` [N] of any kind, `ids` [N]. `stamped` names the content. `side`: at which they are
    decoded by default (None: as `common_size` says). `classes`: what label 0, 1 ... mean, where these are numbers.
    """

    name: str
    origin: str
    count: int
    blocks: Blocks
    sample: Callable[[], Iterator[Encoded]]
    stamped: str
    labels: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    places: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    side: int | None = None
    classes: tuple[str, ...] | None = None

    def place(self, i: int) -> str:
        """Where image `i` is."""
        return f"{self.origin}, row {i}" if self.places is None else self.places[i]


def of_array(name: str, pixels: NDArray[np.uint8], labels: NDArray[Any] | None, notes: list[str]) -> EncodedImages:
    """Images that are decoded already: uint8 [N, H, W, 3]."""
    blocks = _in_blocks(pixels)
    return EncodedImages(name, name, len(pixels), blocks, lambda: iter(pixels[:1]), name, labels, notes=notes)


def _in_blocks(images: Any) -> Blocks:
    """A sequence of images as `EncodedImages` gives them."""
    return lambda: (list(images[i : i + BLOCK]) for i in range(0, len(images), BLOCK))


def of_folder(folder: Path, classes: list[str] | None = None) -> EncodedImages:
    """Files below a folder, in the order of their names; sub-folders are classes, for judging only.

    `classes`: the sub-folders that count. Raises DataError for a folder without images, for images beside sub-folders
    with images, and for names of splits (train, val ...) beside other folders.
    """
    notes: list[str] = []
    with reading(folder):
        listed = list_files(folder, notes)
        files = [p for p in listed if p.suffix.lower() in SUFFIXES]
        files = [p for p in files if classes is None or p.relative_to(folder).parts[0] in classes]
        stamped = stamp(files, folder)
    if not files:
        raise DataError(f"{folder}: holds no images ({' '.join(SUFFIXES)}) and no Parquet files of images")
    if other := [str(p.relative_to(folder)) for p in listed if p.suffix.lower() not in SUFFIXES]:
        more = " ..." if other[3:] else ""
        notes.append(f"{count(len(other), 'file')} without a suffix of images left out: {', '.join(other[:3])}{more}")
    parts = [p.relative_to(folder).parts for p in files]
    labels = labels_by_folder(folder, parts, notes) if classes is None else np.array([p[0] for p in parts])
    ids, step = np.array(["/".join(p) for p in parts]), max(1, len(files) // SAMPLE)
    return EncodedImages(
        folder.resolve().name, str(folder), len(files), _in_blocks(files), lambda: iter(files[::step]), stamped, labels,
        ids, [str(p) for p in files], notes,
    )  # fmt: skip


def list_files(folder: Path, notes: list[str]) -> list[Path]:
    """The files below a folder in the order of their names, without hidden ones; what is left out is added to `notes`.

    Links to folders are followed; a folder is read once, so that links may form a circle. A link to nothing is listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    again: list[str] = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in visited:
            again.append(place)
            folders.clear()
            continue
        visited.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
        files += [Path(place, name) for name in names if not name.startswith(HIDDEN)]
    if again:
        notes.append(f"{count(len(again), 'linked folder')} left out, as their images are read already: {again[0]}"
                     f"{' ...' if again[1:] else ''}")  # fmt: skip
    files = sorted(p for p in files if p.is_file() or not p.exists())  # no pipes, no devices
    for path in files:
        check_name(path)
    return files


def labels_by_folder(folder: Path, parts: list[tuple[str, ...]], notes: list[str]) -> NDArray[Any] | None:
    """The class [N] of each image, None without classes. `parts` [N]: folders and name of each image below `folder`.

    Classes are the folders of the first level that has several; levels of splits are passed over. `notes` get what is
    decided. Raises DataError where it is not clear what is a class.
    """
    level = 0
    while True:
        inside = [len(p) > level + 1 for p in parts]
        names = sorted({p[level] for p, below in zip(parts, inside, strict=True) if below})
        splits = [name for name in names if name.lower() in SPLITS]
        deep = any(p[level] in splits and len(p) > level + 2 for p in parts)
        if not all(inside):
            _check_no_classes(folder, parts, inside, level)
            notes += ["no folders of classes: the images have no labels"] if level else []
            return None
        if len(splits) > 1 or (splits and deep):
            if len(splits) < len(names):
                other = next(name for name in names if name not in splits)
                raise DataError(
                    f"{folder}: {splits[0]}/ is the name of a split, and {other}/ beside it is not; give one split as "
                    "--dataset, or keep folders of classes only"
                )
            notes.append(f"{', '.join(f'{name}/' for name in splits)}: splits, not classes; all are read together")
        elif len(names) > 1:
            if level:
                notes.append(f"classes are the folders of level {level + 1}, such as {'/'.join(parts[0][: level + 1])}")
            return np.array([p[level] for p in parts])
        level += 1


def _check_no_classes(folder: Path, parts: list[tuple[str, ...]], inside: list[bool], level: int) -> None:
    """DataError where images lie beside folders of images at the last level."""
    if any(inside):
        below, beside = parts[inside.index(True)], parts[inside.index(False)]
        raise DataError(
            f"{folder}: {'/'.join(below[: level + 1])}/ holds images and {'/'.join(beside)} lies beside it: put all "
            "images into sub-folders (their classes), or none"
        )


def images_copy(spec: str, tables: bool = False) -> Path:
    """The file or folder of images on S3 in the local cache, as fresh as it is there; `tables`: .npy and .csv too.

    Raises DataError where nothing is there, ServiceError where storage cannot be asked.
    """
    endings = (*SUFFIXES, ".parquet", *((".npy", ".csv") if tables else ()))

    def wanted(name: str) -> bool:
        return name.lower().endswith(endings) and "/." not in f"/{name}"

    return copy_wanted(spec, wanted, "no images", "give a Parquet file or a folder of images", deep=True)[0]
