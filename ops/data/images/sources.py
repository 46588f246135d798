"""Where images lie: a folder of files, Parquet files with encoded images, arrays. Listed here, decoded elsewhere.

Axes: N images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.images.cache import stamp
from ops.data.images.decode import Encoded
from ops.data.io.readers import check_kind, reading
from ops.data.io.validate import count
from ops.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
COLUMNS = ("image", "img")
BLOCK = 1024  # images that are read at a time
LOOKED_AT = 256  # images whose sizes tell the size of all


@dataclass(frozen=True)
class Pile:
    """N images that are not decoded yet.

    `blocks()` gives them in order, `sample()` some of them; `places` [N] say in messages where each one is (None:
    `origin`, row i). `labels` [N] of any kind, `ids` [N]. `stamped` names the content. `side`: at which they
    are decoded unless told otherwise (None: as `common_size` says). `classes`:
    what label 0, 1 ... mean, where they are known numbers.
    """

    name: str
    origin: str
    count: int
    blocks: Callable[[], Iterator[list[Encoded]]]
    sample: Callable[[], Iterator[Encoded]]
    stamped: str
    labels: NDArray[Any] | None = None
    ids: NDArray[Any] | None = None
    places: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    side: int | None = None
    classes: tuple[str, ...] | None = None

    def place(self, i: int) -> str:
        """Where image `i` is."""
        return f"{self.origin}, row {i}" if self.places is None else self.places[i]


def of_array(name: str, pixels: NDArray[np.uint8], labels: NDArray[Any] | None, notes: list[str]) -> Pile:
    """Images that are decoded already: uint8 [N, H, W, 3]."""

    def blocks() -> Iterator[list[Encoded]]:
        return (list(pixels[i : i + BLOCK]) for i in range(0, len(pixels), BLOCK))

    return Pile(name, name, len(pixels), blocks, lambda: iter(pixels[:1]), name, labels, notes=notes)


def of_folder(folder: Path, classes: list[str] | None = None) -> Pile:
    """Files below a folder, in the order of their names; sub-folders are classes, for judging only.

    `classes`: the sub-folders that count. Raises DataError for a folder without images, or with some beside and some
    inside of sub-folders.
    """
    places = [folder] if classes is None else [folder / c for c in sorted(classes)]
    with reading(folder):
        listed = (p for place in places for p in sorted(place.rglob("*")))
        found = [p for p in listed if not _hidden(p.relative_to(folder)) and p.is_file()]
    files = [p for p in found if p.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{folder}: holds no images ({' '.join(SUFFIXES)}) and no Parquet files of images")
    parts = [p.relative_to(folder).parts for p in files]
    inside = [len(p) > 1 for p in parts]
    if any(inside) and not all(inside):
        raise DataError(
            f"{folder}: {parts[inside.index(True)][0]}/ holds images and {parts[inside.index(False)][0]} lies beside "
            "it: put all images into sub-folders (their classes), or none"
        )
    other = len(found) - len(files)
    notes = [f"{count(other, 'file')} without a suffix of images left out"] if other else []
    labels = np.array([p[0] for p in parts]) if inside[0] and len({p[0] for p in parts}) > 1 else None

    def blocks() -> Iterator[list[Encoded]]:
        return (list(files[i : i + BLOCK]) for i in range(0, len(files), BLOCK))

    def sample() -> Iterator[Encoded]:
        return iter(files[:: max(1, len(files) // LOOKED_AT)])

    ids = np.array(["/".join(p) for p in parts])
    name, where = folder.resolve().name, [str(p) for p in files]
    return Pile(name, str(folder), len(files), blocks, sample, stamp(files, folder), labels, ids, where, notes)


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__")) for part in path.parts)


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files at `path`, a file or a folder; [] where there are none."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".parquet" else []
    with reading(path):
        return sorted(p for p in path.rglob("*.parquet") if p.is_file() and not _hidden(p.relative_to(path)))


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
            inner = (
                kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
            )
            if pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
                return name
    return None


def of_parquet(path: Path) -> Pile:
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
    having = [set(t) for t in tables]
    for what in ("label", "id"):
        if len({what in own for own in having}) > 1:
            missing = next(f for f, own in zip(files, having, strict=True) if what not in own)
            raise DataError(f"{missing}: has no column {what}, other files of the folder have; give all of them one")
    counts = [len(t["path"]) for t in tables]
    places = [f"{f}, row {i}" for f, n in zip(files, counts, strict=True) for i in range(n)]
    joined = {what: np.concatenate([t[what] for t in tables]) for what in sorted(set.intersection(*having))}

    def blocks() -> Iterator[list[Encoded]]:
        return (block for file, column in pairs for block in _blocks(file, column))

    def sample() -> Iterator[Encoded]:
        return iter(next(_blocks(*pairs[0]), [])[:LOOKED_AT])

    name = root.resolve().name if path.is_dir() else path.stem
    return Pile(name, str(path), sum(counts), blocks, sample, stamp(files, root), joined.get("label"),
                _ids(joined), places)  # fmt: skip


def _ids(joined: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The column `id`, or the images' paths where all have one and no two the same; else None: row numbers."""
    if "id" in joined:
        return joined["id"]
    paths = joined["path"]
    return paths if all(paths) and len(np.unique(paths)) == len(paths) else None


def _beside(path: Path, column: str) -> dict[str, NDArray[Any]]:
    """Label and id of every row where the file has them, and the image's path ("" where there is none)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        named = pa.types.is_struct(schema.field(column).type) and schema.field(column).type.get_field_index("path") >= 0
        wanted = [c for c in ("label", "id") if c in schema.names]
        table = file.read(columns=[*wanted, *([f"{column}.path"] if named else [])])
        found = {c: table[c].to_numpy() for c in wanted}
        paths = [p or "" for p in table[column].combine_chunks().field("path").to_pylist()] if named else None
        found["path"] = np.array([""] * file.metadata.num_rows if paths is None else paths, dtype=np.str_)
        return found


def _blocks(path: Path, column: str) -> Iterator[list[Encoded]]:
    """The encoded images of a file, a block at a time; None where one is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BLOCK, columns=[column]):
            images = batch.column(0)
            missing = images.is_null().to_pylist()
            content = images.field("bytes") if pa.types.is_struct(images.type) else images
            values = content.to_pylist()
            yield [None if gone else value for gone, value in zip(missing, values, strict=True)]
