"""A run's folder, kept the same in a bucket: pulled when a run starts, pushed at every checkpoint and at its end.

Only changed files go. What vouches for others (a checkpoint's checksums, a seed's and a run's results) goes up behind
them, and is the first to be taken away: a reader never meets results without their files. Names that begin with a dot
stay where they are.
"""

from __future__ import annotations

import fnmatch
import json
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ops.atomic_io import inside, name_fault, write_json
from ops.errors import ServiceError
from ops.storage import s3
from ops.storage.lease import LEASE_FILE, Lease, Lost
from ops.storage.run_dir import MARK_FILE

VOUCHERS = ("checksums.json", "result.json", "trial.json", "trials.json")
LOCAL_ONLY = ("*.tmp", "*.part")


@dataclass(frozen=True)
class Sent:
    """A file as it was when it was last the same here and there."""

    size: int
    changed: int  # ns
    etag: str


@dataclass(frozen=True)
class Plan:
    """What a push does, in this order."""

    revoke: list[str] = field(default_factory=list)
    upload: list[str] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)


def plan_push(here: Mapping[str, tuple[int, int]], known: Mapping[str, Sent]) -> Plan:
    """What must go so that the bucket, which has `known`, has what is here (name -> size, ns of the last change)."""
    changed = [n for n, (size, at) in here.items() if n not in known or (known[n].size, known[n].changed) != (size, at)]
    gone = [n for n in known if n not in here]
    return Plan(
        revoke=sorted((n for n in gone if _vouches(n)), key=_depth),
        upload=sorted(changed, key=lambda n: (_vouches(n), -_depth(n) if _vouches(n) else 0, n)),
        delete=sorted(n for n in gone if not _vouches(n)),
    )


def whole(names: Iterable[str]) -> set[str]:
    """The names without those of checkpoints whose last file never came."""
    names = set(names)
    return {n for n in names if "/checkpoints/" not in f"/{n}" or f"{n.rpartition('/')[0]}/checksums.json" in names}


def mirrored(name: str, skip: Collection[str]) -> bool:
    """Whether a file belongs to the mirror; `skip` holds patterns of the first part of its name.

    A name that no listing would take (`ops.atomic_io.name_fault`) never does.
    """
    parts = name.split("/")
    if any(p.startswith(".") for p in parts) or any(fnmatch.fnmatch(parts[-1], p) for p in LOCAL_ONLY):
        return False
    return not _skipped(parts[0], skip) and not name_fault(name)


def _skipped(first: str, skip: Collection[str]) -> bool:
    return any(fnmatch.fnmatch(first, p) for p in skip)


def _vouches(name: str) -> bool:
    return name.rpartition("/")[2] in VOUCHERS


def _depth(name: str) -> int:
    return name.count("/")


class Mirror:
    """`folder` and its image at `place`. `skip`: parts of it that others keep (a search's trials, Ray's own files)."""

    def __init__(
        self, folder: Path, place: s3.Location, warn: Callable[[str], None], *,
        skip: Collection[str] = (), lease: Lease | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.place, self.skip = folder, place, tuple(skip)
        self._warn, self._lease = warn, lease
        self._failed = False
        self.pushed_seconds = 0.0
        stored: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            stored = json.loads((folder / MARK_FILE).read_text())
        self._id = str(stored.get("id") or uuid.uuid4().hex)
        self._known = {n: Sent(**s) for n, s in stored.get("known", {}).items() if not name_fault(n)}

    def here(self) -> dict[str, tuple[int, int]]:
        """The mirrored files of the folder: name -> size, ns of the last change."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if mirrored(name, self.skip):
                with suppress(FileNotFoundError):
                    if path.is_file():
                        stat = path.stat()
                        found[name] = (stat.st_size, stat.st_mtime_ns)
        return found

    def pull(self) -> None:
        """Make the folder what the bucket holds, unless the bucket's last writer was this very folder.

        Then the folder is the newer one (a push may have failed) and stays. From now on this folder is the writer.
        Raises ServiceError.
        """
        listed = s3.listing(self.place)
        there = {n: s for n, s in listed.items() if mirrored(n, self.skip)}
        mark = s3.read(self.place / MARK_FILE) if MARK_FILE in listed else None
        ours = mark is not None and mark.data.decode(errors="replace") == self._id
        if ours or (not there and not self._known):
            known = {n: s for n, s in self._known.items() if n in there and there[n].etag == s.etag}
            self._known = {n: Sent(-1, 0, s.etag) for n, s in there.items()} | known  # others go, or are sent again
        else:
            self._replace(there)
            self._forget({name.partition("/")[0] for name in listed})
        self._save()
        if not ours:
            s3.write(self.place / MARK_FILE, self._id.encode())

    def _replace(self, there: Mapping[str, s3.Stored]) -> None:
        here, wanted = self.here(), whole(there)
        for name in here.keys() - wanted:
            path = inside(self.folder, name)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or none of ours
                for parent in path.parents[: name.count("/")]:
                    parent.rmdir()
        kept = {n: s for n, s in self._known.items() if n in wanted and there[n].etag == s.etag}
        kept = {n: s for n, s in kept.items() if here.get(n) == (s.size, s.changed)}
        for name in sorted(wanted - kept.keys(), key=lambda n: (_vouches(n), n)):
            kept[name] = self._fetch(name)
        # what half a checkpoint left there goes with the next push
        self._known = kept | {n: Sent(-1, 0, there[n].etag) for n in there.keys() - wanted}

    def _forget(self, there: Collection[str]) -> None:
        """Remove what others keep in this folder and the bucket has no more, as a forgotten search's trials."""
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in there and _skipped(path.name, self.skip):
                shutil.rmtree(path)

    def _fetch(self, name: str) -> Sent:
        path = inside(self.folder, name)
        try:
            stored = s3.download(self.place / name, path)
        except s3.Missing:
            raise ServiceError(
                f"{self.place / name}: was removed while it was read; give the same command again"
            ) from None
        return Sent(stored.size, path.stat().st_mtime_ns, stored.etag)

    def push(self, patient: bool = True) -> None:
        """Make the bucket what the folder holds. Raises ServiceError; what went up by then counts."""
        began = time.monotonic()
        here = self.here()
        plan = plan_push(here, self._known)
        if self._lease is not None and plan != Plan():
            self._lease.check()
        try:
            for name in plan.revoke:
                self._remove(name, patient)
            for name in plan.upload:
                with suppress(FileNotFoundError):  # it went meanwhile; the next push sees that
                    self._known[name] = self._send(name, here[name], patient)
            for name in plan.delete:
                self._remove(name, patient)
        finally:
            self._save()
            self.pushed_seconds += time.monotonic() - began

    def _send(self, name: str, state: tuple[int, int], patient: bool) -> Sent:
        try:
            stored = s3.upload(inside(self.folder, name), self.place / name, patient=patient)
        except ServiceError:  # it may be there all the same, its answer lost: it is sent again, or removed
            self._known[name] = Sent(-1, 0, "")
            raise
        return Sent(*state, stored.etag)

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
        names = s3.listing(self.place)
        for name in sorted(names, key=lambda n: (not _vouches(n), n)):
            if name not in (MARK_FILE, LEASE_FILE):
                s3.delete(self.place / name)
        self._known = {}

    def _remove(self, name: str, patient: bool) -> None:
        s3.delete(self.place / name, patient=patient)
        self._known.pop(name, None)

    def _save(self) -> None:
        write_json(self.folder / MARK_FILE, {"id": self._id, "known": {n: asdict(s) for n, s in self._known.items()}})


@contextmanager
def shared(
    folder: Path, place: s3.Location | None, say: Callable[[str], None], warn: Callable[[str], None], *,
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
