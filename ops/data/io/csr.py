"""Sparse matrices (CSR) that come from files, checked before SciPy or a compiled loop goes through them.

Neither looks where an entry points: one that is out of range reads or writes memory that is not the array's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError


def check_csr(origin: str, indptr: NDArray[Any], indices: NDArray[Any], shape: tuple[int, int]) -> None:
    """DataError, beginning with `origin`, unless row i of `shape` [N, F] is indices[indptr[i] : indptr[i + 1]].

    That is: `indptr` [N + 1] begins with 0, never falls, ends with the number of indices; `indices` are in 0..F - 1.
    """
    _check_whole(origin, "indices", indices)
    rows, columns = shape
    if rows < 0 or columns < 0:
        raise DataError(f"{origin}: a CSR matrix of {rows} x {columns}; sizes must be 0 or more")
    if indptr.shape != (rows + 1,):
        raise DataError(f"{origin}: CSR indptr must have {rows + 1} entries for {rows} rows, found {indptr.shape}")
    check_offsets(origin, "CSR indptr", indptr, indices.size)
    if indices.size:
        low, high = int(indices.min()), int(indices.max())
        if low < 0 or high >= columns:
            raise DataError(f"{origin}: CSR column {low if low < 0 else high} is not in 0..{columns - 1}")


def check_offsets(origin: str, what: str, offsets: NDArray[Any], count: int) -> None:
    """DataError unless `offsets` [N + 1] cut `count` entries into N ranges: 0 first, never falling, `count` last."""
    _check_whole(origin, what, offsets)
    if not offsets.size or int(offsets[0]) != 0:
        raise DataError(f"{origin}: {what} must begin with 0, found {offsets[:1].tolist()}")
    low, high = int(offsets.min()), int(offsets.max())
    if low < 0 or high > count:
        raise DataError(f"{origin}: {what} holds {low if low < 0 else high}; its entries must be in 0..{count}")
    falls = offsets[1:] < offsets[:-1]  # the difference of two entries may wrap
    if falls.any():
        at = int(falls.argmax())
        raise DataError(f"{origin}: {what} falls from {offsets[at]} to {offsets[at + 1]} in row {at}; it must not fall")
    if int(offsets[-1]) != count:
        raise DataError(f"{origin}: {what} must end with {count}, the number of entries, found {offsets[-1]}")


def _check_whole(origin: str, what: str, array: NDArray[Any]) -> None:
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        name = what.removeprefix("CSR ")
        raise DataError(f"{origin}: the CSR array {name} must be whole numbers [n], found {array.dtype} {array.shape}")
