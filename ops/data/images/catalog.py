"""Image data sets by name: a folder in TESSERA_DATA, then the cache, then torchvision's download into the cache.

Published figures on these are of train and test images together, as here. The downloading (`ops.data.catalog.fetch`)
runs in another process, as torchvision reads CIFAR's files by pickle.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ops.data.catalog.download import download, in_data_folder
from ops.data.images.parquet import of_parquet, parquet_files
from ops.data.images.sources import EncodedImages, of_array, of_folder
from ops.data.io.readers import cache_file, read_npy
from ops.errors import DataError, SettingsError

DOWNLOADED = ("cifar10", "cifar20", "stl10")
LISTED = {"imagenet10": 10, "imagenet-dogs": 15}  # whose classes a file of the user's names
NAMES = (*DOWNLOADED, *LISTED, "digits")
DIGITS_SIDE = 16  # 8 x 8 pixels are too few for an encoder's strides
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}  # as their authors number them
BOTH = "train and test images together, as in the published figures: both are trained on and scored"
WHICH = {"stl10": "the 13,000 labelled images; ", "cifar20": "the 20 super-classes of CIFAR-100; "}


def canonical_images(spec: str) -> str | None:
    """The listed name behind a spec (`CIFAR-10`, `imagenet10:FOLDER,classes=FILE`) in any case, or None."""
    name = spec.partition(":")[0]
    if "/" in name or name.startswith((".", "~")) or "://" in spec:
        return None
    key = name.strip().lower().replace("-", "").replace("_", "")
    return next((n for n in NAMES if n.replace("-", "") == key), None)


def of_path(path: Path) -> EncodedImages:
    """The images of a Parquet file, of a folder of them, or of a folder of images."""
    return of_parquet(path) if parquet_files(path) else of_folder(path)


def of_name(name: str, parameters: str) -> EncodedImages:
    """The images of a canonical name. Raises SettingsError for missing or needless parameters, DataError."""
    if name in LISTED:
        return _listed(name, parameters)
    if parameters:
        raise SettingsError(f"--dataset {name}:{parameters}: {name} takes no parameters")
    if name == "digits":
        return _digits()
    folder = in_data_folder(name)
    if folder is None:
        return replace(_downloaded(name), classes=CLASSES.get(name))
    images = of_path(folder)
    jpeg = " (JPEG)" if _jpeg(images) else ""  # the original has no losses: figures do not compare to the last digit
    notes = [*images.notes, f"read from {folder}; {BOTH}"]
    return replace(images, name=f"{name}{jpeg}", classes=CLASSES.get(name), notes=notes)


def _jpeg(images: EncodedImages) -> bool:
    first = next(images.sample(), None)
    return (isinstance(first, bytes) and first[:2] == b"\xff\xd8") or (
        isinstance(first, Path) and first.suffix.lower() in (".jpg", ".jpeg")
    )


def _downloaded(name: str) -> EncodedImages:
    path = cache_file(name).with_name(f"{name}-images")
    reason = "" if os.path.isdir(path) else download(name, "arrays", path)
    if reason:
        raise DataError(
            f"{name}: not in {path}, and the download failed ({reason}); put its images into a folder {name} "
            "(Parquet with image and label, or a sub-folder a class) and set TESSERA_DATA to the folder above it, or "
            "give --dataset PATH"
        )
    return of_array(
        name, read_npy(path / "pixels.npy", mapped=True), read_npy(path / "labels.npy"), [WHICH.get(name, "") + BOTH]
    )


def _digits() -> EncodedImages:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(small[..., None], 3, axis=3)
    return replace(of_array("digits", pixels, bunch.target, []), side=DIGITS_SIDE)


def _listed(name: str, parameters: str) -> EncodedImages:
    """Some classes of ImageNet: its folder of class folders, and a file that names them, one a line."""
    folder, _, file = parameters.rpartition(",classes=")
    if not folder or not file:
        raise SettingsError(
            f"--dataset {name}{':' + parameters if parameters else ''}: give ImageNet's folder of class folders and a "
            f"file with the names of the {LISTED[name]} class folders, one a line: {name}:FOLDER,classes=FILE"
        )
    path, home = Path(file).expanduser(), Path(folder).expanduser()
    try:
        lines = [line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:  # of UTF-8, of a path
        reason = getattr(error, "strerror", None) or "is no text"
        raise DataError(f"{path}: cannot be read ({reason}); it names the classes of {name}, one a line") from None
    classes = [line[0] for line in lines if line]
    if len(set(classes)) != LISTED[name] or len(classes) != LISTED[name]:
        raise DataError(f"{path}: names {len(set(classes))} classes in {len(classes)} lines; {name} has {LISTED[name]}")
    if not os.path.isdir(home):
        raise DataError(f"{folder}: no such folder; give ImageNet's folder of class folders")
    missing = [c for c in classes if not os.path.isdir(home / c)]
    if missing:
        raise DataError(f"{home}: has no class folder {missing[0]} ({len(missing)} of {path}'s are missing)")
    return replace(of_folder(home, classes), name=name)
