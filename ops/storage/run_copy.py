"""A finished run for those who only read it, wherever it is: its folder, or a copy of what they need from a bucket."""

import atexit
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ops.atomic_io import inside
from ops.errors import DataError, SettingsError, naming
from ops.storage import object_store
from ops.storage.location import Location, is_s3, parse
from ops.storage.mirror import FileState, local_files, mirrored, push_order
from ops.storage.run_dir import RAY, TRIAL, refuse_links, scratch

RESULTS = ("result.json", "trials.json")
MODEL = (*RESULTS, "assignments.parquet", "assignments/", "model/settings.json", "model/model.safetensors")
SKIP = (f"{TRIAL}*", RAY, "checkpoints")  # of no use to a reader


@dataclass(frozen=True)
class RunCopy:
    """A run's `folder` on this machine; `place` is where it is on S3 (None: the folder is the run's own)."""

    folder: Path
    place: Location | None
    files: dict[str, FileState]  # as they came

    def shown(self, path: Path) -> str:
        """A path in the folder as the user knows it."""
        return str(path) if self.place is None else f"{self.place}/{path.relative_to(self.folder).as_posix()}"

    def send(self) -> None:
        """Send what has changed in the folder to where the run is. Raises ServiceError."""
        if self.place is not None:
            for name in push_order(local_files(self.folder, SKIP), self.files):
                object_store.upload(inside(self.folder, name), self.place / name)


@contextmanager
def fetched(run: str, only: Collection[str] = ()) -> Iterator[RunCopy]:
    """The run's folder, or for s3://... a temporary copy, of `only` these files of it (and of a study's best run).

    Errors from inside name what the user gave. Raises SettingsError for an address of another kind, DataError where
    nothing is there, ServiceError where storage cannot be reached.
    """
    if not is_s3(run):
        if "://" in run:
            raise SettingsError(f"{run}: give a run's folder OUT/NAME or s3://BUCKET/OUT/NAME")
        if not only:  # something may be written there
            refuse_links(Path(run).expanduser())
        yield RunCopy(Path(run).expanduser(), None, {})
        return
    place = parse(run)
    names = [n for n in object_store.listing(place) if mirrored(n, SKIP) and "/checkpoints/" not in n]
    names = [n for n in names if not only or n.removeprefix("best/").startswith(tuple(only))]
    if not names:
        raise DataError(f"{run}: there is no finished run; give s3://BUCKET/OUT/NAME")
    with tempfile.TemporaryDirectory(dir=scratch(), prefix="read-") as temporary:
        folder = Path(temporary) / "s3:" / place.bucket / place.key  # how comparisons name it
        for name in names:
            object_store.download(place / name, inside(folder, name))
        with naming(folder, str(place)):
            yield RunCopy(folder, place, local_files(folder, SKIP))


@cache  # settings, model and ids are asked for one after the other
def local_folder(run: str) -> Path:
    """The folder of this machine that holds results and model of `run`, for as long as this process lives.

    Raises as `fetched` does.
    """
    copies = ExitStack()
    atexit.register(copies.close)
    return copies.enter_context(fetched(run, only=MODEL)).folder
