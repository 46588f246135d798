"""A lease on a run in a bucket: what a file lock is on one machine, between machines. It expires when nobody renews it.

An object beside the run names its holder. A thread renews it; a killed holder's is free after LASTS seconds, by the
server's clock alone. It is made by a conditional write; a server that ignores conditions is noticed, and then every
write is read back after a pause.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from ops.atomic_io import replacing
from ops.errors import ServiceError, SettingsError
from ops.storage import s3
from ops.storage.run_dir import BIRTH_FILE

LEASE_FILE = ".lease.json"
LASTS, EVERY = 60.0, 15.0  # seconds
SETTLE = 2.0  # seconds after which a server without conditional writes shows who was last
LOOK = 1.0  # seconds between looks at another's lease


class Lost(ServiceError):
    """Another process has taken the run over."""


class Lease:
    """A context manager that holds the run at `place`; `folder` is its local copy, whose file lock is held already.

    While another process holds it: one that renews it is at work, which raises SettingsError (or is waited for, with
    `wait`); one that does not is waited for until the lease expires. `say` is told so.
    """

    def __init__(self, place: s3.Location, folder: Path, say: Callable[[str], None], *, wait: bool = False) -> None:
        self.place, self.wait, self._say = place, wait, say
        self._object = place / LEASE_FILE
        # Whoever held it with this very folder has died: the folder's lock was free.
        self._local = f"{_boot()}:{_birth(folder)}"
        self._token, self._etag = uuid.uuid4().hex, ""
        self._conditional = True
        self._lost: str | None = None  # who took it over
        self._renewed = 0.0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        """Take the lease. Raises ServiceError where storage cannot be reached."""
        seen, told = "", False
        while True:
            found = s3.read(self._object)
            holder = _parsed(found)
            if found is None or holder.get("local") == self._local or found.age > LASTS:
                if self._take(found.etag if found else ""):
                    break
                continue
            who = f"process {holder.get('pid')} on {holder.get('host')}"
            if seen and seen != found.etag and not self.wait:
                raise SettingsError(
                    f"{self.place}: {who} is at work on this run (since {holder.get('since')}); "
                    "wait for it, end it, or give another --name"
                )
            if not told:
                self._say(
                    f"{self.place}: {who} held this run {found.age:.0f} s ago; waiting to see whether it is still at "
                    f"work, at most {max(LASTS - found.age, 0) + LOOK:.0f} s unless it is"
                )
            seen, told = seen or found.etag, True
            time.sleep(LOOK)
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Give it back; where that cannot be done it expires by itself."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(30)
        with suppress(ServiceError), self._lock:
            if _parsed(s3.read(self._object, patient=False)).get("token") == self._token:
                s3.delete(self._object, patient=False)

    def check(self) -> None:
        """Raise Lost where another process has taken the run over, so that nothing of it is overwritten."""
        if self._lost is None and time.monotonic() - self._renewed > LASTS:  # the machine slept, or storage was away
            self._renew()
        if self._lost is not None:
            raise Lost(
                f"{self.place}: the lease was lost to {self._lost} while storage could not be reached; this process "
                "ends so that it spoils nothing, the same command shows how the run goes on"
            )

    def _take(self, etag: str) -> bool:
        """Write ourselves in, where still nobody (or only the holder with `etag`) is."""
        try:
            self._etag = s3.write(self._object, self._content(), only_if=etag)
        except s3.Conflict:
            return False
        try:  # a server that looks at conditions refuses this
            self._etag = s3.write(self._object, self._content(), only_if="")
            self._conditional = False
        except s3.Conflict:
            self._conditional = True
        if etag or not self._conditional:
            time.sleep(SETTLE)
            if _parsed(s3.read(self._object)).get("token") != self._token:
                return False
        self._renewed = time.monotonic()
        return True

    def _keep(self) -> None:
        while not self._over.wait(EVERY) and self._lost is None:
            with suppress(ServiceError):  # tried again
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            try:
                if not self._conditional:
                    self._look()
                if self._lost is None:
                    condition = self._etag if self._conditional else None
                    self._etag = s3.write(self._object, self._content(), only_if=condition, patient=False)
            except s3.Conflict:  # ours, when only the answer to an earlier write was lost
                self._look()
                if self._lost is None:
                    self._etag = s3.write(self._object, self._content(), patient=False)
            self._renewed = time.monotonic()

    def _look(self) -> None:
        holder = _parsed(s3.read(self._object, patient=False))
        if holder and holder.get("token") != self._token:
            self._lost = f"process {holder.get('pid')} on {holder.get('host')}"

    def _content(self) -> bytes:
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._since = getattr(self, "_since", now)
        words = {"token": self._token, "host": socket.gethostname(), "pid": os.getpid(), "since": self._since}
        return json.dumps(words | {"local": self._local, "renewed": time.time_ns()}).encode()


def _parsed(found: s3.Content | None) -> dict[str, Any]:
    """The holder; {} where there is none."""
    if found is None:
        return {}
    with suppress(ValueError):
        value = json.loads(found.data)
        if isinstance(value, dict):
            return value
    return {"pid": "unknown", "host": "unknown"}


def _birth(folder: Path) -> str:
    """What no copy of a folder shares, nor a later one in its place: file systems give a freed inode out again."""
    file = folder / BIRTH_FILE
    if not file.exists():
        with replacing(file) as temporary:
            temporary.write_text(uuid.uuid4().hex)
    own = folder.stat()
    return f"{own.st_dev}:{own.st_ino}:{file.read_text()}"


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()
