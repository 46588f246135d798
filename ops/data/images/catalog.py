"""Image data sets by name: a folder in TESSERA_DATA, then the cache, then torchvision's download into the cache.

Published figures on these are of train and test images together, as here. The downloading runs in a process of its
own (`ops.data.images.download`): torchvision reads CIFAR's files by pickle, which this process never does.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ops.data.catalog.graphs import fetch_apart
from ops.data.images.sources import Pile, of_array, of_folder, of_parquet, parquet_files
from ops.data.io.readers import cache_file, read_npy
from ops.errors import DataError, SettingsError

log = logging.getLogger(__name__)

FETCHED = ("cifar10", "cifar20", "stl10")
LISTED = {"imagenet10": 10, "imagenet-dogs": 15}  # whose classes a file of the user's names
NAMES = (*FETCHED, *LISTED, "digits")
DIGITS_SIDE = 16  # 8 x 8 pixels are too few for an encoder's strides
CLASSES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "stl10": ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
}  # as their authors number them
BOTH = "train and test images together, as in the published figures: both are trained on and scored"


def canonical_images(spec: str) -> str | None:
    """The known name behind a spec (`CIFAR-10`, `imagenet10:FOLDER,classes=FILE`) in any case, or None."""
    name = spec.partition(":")[0]
    if "/" in name or name.startswith((".", "~")) or "://" in spec:
        return None
    key = name.strip().lower().replace("-", "").replace("_", "")
    return next((n for n in NAMES if n.replace("-", "") == key), None)


def parameters(spec: str) -> str:
    """What stands behind the name's colon."""
    return spec.partition(":")[2]


def own_folder(name: str) -> Path | None:
    """The folder NAME in TESSERA_DATA if that is set and has it; DataError where TESSERA_DATA is no folder."""
    home = os.environ.get("TESSERA_DATA", "")
    if not home or not name or "/" in name:
        return None
    if not os.path.isdir(os.path.expanduser(home)):
        raise DataError(f"TESSERA_DATA={home}: no such folder")
    path = Path(home).expanduser() / name
    return path if os.path.isdir(path) else None  # not path.is_dir(): it raises for a name that is too long


def of_name(name: str, given: str) -> Pile:
    """The images of a canonical name. Raises SettingsError for missing or needless parameters, DataError."""
    if name in LISTED:
        return _listed(name, given)
    if given:
        raise SettingsError(f"--dataset {name}:{given}: {name} takes no parameters")
    if name == "digits":
        return _digits()
    folder = own_folder(name)
    if folder is not None:
        pile = of_parquet(folder) if parquet_files(folder) else of_folder(folder)
        jpeg = " (JPEG)" if _jpeg(pile) else ""  # the original has no losses: figures do not compare to the last digit
        return replace(
            pile, name=f"{name}{jpeg}", classes=CLASSES.get(name), notes=[*pile.notes, f"read from {folder}; {BOTH}"]
        )
    return _downloaded(name)


def _jpeg(pile: Pile) -> bool:
    first = next(pile.sample(), None)
    return (isinstance(first, bytes) and first[:2] == b"\xff\xd8") or (
        isinstance(first, Path) and first.suffix.lower() in (".jpg", ".jpeg")
    )


def _downloaded(name: str) -> Pile:
    path = cache_file(name).with_name(f"{name}-images")
    if not path.is_dir():
        _fetch(name, path)
    pixels = read_npy(path / "pixels.npy")
    words = {"stl10": "the 13,000 labelled images", "cifar20": "the 20 super-classes of CIFAR-100"}
    notes = ["; ".join(filter(None, (words.get(name), BOTH)))]
    return replace(of_array(name, pixels, read_npy(path / "labels.npy"), notes), classes=CLASSES.get(name))


def _fetch(name: str, path: Path) -> None:
    log.info("downloading %s to %s", name, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as folder:
            reason = fetch_apart("ops.data.images.download", name, Path(folder), "made/labels.npy")
            if not reason:
                _moved(Path(folder) / "made", path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set TESSERA_CACHE to another folder") from error
    if reason:
        raise DataError(
            f"{name}: not in {path}, and the download failed ({reason}); put its images into a folder {name} "
            "(Parquet with image and label, or a sub-folder a class) and set TESSERA_DATA to the folder above it, or "
            "give --dataset PATH"
        )


def _moved(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError:
        if not path.is_dir():  # else another start was faster
            raise


def _digits() -> Pile:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(small[..., None], 3, axis=3)
    return replace(of_array("digits", pixels, bunch.target, []), side=DIGITS_SIDE)


def _listed(name: str, given: str) -> Pile:
    """Some classes of ImageNet: its folder of class folders, and a file that names them, one a line."""
    folder, found, file = given.rpartition(",classes=")
    if not found or not folder or not file:
        raise SettingsError(
            f"--dataset {name}{':' + given if given else ''}: give ImageNet's folder of class folders and a file with "
            f"the names of the {LISTED[name]} class folders, one a line: {name}:FOLDER,classes=FILE"
        )
    path = Path(file).expanduser()
    try:
        lines = [line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise DataError(f"{path}: cannot be read ({reason}); it names the classes of {name}, one a line") from None
    classes = [line[0] for line in lines if line]
    if len(set(classes)) != LISTED[name] or len(classes) != LISTED[name]:
        raise DataError(f"{path}: names {len(set(classes))} classes in {len(classes)} lines; {name} has {LISTED[name]}")
    home = Path(folder).expanduser()
    if not home.is_dir():
        raise DataError(f"{folder}: no such folder; give ImageNet's folder of class folders")
    missing = [c for c in classes if not (home / c).is_dir()]
    if missing:
        raise DataError(f"{home}: has no class folder {missing[0]} ({len(missing)} of {path}'s are missing)")
    return replace(of_folder(home, classes), name=name)
