"""The driver's side of tracking: starts the one writer (`mlflow_sink.py`), listens to it, ends it. No MLflow here.

Nothing in this file waits for a server, save `Tracker.start` with `require` and `Tracker.close`.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ops
from ops.errors import ServiceError, SettingsError
from ops.masking import shown, store_key
from ops.tracking.journal import FILENAME, read

CURSORS, LOCK = "tracking.json", "tracking.lock"
SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
RESTARTS = 5  # a writer that dies more often than this has a reason that a restart does not mend
PATIENCE = 10.0  # seconds that a required server gets to answer
GRACE = 5.0  # seconds that closing waits for a server that is away


@dataclass(frozen=True)
class Pending:
    """What MLflow has not got: the number of records, and why (empty when there is nothing)."""

    records: int
    reason: str = ""


def default_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve()}/mlflow.db"


def check_uri(uri: str) -> str:
    """The URI, of a known kind and with an absolute path; SettingsError otherwise, before any work starts."""
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme not in SCHEMES or (scheme != "databricks" and "://" not in uri):
        kinds = "sqlite:////absolute/path/mlflow.db, http(s)://HOST:PORT or a database's URI"
        raise SettingsError(f"tracking URI {shown(uri)!r} is of no kind that MLflow takes; give {kinds}")
    file = sqlite_file(uri)
    if file is None:
        return uri
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"tracking URI {shown(uri)!r}: {file.parent} cannot be made ({error.strerror})") from None
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise SettingsError(
            f"tracking URI {shown(uri)!r}: {file} cannot be written; choose another place for the SQLite file"
        )
    return f"sqlite:///{file}"


def sqlite_file(uri: str) -> Path | None:
    """The absolute path in a SQLite URI, None for another URI; SettingsError for one without a file."""
    if not uri.lower().startswith("sqlite:"):
        return None
    path = uri.partition(":///")[2].partition("?")[0]
    if not path or path == ":memory:":
        raise SettingsError(f"tracking URI {shown(uri)!r} names no file; give sqlite:////absolute/path/mlflow.db")
    return Path(path).absolute()


class Cursors:
    """How far each journal has been sent to one server: {journal uuid: {"offset": bytes, "run_id": text}} on disk."""

    def __init__(self, root: Path, uri: str) -> None:
        """Read `root/tracking.json`; a SQLite file that is gone has got nothing, whatever was sent to it."""
        self.path = root / CURSORS
        self._key = store_key(uri)
        self._all: dict[str, Any] = {"schema": 1, "sent": {}}
        # Written whole and renamed; should it be lost all the same, replaying all is harmless.
        with suppress(OSError, ValueError):
            self._all = json.loads(self.path.read_text(encoding="utf-8"))
        file = sqlite_file(uri)
        if file is not None and not file.exists():
            self._all["sent"].pop(self._key, None)
        self._mine: dict[str, dict[str, Any]] = self._all["sent"].setdefault(self._key, {})

    def get(self, journal: str) -> tuple[int, str | None]:
        """(offset of the first byte not sent, MLflow run id or None)."""
        entry = self._mine.get(journal, {})
        return int(entry.get("offset", 0)), entry.get("run_id")

    def put(self, journal: str, offset: int, run_id: str | None) -> None:
        """Remember and write to disk."""
        self._mine[journal] = {"offset": offset, "run_id": run_id}
        part = self.path.with_suffix(".tmp")
        part.write_text(json.dumps(self._all), encoding="utf-8")
        os.replace(part, self.path)


def journals(root: Path) -> list[Path]:
    """All journals under a folder, parents before their children."""
    found = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in ("checkpoints", "mlartifacts", "model"))
        if FILENAME in files:
            found.append(Path(folder) / FILENAME)
    return found


def waiting(root: Path, uri: str) -> int:
    """How many records under `root` have not been sent to `uri`; cheap where there is none."""
    cursors, count = Cursors(root, uri), 0
    for path in journals(root):
        header = next(read(path), None)
        if header is None:
            continue
        offset, _ = cursors.get(header["journal"])
        size = path.stat().st_size
        if size != offset:
            count += sum(record["op"] != "header" for record in read(path, offset if offset < size else 0))
    return count


class Tracker:
    """Sends the journals under `root` to MLflow while the work goes on; a context manager.

    One line goes to `say` when the server cannot be reached and one when it is back; training is never held up.
    With `require`, `start` and `close` raise ServiceError instead.
    """

    def __init__(
        self,
        root: Path,
        uri: str,
        experiment: str = "tessera",
        require: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """SettingsError where the URI is of no known kind or its SQLite file cannot be written.

        `say` is called from another thread; default: a line on standard error.
        """
        self.root, self.uri, self.experiment, self.require = root.absolute(), check_uri(uri), experiment, require
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._reason = ""  # why the server is away; empty while it is not
        self._finish = 0.0  # the moment by which the writer must be done; 0 while it shall go on
        self._lock = threading.Lock()

    @staticmethod
    def ui_command(uri: str) -> str:
        """The command that opens MLflow's UI on this store, or the address of the server that has one."""
        if uri.startswith(("http", "databricks")):
            return shown(uri)
        return f"mlflow ui --backend-store-uri {shlex.quote(shown(uri))} --host 127.0.0.1 --port 5000"

    def start(self) -> None:
        """Start the writer and return at once; with `require`, wait for the server or raise ServiceError."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._spawn()
        self._thread = threading.Thread(target=self._watch, name="mlflow-writer", daemon=True)
        self._thread.start()
        if not self.require:
            return
        # The writer's own start (importing MLflow, making a fresh database) is not the server's fault.
        limit, since = time.monotonic() + 6 * PATIENCE, None
        while not self._ready.wait(0.1):
            if self._reason and since is None:
                since = time.monotonic()
            if time.monotonic() > (limit if since is None else since + PATIENCE) or self._over.is_set():
                self._stop(0.0)
                raise self._error("start it, correct MLFLOW_TRACKING_URI, or leave out --require-tracking")

    def close(self, timeout: float = 60) -> Pending:
        """Have the writer read all journals to their end, wait for it, and tell what still waits.

        A server that is away is given GRACE seconds (with `require` all of `timeout`); what waits stays in the
        journals for `sync`. With `require` ServiceError is raised if anything does.
        """
        self._stop(timeout)
        left = waiting(self.root, self.uri)
        if left and self.require:
            raise self._error(f"{left} records wait in {self.root}; start the same command again when it is back")
        return Pending(left, (self._reason or "the time was over") if left else "")

    def __enter__(self) -> Tracker:
        """Start the writer."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close; another error on its way out is never hidden by a missing server."""
        with nullcontext() if error is None else suppress(ServiceError):
            self.close()

    def _error(self, advice: str) -> ServiceError:
        return ServiceError(f"MLflow at {shown(self.uri)} cannot be reached ({self._reason or 'no answer'}); {advice}")

    def _spawn(self) -> None:
        # Not on the command line, which every user of the machine can read; -P: no `ops` of the current folder.
        path = [str(Path(ops.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {**os.environ, "MLFLOW_TRACKING_URI": self.uri, "PYTHONPATH": os.pathsep.join(path)}
        command = [sys.executable, "-P", "-m", "ops.tracking.mlflow_sink", "--experiment", self.experiment]
        # Its own session: Ctrl-C goes to the driver, which then tells the writer to finish.
        self._process = subprocess.Popen(  # noqa: S603
            [*command, "--root", str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )

    def _watch(self) -> None:
        """Follow the writer's events; start it again when something killed it."""
        for restart in range(RESTARTS + 1):
            process = self._process
            assert process is not None
            for line in process.stdout or ():
                if line.startswith('{"event"'):  # else a library's own print
                    self._event(json.loads(line))
            code = process.wait()
            hang_up(process)
            if self._over.is_set() or restart == RESTARTS:
                break
            self._say(f"the MLflow writer ended with code {code}; it is started again, nothing is lost")
            if self._over.wait(min(2.0**restart, 15)):
                break
            with self._lock:
                self._spawn()
                self._tell()
        self._over.set()

    def _event(self, event: dict[str, str]) -> None:
        name, reason, where = event["event"], event.get("reason", ""), shown(self.uri)
        if name == "ready":
            self._ready.set()
        elif name == "away":
            self._reason = reason
            kept = f"training goes on, records are kept in {self.root} and sent when it is back"
            self._say(f"MLflow at {where} cannot be reached ({reason}); {kept}")
        elif name == "back":
            self._reason = ""
            self._say(f"MLflow at {where} is back; the records that waited are being sent")
        elif name == "refused":
            self._say(f"MLflow at {where} refused a record ({reason}); it stays in the journal")
        elif name == "done" and self._finish:  # else SIGTERM ended it, and work goes on
            self._over.set()

    def _tell(self) -> None:
        """Pass the order to finish on, once there is one."""
        if self._finish and self._process is not None and (pipe := self._process.stdin) is not None:
            left = max(self._finish - time.monotonic(), 0.0)
            with suppress(OSError, ValueError):  # it has just died: the next one is told
                pipe.write(f"{left} {left if self.require else min(left, GRACE)}\n")
                pipe.flush()

    def _stop(self, timeout: float) -> None:
        if self._thread is None or self._process is None:
            return
        with self._lock:
            self._finish = time.monotonic() + timeout
            self._tell()
        self._thread.join(timeout + GRACE)
        self._over.set()
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join(GRACE)
        self._thread = None


def hang_up(process: subprocess.Popen[str]) -> None:
    """Close the pipes of a process that has ended."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # an order that it did not live to read
                pipe.close()


def sync(root: Path, uri: str, experiment: str = "tessera", timeout: float = 60, require: bool = False) -> Pending:
    """Send what a finished run left waiting, `require` as for Tracker; returns at once where nothing waits."""
    uri = check_uri(uri)
    if not root.is_dir() or waiting(root, uri) == 0:
        return Pending(0)
    (tracker := Tracker(root, uri, experiment, require)).start()
    return tracker.close(timeout)
