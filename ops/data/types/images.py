"""Images as a method may see them: pixels, or features computed elsewhere. Labels are never a field here.

Axes: N images, C = 3 channels (red, green, blue), H x W pixels, F features.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.graph import digest_of
from ops.data.types.mapped_file import Mappable


@dataclass(frozen=True)
class ImageSet(Mappable):
    """Images of one size, from `ops.data.images.load.read_images`. Satisfies `ops.data.types.graph.Data`.

    `pixels` is uint8 [N, 3, H, W], C-contiguous, perhaps a read-only memory map; None where there are only features.
    `features` float32 [N, F] come from a backbone of the user's (`--backbone frozen:FILE`), else None; one of the two
    is there. `ids`: names of files or the user's ids. `notes`: what loading changed or noticed, one sentence each.
    `depth`: the bits a channel that the pixels' upper 8 were taken of (8: the images had no more).
    """

    name: str
    pixels: NDArray[np.uint8] | None = None
    features: NDArray[np.float32] | None = None
    ids: NDArray[Any] | None = None
    notes: tuple[str, ...] = field(default=())
    depth: int = 8

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
        arrays = {"features": self.features, "pixels": self.pixels}
        return sum(each.nbytes for name, each in arrays.items() if each is not None and name not in self.mapped)

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
