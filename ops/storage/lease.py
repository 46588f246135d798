"""A lease on a run in a bucket: what a file lock is on one machine, between machines. It expires when nobody renews it.

An object beside the run names its holder. A thread renews it; a killed holder's is free after LASTS seconds, by the
server's clock alone. It is written on conditions (If-None-Match, If-Match): a store that ignores them is refused.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType

from ops.atomic_io import atomic_write
from ops.errors import ServiceError, SettingsError
from ops.storage import object_store
from ops.storage.connection import Conflict, Missing, client, translated
from ops.storage.location import Location
from ops.storage.run_dir import BIRTH_FILE

LEASE_FILE = ".lease.json"
LASTS, EVERY = 60.0, 15.0  # seconds
LOOK = 1.0  # seconds between looks at another's lease


class Lost(ServiceError):
    """Another process has taken the run over."""


@dataclass(frozen=True)
class Entry:
    """A lease in the bucket: what it says of its holder, its ETag ("": none is there), seconds since it was written."""

    holder: dict[str, object] = field(default_factory=dict)
    etag: str = ""
    age: float = 0.0

    def __str__(self) -> str:
        return f"process {self.holder.get('pid', 'unknown')} on {self.holder.get('host', 'unknown')}"


class Lease:
    """A context manager that holds the run at `place`; `folder` is its local copy, whose file lock is held already.

    While another process holds it: one that renews it is at work, which raises SettingsError (or is waited for, with
    `wait`); one that does not is waited for until the lease expires. `say` is told so.
    """

    def __init__(self, place: Location, folder: Path, say: Callable[[str], None], *, wait: bool = False) -> None:
        self.place, self.wait, self._say = place, wait, say
        self._object = place / LEASE_FILE
        self._content = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            # Whoever holds it with this very folder has died: the folder's lock was free.
            "local": f"{_boot()}:{_birth(folder)}",
        }  # fmt: skip
        self._etag, self._renewed = "", 0.0
        self._taker = ""  # who took it over
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        """Take the lease. Raises ServiceError where storage cannot be reached, SettingsError without conditions."""
        first = ""  # the ETag at the first look: another one means that the holder is alive
        while not self._take(entry := _read(self._object)):
            if first and entry.etag and first != entry.etag and not self.wait:
                raise SettingsError(
                    f"{self.place}: {entry} is at work on this run (since {entry.holder.get('since')}); "
                    "wait for it, end it, or give another --name"
                )
            if not first and entry.etag:
                self._say(
                    f"{self.place}: {entry} held this run {entry.age:.0f} s ago; waiting to see whether it is still at "
                    f"work, at most {max(LASTS - entry.age, 0) + LOOK:.0f} s unless it is"
                )
            first = first or entry.etag
            time.sleep(LOOK)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Give it back; where that cannot be done it expires by itself."""
        self._over.set()
        self._thread.join(30)
        with suppress(ServiceError), self._lock:
            if self._is_ours(_read(self._object, patient=False)):
                object_store.delete(self._object, patient=False)

    def check(self) -> None:
        """Raise Lost where another process has taken the run over, so that nothing of it is overwritten."""
        if not self._taker and time.monotonic() - self._renewed > LASTS:  # the machine slept, or storage was away
            self._renew()
        if self._taker:
            raise Lost(
                f"{self.place}: the lease was lost to {self._taker} while storage could not be reached; this process "
                "ends so that it spoils nothing, the same command shows how the run goes on"
            )

    def _is_ours(self, entry: Entry) -> bool:
        return bool(entry.holder.get("token") == self._content["token"])

    def _take(self, entry: Entry) -> bool:
        """Write ourselves in where nobody, or nobody alive, holds it; False where another one does or was faster."""
        if entry.etag and entry.holder.get("local") != self._content["local"] and entry.age <= LASTS:
            return False
        try:
            self._write(entry.etag)
        except Conflict:
            return False
        for impossible in ("", '"0"'):  # a store that looks at conditions refuses both
            with suppress(Conflict):
                self._write(impossible)
                object_store.delete(self._object, patient=False)
                raise SettingsError(
                    f"{self.place}: this store ignores conditional writes (If-None-Match, If-Match), without which two "
                    "processes could spoil one run; give a folder, or a bucket on a store that has them"
                )
        return True

    def _write(self, etag: str, patient: bool = True) -> None:
        content = json.dumps(self._content | {"renewed": time.time_ns()}).encode()
        self._etag = _write(self._object, content, etag, patient)
        self._renewed = time.monotonic()

    def _keep(self) -> None:
        while not self._over.wait(EVERY) and not self._taker:
            with suppress(Exception):  # tried again; check() says what does not mend
                self._renew()

    def _renew(self) -> None:
        with self._lock:
            try:
                self._write(self._etag, patient=False)
            except Conflict:  # ours, when only the answer to an earlier write was lost
                entry = _read(self._object, patient=False)
                if entry.etag and not self._is_ours(entry):
                    self._taker = str(entry)
                    return
                with suppress(Conflict):  # another one was faster: the next look shows who
                    self._write(entry.etag, patient=False)


def _read(place: Location, patient: bool = True) -> Entry:
    try:
        with translated(place):
            answer = client(patient).get_object(Bucket=place.bucket, Key=place.key)
            data = answer["Body"].read()
    except Missing:
        return Entry()
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    age = (parsedate_to_datetime(date) - answer["LastModified"]).total_seconds() if date else 0.0
    holder = None
    with suppress(ValueError):
        holder = json.loads(data)
    return Entry(holder if isinstance(holder, dict) else {}, str(answer["ETag"]), max(age, 0.0))


def _write(place: Location, data: bytes, etag: str, patient: bool) -> str:
    """Write the object where the one there has this ETag ("": where none is there); returns the new ETag.

    Raises Conflict where that is not so, ServiceError.
    """
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        with translated(place):
            answer = client(patient).put_object(Bucket=place.bucket, Key=place.key, Body=data, **condition)
    except Missing:
        raise Conflict(str(place)) from None
    return str(answer["ETag"])


def _birth(folder: Path) -> str:
    """What no copy of a folder shares, nor a later one in its place: file systems give a freed inode out again."""
    file, stat = folder / BIRTH_FILE, folder.stat()
    if not file.exists():
        atomic_write(file, uuid.uuid4().hex)
    return f"{stat.st_dev}:{stat.st_ino}:{file.read_text()}"


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()
