"""The pictures that a finished run on images left, read back and checked: the report's only input of them."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError

PICTURES = "pictures.npz"


@dataclass(frozen=True)
class Near:
    """Images [K M 3 S S] nearest to the centres of clusters [K], of which `count` [K] are real; all clusters' sizes."""

    images: NDArray[np.uint8]
    count: NDArray[np.int64]
    cluster: NDArray[np.int64]
    size: NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """Pairs of images [P 2 3 S S], their clusters [P 2], and their distances [P]."""

    images: NDArray[np.uint8]
    cluster: NDArray[np.int64]
    value: NDArray[np.float32]


@dataclass(frozen=True)
class Confusion:
    """Counts [L K] of classes in clusters; the clusters of the columns, and the classes' names or numbers."""

    table: NDArray[np.int64]
    order: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class StoredPictures:
    """What pictures.npz holds, of one seed; each part may be missing."""

    seed: int
    near: Near | None
    pairs: Pairs | None
    confusion: Confusion | None


def read_pictures(path: Path) -> StoredPictures | None:
    """pictures.npz of a run, None where there is none; raises DataError when it is damaged."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays: dict[str, Any] = {name: stored[name] for name in stored.files}
        near = pairs = table = None
        if "near" in arrays:
            near = Near(arrays["near"], arrays["near_count"], arrays["near_cluster"], arrays["near_size"])
        if "pair" in arrays:
            pairs = Pairs(arrays["pair"], arrays["pair_cluster"], arrays["pair_value"])
        if "confusion" in arrays:
            counts = arrays["confusion"]
            names = arrays.get("classes", np.arange(len(counts)))
            table = Confusion(counts, arrays["confusion_order"], tuple(str(n) for n in names))
        return StoredPictures(int(arrays["seed"]), near, pairs, table)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is not readable; the file is damaged, run it again with --fresh") from error
