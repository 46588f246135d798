"""A stored run for those who only read it (reports, comparisons), wherever it is: its folder, or a copy from S3."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.atomic_io import inside
from ops.errors import naming
from ops.storage import s3
from ops.storage.mirror import Sent, mirrored, plan_push
from ops.storage.run_dir import RAY, TRIAL, scratch

RESULTS = ("result.json", "trials.json", "best/result.json")
SKIP = (f"{TRIAL}*", RAY, "checkpoints")  # of no use to a reader


@dataclass(frozen=True)
class Fetched:
    """A run's `folder` on this machine; `place` is its own on S3 (None: the folder is the run's own)."""

    folder: Path
    place: s3.Location | None
    known: dict[str, Sent]

    def shown(self, path: Path) -> str:
        """A path in the folder as the user knows it."""
        return str(path) if self.place is None else f"{self.place}/{path.relative_to(self.folder).as_posix()}"

    def send(self) -> None:
        """Send what has changed in the folder to where the run is. Raises ServiceError."""
        if self.place is not None:
            for name in plan_push(_state(self.folder), self.known).upload:
                s3.upload(inside(self.folder, name), self.place / name)


@contextmanager
def fetched(run: str, *, results: bool = False) -> Iterator[Fetched]:
    """The run's folder, or for s3://... a temporary copy (`results`: only of result.json and trials.json).

    Errors from inside name what the user gave. Raises ServiceError where storage cannot be reached.
    """
    if not s3.is_s3(run):
        yield Fetched(Path(run).expanduser(), None, {})
        return
    place = s3.parse(run)
    with tempfile.TemporaryDirectory(dir=scratch(), prefix="read-") as temporary:
        folder = Path(temporary) / "s3:" / place.bucket / place.key  # how comparisons name it
        for name in s3.listing(place):
            if mirrored(name, SKIP) and "/checkpoints/" not in name and (not results or name in RESULTS):
                s3.download(place / name, inside(folder, name))
        known = {name: Sent(*state, etag="") for name, state in _state(folder).items()}
        with naming(folder, str(place)):
            yield Fetched(folder, place, known)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    stats = {p.relative_to(folder).as_posix(): p.stat() for p in folder.rglob("*") if p.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items() if mirrored(name, SKIP)}
