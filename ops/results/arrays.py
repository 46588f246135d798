"""The arrays that a finished run left for its report, read back and checked: rows to draw, a map, pictures.

Axes: n rows, r x c units of a map, k clusters, m images of a cluster, p pairs, s x t pixels, l classes.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError

SAMPLE, MORE, PICTURES, ASSIGNMENTS = "figures.npz", "more.npz", "pictures.npz", "assignments.npz"
AGAIN = "the file is damaged, run it again with --fresh"
KINDS = {"float": np.floating, "int": np.integer, "byte": np.uint8, "text": np.str_}
MAP = {"map_umatrix": "float r c", "map_hits": "int units", "map_unit_clusters": "int units", "map_errors": "float 2"}
PARTS = {  # of pictures.npz; each may be missing
    "near": {"near": "byte k m 3 s t", "near_count": "int k", "near_cluster": "int k", "near_size": "int k"},
    "pair": {"pair": "byte p 2 3 s t", "pair_cluster": "int p 2", "pair_value": "float p"},
    "confusion": {"confusion": "int l k", "confusion_order": "int k"},
    "classes": {"confusion": "int l k", "classes": "text l"},
}


@dataclass(frozen=True)
class Sample:
    """The rows that are drawn: before [n, <= 50], after [n, D], cluster [n], label [n] or None; n <= 2,000."""

    before: NDArray[np.floating[Any]]
    after: NDArray[np.floating[Any]]
    cluster: NDArray[np.int64]
    label: NDArray[np.int64] | None
    folder: Path


def read_arrays(path: Path, prefix: str = "") -> dict[str, NDArray[Any]]:
    """The arrays of an npz file whose names begin with `prefix`; none where there is no file.

    Raises DataError where the file is damaged or holds pickled objects.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name.startswith(prefix)}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a readable npz file; {AGAIN}") from error


def check_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, str]) -> None:
    """Check arrays that are each described as "KIND AXIS AXIS ...", e.g. {"after": "float n d"}.

    An axis is a size or a name; axes of one name have the same size. Raises DataError for arrays that are missing,
    do not fit each other, or hold NaN or infinity.
    """
    if missing := [name for name in expected if name not in arrays]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; {AGAIN}")
    sizes: dict[str, int] = {}
    for name, description in expected.items():
        kind, *axes = description.split()
        array = arrays[name]
        pairs = zip(axes, array.shape, strict=False)
        shape = [int(axis) if axis.isdigit() else sizes.setdefault(axis, size) for axis, size in pairs]
        if not np.issubdtype(array.dtype, KINDS[kind]) or array.ndim != len(axes) or shape != list(array.shape):
            others = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
            given = f"{name} is {array.dtype} {list(array.shape)}"
            raise DataError(f"{path}: {given}, expected {description}, where {others}; {AGAIN}")
        if kind == "float" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds NaN or infinity; it cannot be drawn")


def read_sample(folder: Path) -> Sample | None:
    """figures.npz of a seed's folder, None where there is none. Raises DataError when it is damaged."""
    path = folder / SAMPLE
    if not path.is_file():
        return None
    arrays = read_arrays(path)
    expected = {"before": "float n f", "after": "float n d", "cluster": "int n"}
    check_arrays(path, arrays, expected | ({"label": "int n"} if "label" in arrays else {}))
    return Sample(arrays["before"], arrays["after"], arrays["cluster"], arrays.get("label"), folder)


def read_map(path: Path, seed: int) -> dict[str, NDArray[Any]]:
    """The map in a seed's more.npz: `umatrix`, `hits`, `clusters` [r, c], `errors` [2] and the `seed`; or nothing.

    `umatrix` holds mean distances to neighbouring units, `hits` the rows of each unit, `errors` the quantisation and
    the topographic error. Raises DataError when the file is damaged.
    """
    arrays = read_arrays(path, "map_")
    if not arrays:
        return {}
    check_arrays(path, arrays, MAP)
    umatrix, hits, clusters, errors = (arrays[name] for name in MAP)
    if umatrix.size != hits.size:
        raise DataError(f"{path}: map_hits has {hits.size} units, map_umatrix {list(umatrix.shape)}; {AGAIN}")
    grid = umatrix.shape
    return {"umatrix": umatrix, "hits": hits.reshape(grid), "clusters": clusters.reshape(grid), "errors": errors,
            "seed": np.array(seed)}  # fmt: skip


def read_pictures(path: Path) -> dict[str, NDArray[Any]]:
    """pictures.npz of a run: `seed` and what there is of PARTS; nothing without the file. DataError when damaged."""
    arrays = read_arrays(path)
    for name, expected in PARTS.items():
        if name in arrays:
            check_arrays(path, arrays, expected)
    if path.is_file():
        check_arrays(path, arrays, {"seed": "int"})
    return arrays


def seed_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """A finished seed's last clusters and confidence and, where there are any, its embeddings and other arrays."""
    return read_arrays(folder / MORE) | read_arrays(folder / ASSIGNMENTS)
