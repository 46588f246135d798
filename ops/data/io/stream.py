"""A feature table in pieces, so that memory does not grow with its rows: .csv, .parquet or .npy without edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.readers import check_kind, read_table_by, reading
from ops.data.io.tables import split_table
from ops.data.io.validate import as_keys, check_features, check_ids
from ops.errors import DataError

_Raw = tuple[int, NDArray[Any], tuple[str, ...] | None, NDArray[Any] | None]  # first row, x unchecked, names, ids


@dataclass(frozen=True)
class Piece:
    """Rows `first`, `first` + 1, ... of a table: x float32 [n, F], finite; names of its columns where it has them."""

    first: int
    x: NDArray[np.float32]
    feature_names: tuple[str, ...] | None


class TableStream:
    """One pass counts the rows and checks their ids; then `pieces` gives the features, as often as it is asked."""

    def __init__(self, path: Path, batch_rows: int) -> None:
        """Raises DataError for what is no table, has no rows, or whose ids are missing or repeated."""
        self.path, self.batch_rows = path, batch_rows
        self.n_rows, found = 0, []
        for _, x, _, ids in self._raw():
            self.n_rows += len(x)
            if ids is not None:
                found.append(ids)
        if not self.n_rows:
            raise DataError(f"{path}: has no rows; at least one is needed")
        self.ids: NDArray[Any] | None = None
        if found:
            if len({ids.dtype.kind for ids in found}) > 1:  # words among numbers: all of them are words
                found = [ids.astype(np.str_) for ids in found]
            self.ids = check_ids(np.concatenate(found), self.n_rows, origin=str(path))

    def pieces(self) -> Iterator[Piece]:
        """The rows in order, at most `batch_rows` at a time. Raises DataError for values that are no finite numbers."""
        for first, x, names, _ in self._raw():
            origin = f"{self.path} from row {first} on" if first else str(self.path)
            yield Piece(first, check_features(x, feature_names=names, origin=origin), names)

    def _raw(self) -> Iterator[_Raw]:
        if self.path.suffix.lower() == ".npy":
            yield from self._npy()
            return
        first = 0
        for table in read_table_by(self.path, self.batch_rows):
            split = split_table(self.path, table)
            ids = None if split.ids is None else as_keys(split.ids)
            yield first, split.x, tuple(split.feature_names), ids
            first += len(split.x)

    def _npy(self) -> Iterator[_Raw]:
        check_kind(self.path)
        shape = self._map().shape
        if len(shape) != 2:
            raise DataError(f"{self.path}: features must be a table [N, F], found shape {shape}")
        for first in range(0, shape[0], self.batch_rows):
            # mapped anew each time: pages that were read would count as this process's until the map is gone
            yield first, np.array(self._map()[first : first + self.batch_rows]), None, None

    def _map(self) -> NDArray[Any]:
        with reading(self.path):
            array: NDArray[Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return array
