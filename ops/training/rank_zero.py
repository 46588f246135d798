"""What rank 0 of a seed's workers tells the driver, and how the driver asks it to stop: files of the seed's folder.

Rank 0 writes the history and the results into the folder itself where it sees it (on one machine, or on a cluster
with a shared folder). For a run on S3 it works in a folder of its node, whose files go up every few seconds; the
driver copies them. The lines of `workers-*.jsonl`, one file a start of the workers, are words for the driver's
console, epochs, and the news of a checkpoint.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ops.api import Record
from ops.atomic_io import inside
from ops.config.console import Console
from ops.errors import ServiceError
from ops.storage import object_store as s3
from ops.storage import run_dir
from ops.storage.mirror import Mirror, is_marker, mirrored
from ops.storage.status import STATUS
from ops.training.checkpoint import FOLDER

LINES, STOP = "workers-*.jsonl", "stop"
NOT_COPIED = (FOLDER, STOP, STATUS)  # the last is the driver's
EVERY = 5.0  # seconds between two looks at S3, or two pushes to it

Event = dict[str, Any]


class Reporter(Console):
    """Rank 0's end: a console whose words go to the driver's. `place`: of the folder on S3, where that is the way."""

    def __init__(self, folder: Path, place: s3.Location | None) -> None:
        super().__init__()
        self.folder = folder
        self._mirror = Mirror(folder, place, self.warn, skip=(FOLDER,)) if place is not None else None
        self._pushed = self._asked = time.monotonic()
        self._lines = folder / LINES.replace("*", str(time.time_ns()))
        self._lines.touch()

    def say(self, text: str = "", *, lines: bool = False) -> None:
        """A line, or several, for standard output."""
        self._write("say", text=text, lines=lines)

    def warn(self, text: str) -> None:
        """A warning."""
        self._write("warn", text=text)

    def progress(self, text: str, *, milestone: bool, share: float | None = None) -> None:
        """Where the run stands."""
        self._write("progress", text=text, milestone=milestone, share=share)

    def record(self, record: Record) -> None:
        """An epoch has ended."""
        self._write("record", record=record)
        if self._mirror is not None and time.monotonic() - self._pushed > EVERY:
            self._push()

    def saved(self) -> None:
        """A checkpoint is on disk."""
        self._write("saved")
        if self._mirror is not None:
            self._push()

    def stop(self) -> bool:
        """Whether the driver has asked for a stop."""
        if self._mirror is None:
            return (self.folder / STOP).exists()
        if time.monotonic() - self._asked < EVERY:
            return False
        self._asked = time.monotonic()
        with suppress(ServiceError):
            return s3.read(self._mirror.place / STOP, patient=False) is not None
        return False

    def end(self) -> None:
        """Rank 0 ends in good order: what is not on S3 yet goes there. Raises ServiceError."""
        if self._mirror is not None:
            self._mirror.push()

    def _push(self) -> None:
        assert self._mirror is not None
        self._mirror.offer()
        self._pushed = time.monotonic()

    def _write(self, kind: str, **words: object) -> None:
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **words}) + "\n")


@contextmanager
def reporter(folder: Path, place: s3.Location | None) -> Iterator[Reporter]:
    """Rank 0's end, with the seed's folder locked; `place`: where it is on S3. Raises ServiceError at the end."""
    with ExitStack() as stack:
        if place is None:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_dir.lock(folder, wait=True))  # a killed driver's rank 0 may still be ending
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seed-")))
            resumed = s3.read(place / "resumed.json")
            if resumed is not None:
                (folder / "resumed.json").write_bytes(resumed)
        result = Reporter(folder, place)
        yield result
        result.end()


class Follower:
    """The driver's end: reads what rank 0 tells. `place`: where the seed's folder is on S3, if rank 0 writes there.

    Files of the patterns `skip` stay there.
    """

    def __init__(self, folder: Path, place: s3.Location | None, skip: tuple[str, ...] = ()) -> None:
        self._folder, self._place, self._skip = folder, place, (*NOT_COPIED, *skip)
        self._read: dict[str, int] = {}  # how many bytes of each file
        self._copied: dict[str, s3.Stored] = {}
        self._looked = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self.clear()

    def events(self, *, last: bool = False) -> Iterator[Event]:
        """What is new, in order; a file that follows another is that of a group which replaces a lost one.

        `last`: nothing comes any more. Raises ServiceError then where S3 cannot be reached.
        """
        if self._place is not None and (last or time.monotonic() - self._looked > EVERY):
            with suppress(*(() if last else (ServiceError,))):
                self._copy(self._place, patient=last)
            self._looked = time.monotonic()
        for path in sorted(self._folder.glob(LINES)):
            if path.name not in self._read:
                if self._read:
                    yield {"kind": "lost"}
                self._read[path.name] = 0
            with path.open("rb") as file:
                file.seek(self._read[path.name])
                for line in file:
                    if not line.endswith(b"\n"):  # it is still being written
                        break
                    self._read[path.name] += len(line)
                    yield json.loads(line)

    def ask_stop(self) -> None:
        """Have rank 0 stop after the epoch."""
        (self._folder / STOP).touch()
        if self._place is not None:
            s3.write(self._place / STOP, b"")

    def clear(self) -> None:
        """Remove the lines and the wish to stop, of an earlier start too."""
        for path in (*self._folder.glob(LINES), self._folder / STOP):
            path.unlink(missing_ok=True)
        if self._place is not None:
            for name in s3.listing(self._place, deep=False):
                if name == STOP or Path(name).match(LINES):
                    s3.delete(self._place / name)

    def _copy(self, place: s3.Location, *, patient: bool) -> None:
        """Copy what rank 0 has sent, but no checkpoints; results behind the files that they vouch for."""
        stored = {n: s for n, s in s3.listing(place, patient=patient).items() if mirrored(n, self._skip)}
        for name in sorted(stored, key=lambda n: (is_marker(n), n)):
            if self._copied.get(name) != stored[name]:
                with suppress(s3.Missing):
                    s3.download(place / name, inside(self._folder, name), patient=patient)
                    self._copied[name] = stored[name]
