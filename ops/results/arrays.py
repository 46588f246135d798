"""The arrays that a finished run left for its report, read back and checked: rows to draw, a map, pictures.

All functions raise DataError, in one line, for a file that is damaged.

Axes: n rows, r x c units of a map, k clusters, m images of a cluster, p pairs, s x t pixels, l classes.
"""

import math
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from ops.atomic_io import Arrays, replacing
from ops.errors import DataError

SAMPLE, MORE, PICTURES, ASSIGNMENTS = "figures.npz", "more.npz", "pictures.npz", "assignments.npz"
PARTS_OF = "parts"  # of an npz file: into how many files its rows were written beside it
EPOCHS = "epochs.npz"  # the clusters of every epoch that was scored, to score them by other labels
AGAIN = "the file is damaged, run it again with --fresh"
KINDS = {"float": np.floating, "int": np.integer, "byte": np.uint8, "text": np.str_}
ArrayLayout = Mapping[str, str]  # an array's name -> "KIND AXIS AXIS ...", see `check_arrays`
ROWS = {"before": "float n f", "after": "float n d", "cluster": "int n"}
MORE_ROWS = {"more_rows": "int m", "more_before": "int m 3", "more_after": "int m 3", "more_cluster": "int m"}
MAP = {"map_umatrix": "float r c", "map_hits": "int r*c", "map_unit_clusters": "int r*c", "map_errors": "float 2"}
PARTS: dict[str, ArrayLayout] = {  # of pictures.npz; each may be missing
    "near": {"near": "byte k m 3 s t", "near_count": "int k", "near_cluster": "int k", "near_size": "int k"},
    "pair": {"pair": "byte p 2 3 s t", "pair_cluster": "int p 2", "pair_value": "float p"},
    "confusion": {"confusion": "int l k", "confusion_order": "int k"},
    "classes": {"confusion": "int l k", "classes": "text l"},
}


def read_arrays(path: Path, prefix: str = "", axis: int = 0) -> Arrays:
    """The arrays of an npz file and of its parts (`save_rows`) whose names begin with `prefix`; without a file none.

    Raises DataError where a file is missing or damaged or holds pickled objects.
    """
    arrays = _read(path, prefix, {PARTS_OF})
    parts = [part_path(path, part) for part in range(int(arrays.pop(PARTS_OF, 0)))]
    for each in parts:
        if not each.is_file():
            raise DataError(f"{each}: this part of the results is missing; run it again with --fresh")
    read = [_read(each, prefix) for each in parts]
    return arrays | {name: np.concatenate([each[name] for each in read], axis) for name in (read[0] if read else ())}


def write_table(path: Path, columns: Mapping[str, object]) -> None:
    """Write columns as a Parquet file, whole or not at all. Raises ResourceError on a full disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(columns)), temporary)


def table_path(folder: Path, name: str) -> Path:
    """NAME.parquet in a run's folder, or the folder NAME of its parts."""
    return folder / name if (folder / name).is_dir() else folder / f"{name}.parquet"


def part_path(path: Path, part: int) -> Path:
    """NAME/part-00000.npz beside NAME.npz."""
    return path.with_suffix("") / f"part-{part:05d}{path.suffix}"


def _read(path: Path, prefix: str, also: Collection[str] = ()) -> Arrays:
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files if name.startswith(prefix) or name in also}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is not a readable npz file; {AGAIN}") from error


def check_arrays(path: Path, arrays: Arrays, layout: ArrayLayout) -> None:
    """Check arrays that are each described as "KIND AXIS AXIS ...", e.g. {"after": "float n d"}.

    An axis is a size, a name or a product of names; axes of one name have the same size. Raises DataError for arrays
    that are missing, do not fit each other, or hold NaN or infinity.
    """
    if missing := [name for name in layout if name not in arrays]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; {AGAIN}")
    sizes: dict[str, int] = {}
    for name, description in layout.items():
        kind, *axes = description.split()
        array = arrays[name]
        for axis, size in zip(axes, array.shape, strict=False):
            if axis.isalpha():
                sizes.setdefault(axis, size)
        shape = tuple(math.prod(sizes.get(a, 0) if a.isalpha() else int(a) for a in axis.split("*")) for axis in axes)
        if not np.issubdtype(array.dtype, KINDS[kind]) or array.shape != shape:
            others = ", ".join(f"{axis} = {size}" for axis, size in sizes.items())
            given = f"{name} is {array.dtype} {list(array.shape)}"
            raise DataError(f"{path}: {given}, expected {description}, where {others}; {AGAIN}")
        if kind == "float" and not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds NaN or infinity; it cannot be drawn")


def read_sample(folder: Path) -> Arrays:
    """The rows that are drawn of a seed: ROWS and perhaps `label` [n]; n <= 2,000. Nothing without the file.

    Of larger data also MORE_ROWS, whose three nearest are numbers below n (`ops.results.figure_rows`).
    """
    path = folder / SAMPLE
    arrays = read_arrays(path)
    if not path.is_file():
        return arrays
    labelled, more = "label" in arrays, "more_rows" in arrays
    layout = ROWS | ({"label": "int n"} if labelled else {}) | (MORE_ROWS if more else {})
    check_arrays(path, arrays, layout | ({"more_label": "int m"} if more and labelled else {}))
    n = len(arrays["cluster"])
    if more and any(not ((arrays[name] >= 0) & (arrays[name] < n)).all() for name in ("more_before", "more_after")):
        raise DataError(f"{path}: more_before or more_after names rows that there are not; {AGAIN}")
    return arrays


def read_map(folder: Path) -> Arrays:
    """The map of a seed: mean distances to neighbouring units, rows and cluster of each unit, both errors; or nothing.

    The errors are the quantisation error and the topographic error.
    """
    path = folder / MORE
    arrays = _read(path, "map_")  # in parts are other arrays
    if arrays:
        check_arrays(path, arrays, MAP)
    return arrays


def read_pictures(run: Path) -> Arrays:
    """The pictures of a run: `seed` and what there is of PARTS; nothing without the file."""
    path = run / PICTURES
    arrays = read_arrays(path)
    if path.is_file():
        check_arrays(path, arrays, {"seed": "int"})
    for name, layout in PARTS.items():
        if name in arrays:
            check_arrays(path, arrays, layout)
    return arrays


def seed_arrays(folder: Path) -> Arrays:
    """A finished seed's last clusters and confidence and, where there are any, its embeddings and other arrays."""
    return read_arrays(folder / MORE) | read_arrays(folder / ASSIGNMENTS)
