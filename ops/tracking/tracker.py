"""Sends the records of a study or run to MLflow while the work goes on, and by the same command later: one thread."""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.distributed.apart import apart
from ops.errors import DataError, ServiceError, TesseraError
from ops.masking import shown
from ops.storage.status import Status, folders
from ops.tracking.store import FILES, SENT, connect, gist, parts, send_part, sent, stats

if TYPE_CHECKING:
    from mlflow.entities import Run

PATIENCE = 10.0  # seconds that a server gets to answer before the work begins
LAST = 60.0  # seconds that sending goes on behind the work; ten times as many where MLflow is required and answers
GRACE = 5.0  # seconds that closing waits for a server that is away
BACKOFF = 5.0  # seconds between tries
EVERY, SHARE = 0.5, 20  # seconds between looks; the thread rests so many times as long as it worked
LARGE = 8 * 2**20  # bytes; what has more grows with the data: this process neither reads nor sends it
ID, KEY = "tessera.id", "tessera.run"  # tags of a run


class Tracking:
    """While inside, MLflow at `uri` gets what is recorded below `root`; at the end what it lacks of it: one thread.

    It never stops the work: `warn` (called from a thread too) gets one line when MLflow cannot be reached, one when it
    is back, one for each cause of a refusal, and at the end how much waits. With `require` ServiceError is raised
    instead, before the work where MLflow does not answer, behind it where anything waits.
    """

    def __init__(self, root: Path, uri: str, *, require: bool, warn: Callable[[str], None]) -> None:
        self.root, self.uri, self.require, self.warn = root.absolute(), uri, require, warn
        self.where = f"MLflow at {shown(self.uri)}"
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.tried, self.closing = threading.Event(), threading.Event()
        self.deadline = self.grace = float("inf")  # from when nothing is sent, and MLflow that is away not waited for
        self.client: Any = None
        self.runs: dict[str, "Run"] = {}  # MLflow's, by the id of a folder's status
        self.away = ""  # why MLflow takes nothing; empty while it does
        self.refused = ""  # why it does not take a record that others do not depend on; empty where it takes all
        self.reported: set[str] = set()  # causes, without what differs from file to file

    def __enter__(self) -> None:
        # A training of short operations waits so long for the interpreter after each one while the thread is at work:
        # with Python's 5 ms a seed of the demo took 46 s in place of 27.
        sys.setswitchinterval(0.0005)
        self.thread.start()
        # To import MLflow beside the first epochs would slow both. How long that takes is not the server's fault.
        self.tried.wait(12 * PATIENCE if self.require else PATIENCE)
        limit = time.monotonic() + PATIENCE
        while self.require and self.client is None and time.monotonic() < limit:
            time.sleep(0.2)
        if self.require and self.client is None:
            self.deadline = self.grace = 0.0
            self.closing.set()
            advice = "start or restore it, correct MLFLOW_TRACKING_URI, or leave out --require-tracking"
            raise ServiceError(f"{self.away or self.where + ' does not answer'}; {advice}")

    def __exit__(self, _: object, error: object, trace: object) -> None:
        """Send all that there is while there is time; tell how many records wait then, and why."""
        patience = 10 * LAST if self.require else LAST
        self.deadline = time.monotonic() + patience
        self.grace = time.monotonic() + (LAST if self.require else GRACE)
        self.closing.set()
        self.thread.join(patience)
        waiting = 0
        for folder, status in folders(self.root):
            there = sent(self.runs.get(status["id"]))
            waiting += sum(there.get(part) != mark for part, mark in parts(folder, status).items())
        pending = f"{self.away or self.refused or 'the time was over'}; {waiting} records wait in {self.root}"
        if waiting and error is None:
            if self.require:
                raise ServiceError(f"{pending}, the same command sends them")
            self.warn(f"{pending}, the same command sends them")

    def _work(self) -> None:
        last = False
        while not last or (self.away and time.monotonic() < self.grace):
            last, began = self.closing.is_set(), time.monotonic()  # what was recorded before closing is in this pass
            try:
                with suppress(OSError):  # a folder was removed while it was read
                    self._pass()
            except ServiceError as error:
                if not self.away:
                    self.warn(f"{error}; training goes on, records are kept in {self.root} and sent when it is back")
                self.away, self.client = str(error), None
            self.tried.set()
            if not last:
                pause = BACKOFF if self.away or self.refused else max(EVERY, SHARE * (time.monotonic() - began))
                self.closing.wait(pause)
            elif self.away:
                time.sleep(1.0)

    def _pass(self) -> None:
        """Send what every folder has. Raises ServiceError."""
        if self.client is None or self.refused:
            self.client, self.experiment_id = connect(self.uri)
            self.runs, self.refused = {}, ""
            if self.away:
                self.warn(f"{self.where} is back; the records that waited are being sent")
            self.away = ""
        runs: dict[Path, "Run"] = {}
        for folder, status in folders(self.root):
            if time.monotonic() > self.deadline:
                return
            with self._attempt(folder):
                runs[folder] = self._run(folder, status, runs.get(folder.parent))
            run = runs.get(folder)
            if run is None:
                continue
            for part, mark in parts(folder, status).items():
                if sent(run).get(part) == mark or time.monotonic() > self.deadline:
                    continue
                with self._attempt(folder / part):
                    record = self.client, run, part, folder, status
                    if part in FILES and sum(each.st_size for each in stats(folder / part)) > LARGE:
                        apart(send_part, *record, over=lambda: time.monotonic() > self.deadline)
                    else:
                        send_part(*record)
                    marks = json.dumps(sent(run) | {part: mark}, sort_keys=True)
                    self.client.set_tag(run.info.run_id, SENT, marks)
                    run.data.tags[SENT] = marks

    @contextmanager
    def _attempt(self, path: Path) -> Iterator[None]:
        """What MLflow or its artifact store does not take is told once and holds up nothing else."""
        try:
            yield
        except Exception as error:
            if time.monotonic() > self.deadline:
                return
            connect(self.uri)  # raises ServiceError where it is MLflow itself
            what, reason = path.relative_to(self.root.parent).as_posix(), gist(error)
            if path.name in FILES and not isinstance(error, TesseraError):
                reason = f"the artifact store of {self.where} fails ({reason}): start it or correct its credentials"
            self.refused = self.refused or reason
            cause = re.sub(r"[0-9a-f]{32}|/\S+|\(.*\)", "", reason)
            if cause not in self.reported:
                self.reported.add(cause)
                self.warn(f"MLflow does not take {what} ({reason}); it waits, the same command sends it again")

    def _run(self, folder: Path, status: Status, parent: "Run | None") -> "Run":
        """The folder's run, created unless MLflow has it. DataError: it, or the one above it, is deleted."""
        from mlflow.entities import ViewType

        if parent is None and folder != self.root:
            raise DataError("the run above it is not in MLflow")
        if status["id"] not in self.runs:
            query = f"tags.`{ID}` = '{status['id']}'"
            existing = self.client.search_runs([self.experiment_id], query, ViewType.ALL, 1)
            tags = {ID: status["id"], KEY: folder.relative_to(self.root.parent).as_posix()}
            tags |= {"mlflow.parentRunId": parent.info.run_id} if parent else {}
            create = (self.experiment_id, status["started"], tags, status["name"])
            self.runs[status["id"]] = existing[0] if existing else self.client.create_run(*create)
        run = self.runs[status["id"]]
        if run.info.lifecycle_stage == "deleted":
            raise DataError(f"the run is deleted: restore it with `mlflow runs restore --run-id {run.info.run_id}`")
        return run
