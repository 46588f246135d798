"""Arrays in files, as processes hand them to each other: by name, and on other nodes out of Ray's object store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.atomic_io import locked, replacing, unwritable
from ops.errors import DataError

M = TypeVar("M", bound="Mappable")
PIECE = 64 << 20  # bytes of a piece in the object store
IN_MEMORY = 8 << 20  # bytes up to which an array is not worth a file


@dataclass(frozen=True)
class MappedFile:
    """Where an array lies, row after row. Nodes without the file get its bytes by `read` of each of the `pieces`.

    `mode`: the map is read-only ("r"), or what is written to it stays in the process ("c"), as of an array in memory.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    mode: Literal["r", "c"] = "r"
    pieces: tuple[Any, ...] = ()
    read: Callable[[Any], Any] | None = None

    @classmethod
    def of(cls, array: object) -> MappedFile | None:
        """The file that `array` is a map of, None for one in memory, for a part of a file and for anything else."""
        file = array.base if isinstance(array, np.ndarray) else None
        if not isinstance(array, np.ndarray) or not isinstance(file, np.memmap) or file.offset:
            return None
        whole = file.nbytes == array.nbytes and file.dtype == array.dtype and array.flags.c_contiguous
        mode: Literal["r", "c"] = "c" if file.mode == "c" else "r"
        return cls(Path(str(file.filename)), array.shape, array.dtype.str, mode) if whole else None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is there."""
        size = prod(self.shape) * np.dtype(self.dtype).itemsize
        return self.path.is_file() and self.path.stat().st_size == size

    def in_pieces(self, put: Callable[[Any], Any], read: Callable[[Any], Any]) -> MappedFile:
        """The same, with what `put` returns of each piece."""
        return replace(self, pieces=tuple(put(piece) for piece in _pieces(self.open())), read=read)

    def open(self) -> NDArray[Any]:
        """The array, mapped. A file that is missing here is first written of the pieces; of several processes one
        writes and the others wait.

        Raises DataError where there are no pieces either, ResourceError on a full disk, SettingsError where the folder
        cannot be written.
        """
        if not self.is_whole:
            if self.read is None:
                raise DataError(
                    f"{self.path}: this node does not have the data that were read, or not all of them; "
                    "set TESSERA_CACHE to a folder that all nodes share"
                )
            self.write(memoryview(self.read(piece)) for piece in self.pieces)
        return np.memmap(self.path, self.dtype, self.mode, shape=self.shape).view(np.ndarray)

    def write(self, content: Iterable[memoryview]) -> None:
        """Write the bytes, unless the file is there. Raises ResourceError on a full disk, SettingsError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path.with_suffix(".lock")):  # as whoever decodes images to it
                if not self.is_whole:
                    with replacing(self.path) as temporary, temporary.open("wb") as file:
                        file.writelines(content)
        except OSError as error:
            raise unwritable(self.path, error, "set TESSERA_CACHE to another folder") from None


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """The bytes of an array, at most PIECE at a time."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for at in range(0, len(content), PIECE):
        yield np.asarray(content[at : at + PIECE])
        memory.release(array)


@dataclass(frozen=True)
class Mappable:
    """Data that is pickled with the names of the files that its arrays are maps of; they are mapped where it is read.

    `files`: how nodes get those that do not have them (`in_pieces`).
    """

    files: dict[str, MappedFile] = field(default_factory=dict, kw_only=True)

    @property
    def mapped(self) -> dict[str, MappedFile]:
        """The files of those fields that are maps."""
        found = {name: MappedFile.of(value) for name, value in vars(self).items()}
        return {name: self.files.get(name, file) for name, file in found.items() if file is not None}

    def in_pieces(self: M, put: Callable[[Any], Any], read: Callable[[Any], Any]) -> M:
        """The same, whose mapped arrays also nodes get that do not have the files: by `read` of what `put` returns."""
        return replace(self, files={name: file.in_pieces(put, read) for name, file in self.mapped.items()})

    def in_files(self: M, folder: Path, least: int = IN_MEMORY) -> M:
        """The same, whose arrays of at least `least` bytes are maps of files: what is in memory is written to files of
        `folder`, named by their content.

        Raises ResourceError on a full disk, SettingsError where the folder cannot be written.
        """
        maps: dict[str, Any] = {}
        for name, array in vars(self).items():
            if not isinstance(array, np.ndarray) or array.nbytes < max(least, 1) or MappedFile.of(array):
                continue
            content = hashlib.sha256()
            for piece in _pieces(array):
                content.update(piece.data)
            file = MappedFile(folder / f"{content.hexdigest()[:16]}.{name}", array.shape, array.dtype.str, "c")
            file.write(piece.data for piece in _pieces(array))
            maps[name] = file.open()
        return replace(self, **maps)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | self.mapped

    def __setstate__(self, state: dict[str, Any]) -> None:
        opened = ((name, value.open() if isinstance(value, MappedFile) else value) for name, value in state.items())
        self.__dict__.update(opened)


def is_mapped(data: object) -> bool:
    """Whether arrays of the data are maps of files."""
    return isinstance(data, Mappable) and bool(data.mapped)
