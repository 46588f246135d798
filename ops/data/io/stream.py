"""A feature table in pieces, so that memory does not grow with its rows: .csv, .parquet or .npy without edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.chunks import read_table
from ops.data.io.ids import check_unique, joined_ids
from ops.data.io.readers import map_npy
from ops.data.io.tables import feature_chunks, split_features
from ops.data.io.validate import check_features
from ops.data.types.hetero import Ids
from ops.errors import DataError


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
        self.n_rows, parts = 0, []
        for _, x, _, ids in self._raw():
            self.n_rows += len(x)
            parts += [] if ids is None else [ids]
        if not self.n_rows:
            raise DataError(f"{path}: has no rows; at least one is needed")
        self.ids: Ids | None = joined_ids(parts) if parts else None
        if self.ids is not None:
            check_unique(self.ids, lambda row: f"{path}, row {row}", hint="ids must differ")

    def pieces(self) -> Iterator[Piece]:
        """The rows in order, at most `batch_rows` at a time. Raises DataError for values that are no finite numbers."""
        for first, x, names, _ in self._raw():
            yield Piece(first, check_features(x, feature_names=names, origin=str(self.path), first_row=first), names)

    def _raw(self) -> Iterator[tuple[int, NDArray[Any], tuple[str, ...] | None, Ids | None]]:
        """(first row, features as they are, names, ids) of each piece."""
        if self.path.suffix.lower() == ".npy":
            yield from self._npy()
            return
        first = 0
        for chunk in feature_chunks(self.path):
            table = read_table(chunk)
            for row in range(0, table.num_rows, self.batch_rows):
                x, ids, _ = split_features(chunk, table.slice(row, self.batch_rows), row)
                yield first + row, x, chunk.header.features, ids
            first += table.num_rows

    def _npy(self) -> Iterator[tuple[int, NDArray[Any], None, None]]:
        shape = map_npy(self.path).shape
        if len(shape) != 2:
            raise DataError(f"{self.path}: features must be a table [N, F], found shape {shape}")
        for first in range(0, shape[0], self.batch_rows):
            # mapped anew each time: pages that were read would count as this process's until the map is gone
            yield first, np.array(map_npy(self.path)[first : first + self.batch_rows]), None, None
