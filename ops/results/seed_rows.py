"""What a run's seeds leave of their rows: written by the ranks that own them, read a part at a time for tables.

A task reads one part's rows and writes one part of a table: nobody needs more than a part. Where ranks have sent their
parts to S3 they are read from there, and tables are written there.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import Arrays, inside, save_arrays
from ops.clustering.owners import Owners
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.graph.partition.executors import BuildTask
from ops.results.arrays import ASSIGNMENTS, PARTS_OF, part_path, read_arrays, write_table
from ops.storage import object_store as s3


@dataclass(frozen=True)
class SeedRows:
    """The seeds below a run's `folder`; `place`: where that is on S3 if ranks keep the `parts` of their rows there."""

    folder: Path
    seeds: tuple[int, ...]
    parts: int = 1
    place: s3.Location | None = None

    def seed(self, seed: int) -> Path:
        """The folder of a seed."""
        return self.folder / f"seed-{seed}"

    def read(self, seed: int, part: int, file: str = ASSIGNMENTS) -> Arrays:
        """The arrays of one part of a seed's file, those of `assignments.npz` by default.

        Raises DataError where the part is missing or damaged, ServiceError where S3 cannot be reached.
        """
        path = self.seed(seed) / file
        if self.parts == 1:
            return read_arrays(path)
        path = part_path(path, part)
        if path.is_file() or self.place is None:
            return _read(path, str(path))
        with TemporaryDirectory(prefix="rows-") as folder:
            there, local = self.place / path.relative_to(self.folder).as_posix(), Path(folder) / path.name
            with suppress(s3.Missing):
                s3.download(there, local)
            return _read(local, str(there))

    def write(self, name: str, part: int, columns: Mapping[str, object]) -> None:
        """Write one part of the table NAME of the run. Raises ResourceError on a full disk, ServiceError."""
        path = self.folder / f"{name}.parquet"
        path = path if self.parts == 1 else part_path(path, part)
        if self.parts == 1 or self.place is None:
            write_table(path, columns)
            return
        with TemporaryDirectory(prefix="rows-") as folder:
            write_table(Path(folder) / path.name, columns)
            s3.upload(Path(folder) / path.name, self.place / path.relative_to(self.folder).as_posix())

    def tasks(self, function: Callable[..., object], *arguments: object) -> list[BuildTask]:
        """A task a part: `function(rows, part, *arguments)`."""
        return [(function, (self, part, *arguments)) for part in range(self.parts)]

    def table(self, name: str) -> str:
        """What the table NAME is called in the run's folder: a folder of parts, or one file."""
        return f"{name}.parquet" if self.parts == 1 else name

    def bring(self, name: str) -> None:
        """Copy the parts of a table, or of a seed's file, from S3 to the folder, where they are read as a whole."""
        if self.place is not None and self.parts > 1:
            for file in s3.listing(self.place / name):
                s3.download(self.place / name / file, inside(self.folder / name, file))


def _read(path: Path, shown: str) -> Arrays:
    if not path.is_file():
        raise DataError(f"{shown}: this part of the results is missing; run it again with --fresh")
    return read_arrays(path)


def save_rows(
    path: Path,
    group: ProcessGroup,
    offsets: Callable[[str], NDArray[np.int64] | None],
    rows: Mapping[str, NDArray[np.generic]],
    axis: int = 0,
) -> None:
    """Write arrays whose rows along `axis` ranks own by parts, all ranks together: NAME/part-00000.npz ... each.

    `offsets(name)` are the first rows of an array's parts; where there is one part, or None, rank 0 has all of it and
    writes it to NAME.npz.
    """
    whole: Arrays = {}
    by_part: dict[int, Arrays] = {}
    for name, array in rows.items():
        first = offsets(name)
        if first is None or len(first) == 2:
            whole[name] = array
            continue
        whole[PARTS_OF] = np.array(len(first) - 1)
        for part, at in Owners(first, group).slices():
            by_part.setdefault(part, {})[name] = array[at] if axis == 0 else array[:, at]
    for part, each in by_part.items():
        save_arrays(part_path(path, part), **each)
    if group.rank == 0 and whole:
        save_arrays(path, **whole)
