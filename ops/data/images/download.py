"""python -m ops.data.images.download NAME FOLDER: torchvision's data set as pixels.npy and labels.npy in FOLDER/made.

Only this module touches torchvision's data sets, and only in a process of its own; they check what they download.
Axes: N images, H x W pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MADE = "made"
# The super-classes of CIFAR-100 and their classes, as Krizhevsky's page lists them
SUPER = (
    "beaver dolphin otter seal whale",
    "aquarium_fish flatfish ray shark trout",
    "orchid poppy rose sunflower tulip",
    "bottle bowl can cup plate",
    "apple mushroom orange pear sweet_pepper",
    "clock keyboard lamp telephone television",
    "bed chair couch table wardrobe",
    "bee beetle butterfly caterpillar cockroach",
    "bear leopard lion tiger wolf",
    "bridge castle house road skyscraper",
    "cloud forest mountain plain sea",
    "camel cattle chimpanzee elephant kangaroo",
    "fox porcupine possum raccoon skunk",
    "crab lobster snail spider worm",
    "baby boy girl man woman",
    "crocodile dinosaur lizard snake turtle",
    "hamster mouse rabbit shrew squirrel",
    "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "bicycle bus motorcycle pickup_truck train",
    "lawn_mower rocket streetcar tank tractor",
)


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
    (folder / MADE).mkdir()
    np.save(folder / MADE / "pixels.npy", pixels)
    np.save(folder / MADE / "labels.npy", labels)


def to_arrays(name: str, parts: list[Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Train and test of torchvision's data set together; CIFAR-100's labels as those of its 20 super-classes."""
    pixels = np.concatenate([p.data for p in parts])
    labels = np.concatenate([np.asarray(p.labels if name == "stl10" else p.targets) for p in parts]).astype(np.int64)
    if name == "stl10":
        pixels = pixels.transpose(0, 2, 3, 1)
    if name == "cifar20":
        above = {word: number for number, words in enumerate(SUPER) for word in words.split()}
        labels = np.array([above[word] for word in parts[0].classes])[labels]
    return np.ascontiguousarray(pixels), labels


if __name__ == "__main__":
    try:
        fetch(sys.argv[1], Path(sys.argv[2]))
    # the caller prints one line whatever happens; the class tells a refused connection from a changed file
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
