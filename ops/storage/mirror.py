"""A run's folder, kept the same in a bucket: pulled when a run starts, pushed at every checkpoint and at its end.

Only changed files go up. A commit marker (a checkpoint's checksums, a seed's and a run's results) goes up after the
files that it speaks for, and is the first to be removed: a reader never meets results without their files. Names that
begin with a dot stay local.
"""

import fnmatch
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.atomic_io import inside, name_fault, read_json, write_json
from ops.errors import ServiceError
from ops.storage import object_store
from ops.storage.connection import Missing
from ops.storage.lease import LEASE_FILE, Lease, Lost
from ops.storage.location import Location
from ops.storage.run_dir import MARK_FILE

MARKERS = ("checksums.json", "result.json", "trial.json", "trials.json")
LOCAL_ONLY = ("*.tmp", "*.part")

FileState = tuple[int, int]  # a file's size and the ns of its last change
UNKNOWN: FileState = (-1, 0)  # of an object that no file here is the same as


def is_marker(name: str) -> bool:
    """Whether a file speaks for others."""
    return name.rpartition("/")[2] in MARKERS


def push_order(local: Mapping[str, FileState], sent: Mapping[str, FileState]) -> list[str]:
    """The names that differ between the folder and what was sent, in the order in which a push deals with them.

    Markers to be removed (outermost first), files to send, markers to send (innermost first), files to be removed.
    """

    def order(name: str) -> tuple[int, int, str]:
        depth = name.count("/")
        if name in local:
            return (2, -depth, name) if is_marker(name) else (1, 0, name)
        return (0, depth, name) if is_marker(name) else (3, 0, name)

    return sorted((n for n in local.keys() | sent.keys() if local.get(n) != sent.get(n)), key=order)


def whole(names: Iterable[str]) -> set[str]:
    """The names without those of checkpoints whose marker never came."""
    names = set(names)
    return {n for n in names if "/checkpoints/" not in f"/{n}" or f"{n.rpartition('/')[0]}/checksums.json" in names}


def mirrored(name: str, skip: Collection[str]) -> bool:
    """Whether a file belongs to the mirror; `skip` holds patterns of its name, or of the first part of it.

    A name that no listing would take (`ops.atomic_io.name_fault`) never does.
    """
    parts = name.split("/")
    if any(p.startswith(".") for p in parts) or any(fnmatch.fnmatch(parts[-1], p) for p in LOCAL_ONLY):
        return False
    return not _skipped(parts[0], skip) and not _skipped(name, skip) and not name_fault(name)


def _skipped(part: str, skip: Collection[str]) -> bool:
    return any(fnmatch.fnmatch(part, p) for p in skip)


def local_files(folder: Path, skip: Collection[str]) -> dict[str, FileState]:
    """The mirrored files of a folder with their states."""
    files = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if mirrored(name, skip):
            with suppress(FileNotFoundError):
                if path.is_file():
                    files[name] = _state(path)
    return files


def _state(path: Path) -> FileState:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class Mirror:
    """`folder` and its image at `place`. `skip`: parts of it that others keep (a search's trials, Ray's own files)."""

    def __init__(
        self, folder: Path, place: Location, warn: Callable[[str], None], *,
        skip: Collection[str] = (), lease: Lease | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.place, self.skip = folder, place, tuple(skip)
        self._warn, self._lease = warn, lease
        self._failed = False
        stored = read_json(folder / MARK_FILE) or {}
        self._id = str(stored.get("id") or uuid.uuid4().hex)
        self._sent: dict[str, FileState] = {
            n: (int(size), int(changed)) for n, (size, changed) in stored.get("sent", {}).items() if not name_fault(n)
        }

    def pull(self) -> None:
        """Make the folder what the bucket holds, unless the bucket's last writer was this very folder.

        Then the folder is the newer one (a push may have failed) and stays. From now on this folder is the writer.
        Raises ServiceError.
        """
        listed = object_store.listing(self.place)
        sizes = {n: s.size for n, s in listed.items() if mirrored(n, self.skip)}
        ours = MARK_FILE in listed and object_store.read(self.place / MARK_FILE) == self._id.encode()
        if ours or (not sizes and not self._sent):
            # an object that is gone or of another size is sent again, one that was never sent is removed
            same = {n: s for n, s in self._sent.items() if sizes.get(n) == s[0]}
            self._sent = dict.fromkeys(sizes, UNKNOWN) | same
        else:
            self._replace(sizes)
            self._forget({name.partition("/")[0] for name in listed})
        self._save()
        if not ours:
            object_store.write(self.place / MARK_FILE, self._id.encode())

    def _replace(self, names: Collection[str]) -> None:
        """Make the folder's files those of the bucket, but not half a checkpoint: that goes with the next push."""
        wanted = whole(names)
        for name in local_files(self.folder, self.skip).keys() - wanted:
            path = inside(self.folder, name)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or none of ours
                for parent in path.parents[: name.count("/")]:
                    parent.rmdir()
        self._sent = dict.fromkeys(names, UNKNOWN)
        for name in sorted(wanted, key=lambda n: (is_marker(n), n)):
            path = inside(self.folder, name)
            try:
                object_store.download(self.place / name, path)
            except Missing as error:
                raise ServiceError(f"{error}: was removed while it was read; give the same command again") from None
            self._sent[name] = _state(path)

    def _forget(self, remote: Collection[str]) -> None:
        """Remove what others keep in this folder and the bucket has no more, as a forgotten search's trials."""
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in remote and _skipped(path.name, self.skip):
                shutil.rmtree(path)

    def push(self, patient: bool = True) -> None:
        """Make the bucket what the folder holds. Raises ServiceError; what went up by then counts."""
        local = local_files(self.folder, self.skip)
        names = push_order(local, self._sent)
        if self._lease is not None and names:
            self._lease.check()
        try:
            for name in names:
                if name in local:
                    with suppress(FileNotFoundError):  # it went meanwhile; the next push sees that
                        self._send(name, local[name], patient)
                else:
                    object_store.delete(self.place / name, patient=patient)
                    del self._sent[name]
        finally:
            self._save()

    def _send(self, name: str, state: FileState, patient: bool) -> None:
        try:
            object_store.upload(inside(self.folder, name), self.place / name, patient=patient)
        except ServiceError:  # it may be there all the same, its answer lost: it is sent again, or removed
            self._sent[name] = UNKNOWN
            raise
        self._sent[name] = state

    def offer(self) -> None:
        """`push` while a training goes on: a failure is told once, and the next call tries again.

        Raises Lost where another process has taken the run over.
        """
        try:
            self.push(patient=False)
        except Lost:
            raise
        except ServiceError as error:
            if not self._failed:
                self._warn(f"{error.args[0].rpartition(';')[0]}; training goes on, files are kept in {self.folder} "
                           "and sent with a later checkpoint")  # fmt: skip
            self._failed = True
        else:
            if self._failed:
                self._warn(f"{self.place}: storage is back; all files have been sent")
            self._failed = False

    def finish(self) -> None:
        """The last `push`. Raises ServiceError that tells where everything is kept."""
        try:
            self.push()
        except ServiceError as error:
            cause = error.args[0].rpartition(";")[0]
            raise ServiceError(f"{cause}; everything is kept in {self.folder}, the same command sends it") from None

    def clear(self) -> None:
        """Empty the bucket's place, also of what is skipped; the next push fills it anew. Raises ServiceError."""
        for name in push_order({}, dict.fromkeys(object_store.listing(self.place), UNKNOWN)):
            if name not in (MARK_FILE, LEASE_FILE):
                object_store.delete(self.place / name)
        self._sent = {}

    def _save(self) -> None:
        write_json(self.folder / MARK_FILE, {"id": self._id, "sent": self._sent})


@contextmanager
def shared(
    folder: Path, place: Location | None, say: Callable[[str], None], warn: Callable[[str], None], *,
    skip: Collection[str] = (), wait: bool = False,
) -> Iterator[Mirror | None]:  # fmt: skip
    """The folder's mirror at `place` (None: it has none), held by a lease, pulled now and pushed at the end.

    The folder's own lock must be held. Raises SettingsError where another process is at work on it, ServiceError.
    """
    if place is None:
        yield None
        return
    with Lease(place, folder, say, wait=wait) as lease:
        mirror = Mirror(folder, place, warn, skip=skip, lease=lease)
        mirror.pull()
        try:
            yield mirror
        except BaseException:
            with suppress(Lost):
                mirror.offer()
            raise
        mirror.finish()
