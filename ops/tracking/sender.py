"""The writer's loop: which journal is read next, how far it was sent, when to wait. It knows no MLflow, only a sink."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from ops.tracking.journal import Record, batches, read
from ops.tracking.tracker import LOCK, Cursors, journals

BATCH = 1000  # metrics that MLflow takes in one call
EVERY, RESCAN = 0.5, 2.0  # seconds between looks at the journals, and for new ones
SHARE = 20  # the writer rests so many times as long as it worked: at most 5 % of a core beside the training
BACKOFF = 15.0  # seconds at most between tries while the server is away
LAST = 10.0  # seconds for a last flush when the driver is dead
TRIES = 3  # for a file
RESETS = 3  # a server that forgets runs more often is broken


class Away(Exception):
    """The server cannot take the record now; it is sent again later."""


class Refused(Exception):
    """The server will never take the record; it stays in the journal and the next one is sent."""


class Gone(Exception):
    """The server no longer knows the run: its database is another one, or somebody cleaned up."""


class Late(Exception):
    """The time given to finish is over; the rest waits in the journals."""


@runtime_checkable  # the tests check annotations while they run
class Sink(Protocol):
    """Where records go. Every call may raise Away, Refused or Gone, and may be made twice without harm."""

    def connect(self) -> None:
        """Reach the server."""

    def run(self, journal: str, start: Record, parent: str | None) -> str:
        """The id of the journal's run, made unless it is there."""

    def settings(self, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
        """Log parameters and tags."""

    def metrics(self, run_id: str, records: list[Record]) -> None:
        """Log at most BATCH metrics."""

    def artifact(self, run_id: str, path: Path, target: str) -> None:
        """Upload a file or folder."""

    def model(self, run_id: str, folder: Path, record: Record) -> None:
        """Log and register a model."""

    def status(self, run_id: str, status: str, when: int) -> None:
        """Set the run's status."""


@dataclass
class Tail:
    """One journal as the writer sees it."""

    path: Path
    journal: str
    run: str
    offset: int
    run_id: str | None
    failed: float = 0.0  # when it last failed: the others go first then


class Writer:
    """Sends everything under `root` to `sink` until it is told to finish."""

    def __init__(self, root: Path, uri: str, sink: Sink) -> None:
        self.root, self.uri, self.sink = root, uri, sink
        self.tails: dict[Path, Tail] = {}
        self.cursors: Cursors
        self.connected = self.away = self.stdin_closed = False
        self.deadline: float | None = None  # set once the writer shall finish
        self.grace = 0.0  # the moment from which a server that is away is not waited for
        self.scanned = 0.0
        self.resets = 0

    def run(self) -> None:
        """Send until told to finish, or until the driver is gone."""
        # Ctrl-C is the driver's business; SIGTERM asks for one last flush.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._finish(LAST, 0.0))
        os.nice(5)
        with (self.root / LOCK).open("w") as lock:
            if self._take(lock):
                self.cursors = Cursors(self.root, self.uri)
                self._loop()
        tell("done")

    def _loop(self) -> None:
        wait = 1.0
        while True:
            # Read before the pass: what was recorded before the order to finish is in this pass.
            finishing = self.deadline is not None
            try:
                self._connect()
                began = time.monotonic()
                self._pass()
                if finishing:
                    return
                wait = 1.0
                if self.deadline is None:  # else SIGTERM came during the pass
                    self._listen(min(max(EVERY, SHARE * (time.monotonic() - began)), 5.0))
            except Late:
                return
            except Away as error:
                if not self.away:
                    tell("away", str(error))
                self.away = True
                now = time.monotonic()
                if finishing and (now >= self.grace or now >= (self.deadline or 0.0)):
                    return
                self._listen(min(wait, 1.0) if finishing else wait)
                wait = min(2 * wait, BACKOFF)

    def _connect(self) -> None:
        if not self.connected:
            self.sink.connect()
            self.connected = True
            tell("ready")
            self._reached()

    def _pass(self) -> None:
        """Send what every journal holds; raises Away at the first failure (that journal is last in the next pass)."""
        self._scan()
        for tail in sorted(self.tails.values(), key=lambda t: t.failed):
            try:
                self._send(tail)
            except Away:
                tail.failed = time.monotonic()
                raise
            except Gone as error:
                return self._again(str(error))

    def _again(self, reason: str) -> None:
        """Send everything from the start: harmless for a run that is still there."""
        self.resets += 1
        if self.resets > RESETS:
            raise Away(reason)
        for tail in self.tails.values():
            tail.offset, tail.run_id = 0, None
        self.sink.connect()
        self._pass()

    def _scan(self) -> None:
        """Find new journals now and then, and those that `--fresh` put in the place of old ones."""
        now = time.monotonic()
        if self.deadline is not None or now >= self.scanned + RESCAN:
            self.scanned = now
            for path in journals(self.root):
                self.tails.setdefault(path, Tail(path, "", "", 0, None))
        for path in list(self.tails):
            try:
                header = next(read(path), None)
            except FileNotFoundError:
                del self.tails[path]
                continue
            if header is not None and header["journal"] != self.tails[path].journal:
                offset, run_id = self.cursors.get(header["journal"])
                # Shorter than what was sent: the machine lost power before the disk had it. All again, harmless.
                offset = offset if offset <= path.stat().st_size else 0
                self.tails[path] = Tail(path, header["journal"], header["run"], offset, run_id)

    def _send(self, tail: Tail) -> None:
        if not tail.journal:
            return
        try:
            for records, offset in batches(tail.path, tail.offset, BATCH):
                if self.deadline is not None and time.monotonic() > self.deadline:
                    raise Late
                try:
                    if not self._deliver(tail, records):
                        return
                    self._reached()
                except Refused as error:
                    tell("refused", f"{tail.run}: {error}")
                tail.offset = offset
                self.cursors.put(tail.journal, tail.offset, tail.run_id)
        except FileNotFoundError:
            return  # `--fresh` removed the folder meanwhile
        except OSError as error:
            raise Away(f"{self.cursors.path} cannot be written: {error.strerror}") from None

    def _deliver(self, tail: Tail, records: list[Record]) -> bool:
        """Send records of one op; False where they must wait for the parent's run."""
        record, op = records[0], records[0]["op"]
        if op == "header":
            return True
        if op == "start":
            return self._start(tail, record)
        if tail.run_id is None:
            raise Refused("recorded before its start")
        folder = tail.path.parent
        if op == "metric":
            self.sink.metrics(tail.run_id, records)
        elif op == "resume":
            self.sink.settings(tail.run_id, record["params"], record["tags"])
            self.sink.status(tail.run_id, "RUNNING", record["time"])
        elif op == "end":
            self.sink.status(tail.run_id, record["status"], record["time"])
        elif op == "artifact":
            self._file(partial(self.sink.artifact, tail.run_id, folder / record["path"], record["target"]))
        elif op == "model":
            self._file(partial(self.sink.model, tail.run_id, folder / record["path"], record))
        else:
            raise Refused(f"unknown record {op!r}")
        return True

    def _file(self, send: Callable[[], None]) -> None:
        """Send a file; a store of files that fails while the server is there must not hold up what comes behind."""
        for _ in range(TRIES):
            try:
                return send()
            except Away as error:
                reason = str(error)
                self.sink.connect()  # raises Away where it is the server
                self._listen(1.0)
        raise Refused(reason)

    def _start(self, tail: Tail, record: Record) -> bool:
        parent = None
        if record["parent"] is not None:
            parent = next((t.run_id for t in self.tails.values() if t.run == record["parent"]), None)
            if parent is None and self.deadline is None:
                return False  # the parent's own start is on its way
        tail.run_id = self.sink.run(tail.journal, record, parent)
        self.sink.settings(tail.run_id, record["params"], {})
        if record["parent"] is not None and parent is None:
            raise Refused(f"its parent {record['parent']} has no journal here, so it stands alone")
        return True

    def _reached(self) -> None:
        if self.away:
            tell("back")
        self.away = False

    def _take(self, lock: IO[str]) -> bool:
        """Wait for the lock: the writer of a killed driver may still be at its last flush."""
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if self.deadline is not None and time.monotonic() > self.deadline:
                return False
            self._listen(0.2)

    def _finish(self, seconds: float, grace: float) -> None:
        now = time.monotonic()
        self.deadline, self.grace = now + seconds, now + grace

    def _listen(self, seconds: float) -> None:
        """Wait, with an ear on the driver."""
        until, started = time.monotonic() + seconds, self.deadline
        while self.deadline == started and (left := until - time.monotonic()) > 0:
            if self.stdin_closed:
                time.sleep(min(left, EVERY))
            elif select.select([0], [], [], min(left, EVERY))[0]:
                text = os.read(0, 4096).decode()
                if text:
                    limit, grace = text.split("\n")[0].split()
                    self._finish(float(limit), float(grace))
                else:
                    self.stdin_closed = True
                    if self.deadline is None:
                        self._finish(LAST, 0.0)


def tell(event: str, reason: str = "") -> None:
    """One event for the driver; nobody may be left to read it."""
    with suppress(OSError):
        sys.stdout.write(json.dumps({"event": event, "reason": reason}) + "\n")
        sys.stdout.flush()
