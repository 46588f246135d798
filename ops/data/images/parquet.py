"""Images in Parquet files: a column of encoded images, perhaps with labels and ids beside it.

Axes: N images.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.images.cache import stamp
from ops.data.images.decode import Encoded
from ops.data.images.sources import BLOCK, HIDDEN, SAMPLE, EncodedImages
from ops.data.io.readers import check_kind, reading
from ops.errors import DataError

COLUMNS = ("image", "img")


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at `path`, a file or a folder; [] where there are none."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    with reading(path):
        files = (p for p in path.rglob("*.parquet") if p.is_file())
        return sorted(p for p in files if not any(part.startswith(HIDDEN) for part in p.relative_to(path).parts))


def image_column(path: Path) -> str | None:
    """The column of a Parquet file that holds encoded images, None where it has no such column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_kind(path)
    with reading(path):
        schema = pq.read_schema(path)
    for name in COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            content = kind.field("bytes").type if _has_field(kind, "bytes") else kind
            if pa.types.is_binary(content) or pa.types.is_large_binary(content):
                return name
    return None


def of_parquet(path: Path) -> EncodedImages:
    """Parquet files with a column `image` of encoded images (bytes, or {bytes, path}) and perhaps `label`, `id`.

    Raises DataError where a file has no such column, or the files differ in having labels.
    """
    files = parquet_files(path)
    columns = [image_column(p) for p in files]
    if None in columns:
        raise DataError(
            f"{files[columns.index(None)]}: no column image with encoded images (bytes, or {{bytes, path}}); "
            "features computed elsewhere are given by --backbone frozen:FILE"
        )
    root = path if path.is_dir() else path.parent
    pairs = [(file, str(column)) for file, column in zip(files, columns, strict=True)]
    tables = [_beside(file, column) for file, column in pairs]
    for what in ("label", "id"):
        without = [file for file, table in zip(files, tables, strict=True) if what not in table]
        if 0 < len(without) < len(files):
            raise DataError(f"{without[0]}: has no column {what}, other files of the folder have; give all of them one")
    places = [f"{file}, row {i}" for file, table in zip(files, tables, strict=True) for i in range(len(table["path"]))]
    joined = {what: np.concatenate([table[what] for table in tables]) for what in tables[0]}
    ids, paths = joined.get("id"), joined["path"]
    if ids is None and all(paths) and len(np.unique(paths)) == len(paths):
        ids = paths

    def blocks() -> Iterator[list[Encoded]]:
        return (block for file, column in pairs for block in _blocks(file, column))

    def sample() -> Iterator[Encoded]:
        return iter(next(_blocks(*pairs[0]), [])[:SAMPLE])

    name = root.resolve().name if path.is_dir() else path.stem
    with reading(path):
        stamped = stamp(files, root)
    return EncodedImages(name, str(path), len(places), blocks, sample, stamped, joined.get("label"), ids, places)


def _has_field(kind: Any, name: str) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index(name) >= 0)


def _beside(path: Path, column: str) -> dict[str, NDArray[Any]]:
    """Label and id of every row where the file has them, and the image's path ("" where there is none)."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        named = _has_field(file.schema_arrow.field(column).type, "path")
        wanted = [c for c in ("label", "id") if c in file.schema_arrow.names]
        table = file.read(columns=[*wanted, *([f"{column}.path"] if named else [])])
        paths = table[column].combine_chunks().field("path").to_pylist() if named else [""] * file.metadata.num_rows
        return {c: table[c].to_numpy() for c in wanted} | {"path": np.array([p or "" for p in paths], dtype=np.str_)}


def _blocks(path: Path, column: str) -> Iterator[list[Encoded]]:
    """The encoded images of a file, a block at a time; None where one is missing."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BLOCK, columns=[column]):
            yield [each["bytes"] if isinstance(each, dict) else each for each in batch.column(0).to_pylist()]
