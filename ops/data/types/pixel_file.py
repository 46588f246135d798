"""A file of pixels as processes hand it to each other: by name, and on other nodes out of Ray's object store.

Axes: N images, C = 3 channels, H x W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import locked, replacing, unwritable
from ops.errors import DataError

PIECE = 64 << 20  # bytes of a piece in the object store


@dataclass(frozen=True)
class PixelFile:
    """Where pixels uint8 [N, 3, H, W] lie. Nodes without the file get its bytes by `read` of each of the `pieces`."""

    path: Path
    shape: tuple[int, ...]
    pieces: tuple[Any, ...] = ()
    read: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, pixels: NDArray[np.uint8] | None) -> "PixelFile | None":
        """The file that `pixels` are a map of, None for pixels in memory and for a part of a file."""
        file = None if pixels is None else pixels.base
        if pixels is None or not isinstance(file, np.memmap) or file.nbytes != pixels.nbytes:
            return None
        return cls(Path(str(file.filename)), pixels.shape) if pixels.flags.c_contiguous else None

    @property
    def is_whole(self) -> bool:
        """Whether all pixels are there."""
        return self.path.is_file() and self.path.stat().st_size == prod(self.shape)

    def in_pieces(self, put: Callable[[Any], Any], read: Callable[[Any], Any]) -> "PixelFile":
        """The same, with what `put` returns of each piece."""
        content = self.open().reshape(-1)
        pieces = (put(np.asarray(content[at : at + PIECE])) for at in range(0, len(content), PIECE))
        return PixelFile(self.path, self.shape, tuple(pieces), read)

    def open(self) -> NDArray[np.uint8]:
        """The pixels, mapped. A file that is missing here is first written of the pieces; of several processes one
        writes and the others wait.

        Raises DataError where there are no pieces either, ResourceError on a full disk, SettingsError where the folder
        cannot be written.
        """
        if not self.is_whole:
            if self.read is None:
                raise DataError(
                    f"{self.path}: this node does not have the decoded images, or not all of them; "
                    "set TESSERA_CACHE to a folder that all nodes share"
                )
            self._write(self.read)
        return np.memmap(self.path, np.uint8, "r", shape=self.shape).view(np.ndarray)

    def _write(self, read: Callable[[Any], Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):
                if not self.is_whole:
                    with replacing(self.path) as temporary, temporary.open("wb") as file:
                        for piece in self.pieces:
                            file.write(memoryview(read(piece)))
        except OSError as error:
            raise unwritable(self.path, error) from None
