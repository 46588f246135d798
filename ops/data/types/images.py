"""Images as a method may see them: pixels, or features computed elsewhere. Labels are never a field here.

Axes: N images, C = 3 channels (red, green, blue), H x W pixels, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.graph import digest_of
from ops.data.types.pixel_file import PixelFile


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, from `ops.data.images.load.read_images`. Satisfies `ops.data.types.graph.Data`.

    `pixels` is uint8 [N, 3, H, W], C-contiguous, perhaps a read-only memory map; None where there are only features.
    `features` float32 [N, F] come from a backbone of the user's (`--backbone frozen:FILE`), else None; one of the two
    is there. `ids`: names of files or the user's ids. `notes`: what loading changed or noticed, one sentence each.
    `depth`: the bits a channel that the pixels' upper 8 were taken of (8: the images had no more).
    `file`: how nodes get mapped pixels that do not have their file (`in_pieces`).
    Pickled, mapped pixels are the name of their file, which is mapped where it is read.
    """

    name: str
    pixels: NDArray[np.uint8] | None = None
    features: NDArray[np.float32] | None = None
    ids: NDArray[Any] | None = None
    notes: tuple[str, ...] = field(default=())
    depth: int = 8
    file: PixelFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        file = PixelFile.of(self.pixels)
        return self.__dict__ if file is None else self.__dict__ | {"pixels": self.file or file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pixels = state["pixels"]
        self.__dict__.update(state | ({"pixels": pixels.open()} if isinstance(pixels, PixelFile) else {}))

    def in_pieces(self, put: Callable[[Any], Any], read: Callable[[Any], Any]) -> "ImageSet":
        """The same, whose mapped pixels also nodes get that do not have their file: by `read` of what `put` returns."""
        file = PixelFile.of(self.pixels)
        return self if file is None else replace(self, file=file.in_pieces(put, read))

    @property
    def feature_names(self) -> None:
        """Neither pixels nor features of a backbone have names."""
        return

    @property
    def n_rows(self) -> int:
        """N."""
        return len(self._main)

    @property
    def n_features(self) -> int:
        """F, or 3 H W where there are only pixels."""
        return int(np.prod(self._main.shape[1:]))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W); (0, 0) without pixels."""
        return (0, 0) if self.pixels is None else (self.pixels.shape[2], self.pixels.shape[3])

    @property
    def resident_bytes(self) -> int:
        """What of it is in memory: mapped pixels lie in the page cache, which gives way to everything else."""
        in_memory = [self.features, *([] if PixelFile.of(self.pixels) else [self.pixels])]
        return sum(each.nbytes for each in in_memory if each is not None)

    @property
    def _main(self) -> NDArray[Any]:
        """What a method trains on."""
        main = self.pixels if self.features is None else self.features
        assert main is not None, "an ImageSet has pixels or features"
        return main

    def digest(self) -> str:
        """SHA-256 over what a method trains on, features or pixels; names, ids, notes and labels do not enter."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.pixels if self.features is None else None, self.features)

    def with_notes(self, *notes: str) -> "ImageSet":
        """The same images with more notes."""
        return replace(self, notes=(*self.notes, *notes))
