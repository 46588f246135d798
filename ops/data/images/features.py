"""Features of images by a backbone of the user's (`--backbone frozen:FILE`): a table beside images, or alone.

Axes: N images of the data set, n rows that are not damaged, F features.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.images.sources import images_copy
from ops.data.io.builder import Raw
from ops.data.io.ids import check_unique, find_rows, ids_of, unchunked
from ops.data.io.labels import label_values
from ops.data.io.readers import read_npy, reading
from ops.data.io.tables import feature_table
from ops.data.io.validate import check_features
from ops.data.types.images import ImageSet
from ops.errors import DataError, SettingsError
from ops.storage.object_store import is_s3

FROZEN = "frozen:"
TABLES = (".npy", ".parquet", ".csv")


def features_file(backbone: str) -> str | None:
    """FILE of frozen:FILE, None for a backbone that is trained. Raises SettingsError where it is missing."""
    if not backbone.startswith(FROZEN):
        return None
    if backbone == FROZEN:
        raise SettingsError(f"--backbone {backbone}: give a file of features: frozen:FILE (.npy, .parquet or .csv)")
    return backbone.removeprefix(FROZEN)


def feature_set(spec: str, path: Path, table: str) -> tuple[ImageSet, NDArray[Any] | None]:
    """A feature table as the data set itself, and its labels; it must be the one that the backbone names."""
    named = Path(os.path.expanduser(table))
    if not (spec == table if is_s3(table) or is_s3(spec) else os.path.exists(named) and named.samefile(path)):
        raise DataError(f"{path}: is a table of features, but --backbone names {table}; give the images or that table")
    raw = _read(path, str(path))
    return ImageSet(raw.name, None, raw.x, raw.ids, tuple(raw.notes)), raw.labels


def with_features(data: ImageSet, table: str, rows: NDArray[np.int64], n_images: int) -> ImageSet:
    """The images with their features: in the same order, or matched by id where both have ids.

    The features may be those of all `n_images` images, or of the `rows` [n] alone that are not damaged.
    """
    raw = _read(images_copy(table, True) if is_s3(table) else Path(os.path.expanduser(table)), table)
    if raw.ids is not None and data.ids is not None:
        at = find_rows(data.ids, raw.ids)
        if (at < 0).any():
            raise DataError(f"{table}: has no row with the id {str(data.ids[at < 0][0])!r}; give one row an image")
    elif len(raw.x) in (data.n_rows, n_images):
        at = np.arange(data.n_rows) if len(raw.x) == data.n_rows else rows
    else:
        raise DataError(f"{table}: {len(raw.x):,} rows of features for {data.n_rows:,} images; give one row an image")
    return replace(data, features=np.ascontiguousarray(raw.x[at])).with_notes(
        f"features of {raw.x.shape[1]} values an image from {table}"
    )


def _read(path: Path, origin: str) -> Raw:
    """A table with its features and ids checked. Raises DataError."""
    if path.suffix.lower() not in TABLES:
        raise DataError(f"{path}: features are read from {', '.join(TABLES)}")
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.ndim != 2:
            raise DataError(f"{path}: features must have two dimensions (images, features), found {array.shape}")
        return Raw(path.stem, origin, check_features(array, origin=origin))
    table = (_vectors(path) if path.suffix.lower() == ".parquet" else None) or feature_table(path)
    return replace(table, origin=origin, x=check_features(table.x, feature_names=table.feature_names, origin=origin))


def _vectors(path: Path) -> Raw | None:
    """A Parquet table whose features are one column of lists, beside `id` and `label`; None where no column is.

    Raises DataError for several such columns, or lists of different lengths.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def at(row: int) -> str:
        return f"{path}, row {row}"

    with reading(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        lists = [f.name for f in schema if pa.types.is_list(f.type) or pa.types.is_fixed_size_list(f.type)]
        if not lists:
            return None
        if len(lists) > 1:
            raise DataError(f"{path}: has several columns of vectors ({', '.join(lists)}); leave the one to train on")
        memory.check_load(
            2 * sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)), at(0)
        )
        beside = [name for name in ("id", "label") if name in schema.names]
        table = file.read(columns=[*beside, lists[0]])
        vectors = unchunked(table.column(lists[0]))
        lengths = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy()
        if not lengths.all() or (lengths != lengths[0]).any():
            row = int(np.argmax((lengths == 0) | (lengths != lengths[0])))
            raise DataError(f"{at(row)}: the vector in {lists[0]!r} has {lengths[row]} values, that of row 0 "
                            f"{lengths[0]}; give all the same number")  # fmt: skip
        x = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
        ids = ids_of(table.column("id"), at) if "id" in beside else None
        labels = label_values(table.column("label"), at) if "label" in beside else None
    if ids is not None:
        check_unique(ids, at)
    return Raw(path.stem, str(path), x, labels=labels, ids=ids)
