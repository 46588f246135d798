"""python -m ops.data.images.download NAME FOLDER: torchvision's data set as pixels.npy, labels.npy in FOLDER/arrays.

Only this module touches torchvision's data sets, and only in a process of its own; they check what they download.
Axes: N images, H x W pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAYS = "arrays"
# The super-class (0..19) of each of CIFAR-100's classes (0..99, in the alphabet's order), as Krizhevsky's page has them
SUPER = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15, 3, 15, 0, 11, 1, 10,
    12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16,
    12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14,
    13,
)  # fmt: skip


def fetch(name: str, folder: Path) -> None:
    """Download into FOLDER/files and write both arrays: pixels uint8 [N, H, W, 3], labels int64 [N]."""
    from torchvision import datasets

    root = str(folder / "files")
    if name == "stl10":
        parts = [datasets.STL10(root, split=s, download=True) for s in ("train", "test")]
    else:
        kind = {"cifar10": datasets.CIFAR10, "cifar20": datasets.CIFAR100}[name]
        parts = [kind(root, train=t, download=True) for t in (True, False)]
    pixels, labels = to_arrays(name, parts)
    (folder / ARRAYS).mkdir()
    np.save(folder / ARRAYS / "pixels.npy", pixels)
    np.save(folder / ARRAYS / "labels.npy", labels)


def to_arrays(name: str, parts: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Train and test of torchvision's data set together; CIFAR-100's labels as those of its 20 super-classes."""
    pixels = np.concatenate([p.data for p in parts])
    labels = np.concatenate([np.asarray(p.labels if name == "stl10" else p.targets) for p in parts]).astype(np.int64)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), np.array(SUPER, np.int64)[labels] if name == "cifar20" else labels


if __name__ == "__main__":
    try:
        fetch(sys.argv[1], Path(sys.argv[2]))
    # the caller prints one line whatever happens; the class tells a refused connection from a changed file
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
