"""Sends the records of a study or run to MLflow while the work goes on, and by the same command later: one thread."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ops.config.tracking_uri import check_uri
from ops.distributed.apart import apart
from ops.errors import ResourceError, ServiceError
from ops.masking import shown
from ops.storage.status import Status, folders
from ops.tracking.records import SENT, UPLOADS, large, parts, send_part, sent
from ops.tracking.store import Away, Refused, connect, translated

if TYPE_CHECKING:
    from mlflow.entities import Run

PATIENCE = 10.0  # seconds that a required server gets to answer
LAST = 60.0  # seconds that sending goes on behind the work; ten times as many where MLflow is required and answers
GRACE = 5.0  # seconds that closing waits for a server that is away
BACKOFF = 15.0  # seconds at most between tries
SWITCH = 0.0005  # seconds
EVERY, SHARE = 0.5, 20  # seconds between looks; the thread rests so many times as long as it worked
ROOT, ID, KEY = "tessera.root", "tessera.id", "tessera.run"  # tags of a run


@contextmanager
def tracked(root: Path, uri: str, *, require: bool, warn: Callable[[str], None]) -> Iterator[None]:
    """While inside, MLflow at `uri` gets what is recorded below `root`; at the end what it lacks of it.

    It never stops the work: `warn` (called from a thread too) gets one line when MLflow cannot be reached, one when it
    is back, one for each cause of a refusal, and at the end how much waits. With `require` ServiceError is raised
    instead, before the work where MLflow does not answer, behind it where anything waits.
    """
    sender = Sender(root, uri, require, warn)
    sender.start()
    try:
        yield
    finally:
        waiting, reason = sender.close(LAST)
    if waiting and require:
        raise ServiceError(f"{reason}; {waiting} records wait in {root}, the same command sends them")
    if waiting:
        why = reason.removeprefix(sender.where).lstrip(": ")
        warn(f"{waiting} records wait for MLflow ({why}); the same command sends them")


class Sender:
    """The thread behind `tracked`."""

    def __init__(self, root: Path, uri: str, require: bool, warn: Callable[[str], None]) -> None:
        """Raises SettingsError where the URI is of no kind that MLflow takes or its SQLite file cannot be written."""
        self.root, self.uri, self.require, self.warn = root.absolute(), check_uri(uri), require, warn
        self.experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "tessera"
        self.where = f"MLflow at {shown(self.uri)}"
        self.thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self.tried, self.closing = threading.Event(), threading.Event()
        self.deadline = self.grace = float("inf")  # from when nothing is sent, and MLflow that is away not waited for
        self.client: Any = None
        self.runs: dict[str, "Run"] = {}  # MLflow's, by the id of a folder's status
        self.away = ""  # why MLflow takes nothing; empty while it does
        self.refused: dict[str, str] = {}  # what it does not take -> why
        self.reported: set[str] = set()  # causes, without what differs from file to file

    def start(self) -> None:
        """Begin. Raises ServiceError where MLflow is required and does not answer."""
        # A training of short operations waits so long for the interpreter after each one while the thread is at work:
        # with Python's 5 ms a seed of the demo took 46 s in place of 27.
        sys.setswitchinterval(SWITCH)
        self.thread.start()
        # To import MLflow beside the first epochs would slow both. How long that takes is not the server's fault.
        self.tried.wait(12 * PATIENCE if self.require else PATIENCE)
        limit = time.monotonic() + PATIENCE
        while self.require and self.client is None:
            if time.monotonic() > limit:
                self.close(0.0)
                advice = "start or restore it, correct MLFLOW_TRACKING_URI, or leave out --require-tracking"
                raise ServiceError(f"{self.away or self.where + ' does not answer'}; {advice}")
            time.sleep(0.1)

    def close(self, seconds: float) -> tuple[int, str]:
        """Send all that there is in so many seconds; returns the number of records that wait, and why."""
        now, patient = time.monotonic(), self.require
        self.deadline, self.grace = now + seconds * (10 if patient else 1), now + (seconds if patient else GRACE)
        self.closing.set()
        self.thread.join(self.deadline - now)
        lacking = [
            part for folder, status in folders(self.root) for part, digest in parts(folder, status).items()
            if sent(self.runs.get(status["id"])).get(part) != digest
        ]  # fmt: skip
        return len(lacking), self.away or next(iter(self.refused.values()), "the time was over")

    def _work(self) -> None:
        wait = 1.0
        while True:
            last, began = self.closing.is_set(), time.monotonic()  # what was recorded before closing is in this pass
            try:
                self._pass()
                rest, wait = BACKOFF if self.refused else max(EVERY, SHARE * (time.monotonic() - began)), 1.0
            except (Away, Refused) as error:
                if not self.away:
                    self.warn(f"{error}; training goes on, records are kept in {self.root} and sent when it is back")
                self.away, self.client = str(error), None
                rest, wait = min(wait, 1.0) if last else wait, min(2 * wait, BACKOFF)
            except OSError:  # a folder was removed while it was read
                rest = EVERY
            self.tried.set()
            if last and (self.client is not None or time.monotonic() > self.grace):
                return
            (time.sleep if last else self.closing.wait)(rest)

    def _pass(self) -> None:
        """Send what every folder has. Raises Away."""
        if self.client is None or self.refused:
            client, self.experiment_id = connect(self.uri, self.experiment)
            self.client, self.runs = client, {}
            if self.away:
                self.warn(f"{self.where} is back; the records that waited are being sent")
            self.away = ""
        self.refused = {}
        runs: dict[Path, "Run"] = {}
        for folder, status in folders(self.root):
            try:
                with translated(self.where):
                    run = runs[folder] = self._run(folder, status, runs.get(folder.parent))
            except Refused as error:
                self._refuse(folder, error)
                continue
            for part, digest in parts(folder, status).items():
                if sent(run).get(part) != digest and time.monotonic() < self.deadline:
                    self._send(folder, status, run, part, digest)

    def _run(self, folder: Path, status: Status, parent: "Run | None") -> "Run":
        """The folder's run, created unless MLflow has it. Raises Refused where it, or the one above it, is deleted."""
        from mlflow.entities import ViewType

        if folder == self.root and status["id"] not in self.runs:
            query = f"tags.`{ROOT}` = '{status['id']}'"
            existing = self.client.search_runs([self.experiment_id], query, ViewType.ALL, 50_000)
            self.runs, self.tags = {run.data.tags[ID]: run for run in existing}, {ROOT: status["id"]}
        run = self.runs.get(status["id"])
        if parent is None and folder != self.root:
            raise Refused("the run above it is not in MLflow")
        if run is None:
            tags = self.tags | {ID: status["id"], KEY: folder.relative_to(self.root.parent).as_posix()}
            tags |= {"mlflow.parentRunId": parent.info.run_id} if parent else {}
            run = self.client.create_run(self.experiment_id, status["started"], tags, status["name"])
            self.runs[status["id"]] = run
        if run.info.lifecycle_stage == "deleted":
            raise Refused(f"the run is deleted: restore it with `mlflow runs restore --run-id {run.info.run_id}`")
        return run

    def _send(self, folder: Path, status: Status, run: "Run", part: str, digest: str) -> None:
        """Send a part; what is refused does not hold up the others. Raises Away where MLflow itself is."""
        try:
            if part in UPLOADS and large(folder / part):  # its bytes and its copies are another process's
                request = self.uri, self.experiment, run.info.run_id, part, folder, status
                apart(send_apart, *request, over=lambda: time.monotonic() > self.deadline)
            else:
                with translated(f"the artifact store of {self.where}" if part in UPLOADS else self.where):
                    send_part(self.client, run, part, folder, status)
            with translated(self.where):
                digests = json.dumps(sent(run) | {part: digest}, sort_keys=True)
                self.client.set_tag(run.info.run_id, SENT, digests)
                run.data.tags[SENT] = digests
        except Refused as error:
            self._refuse(folder / part, error)
        except ResourceError as error:
            if time.monotonic() < self.deadline:  # else it was ended for the time
                self._refuse(folder / part, Refused(str(error)))
        except Away as error:
            if part not in UPLOADS:
                raise
            connect(self.uri, self.experiment)  # raises Away where it is MLflow itself
            self._refuse(folder / part, Refused(f"{error}: start it or correct its credentials"))

    def _refuse(self, path: Path, reason: Refused) -> None:
        what = path.relative_to(self.root.parent).as_posix()
        self.refused[what] = str(reason)
        cause = re.sub(r"[0-9a-f]{32}|/\S+|\(.*\)", "", str(reason))
        if cause not in self.reported:
            self.reported.add(cause)
            self.warn(f"MLflow does not take {what} ({reason}); it waits, the same command sends it again")


def send_apart(uri: str, experiment: str, run_id: str, part: str, folder: Path, status: Status) -> None:
    """Send one part as a process of its own. Raises Away and Refused."""
    client, _ = connect(uri, experiment)
    with translated(f"the artifact store of MLflow at {shown(uri)}"):
        send_part(client, client.get_run(run_id), part, folder, status)
