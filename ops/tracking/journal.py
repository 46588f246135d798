"""The append-only record of one run: what training writes, and the only thing MLflow is ever filled from.

One `journal.jsonl` lies in the folder of each study, trial, run and seed. The training process appends to it: no
network, no MLflow, nothing that can slow an epoch. `ops.tracking.mlflow_sink` reads it and sends it on, now or later.

A line is one JSON object with "op", "run" and "time" (ms since 1970, when it was first recorded), and by op:
    header    journal (a uuid), schema           the first line; `--fresh` removes the file, so the next has its own
    start     name, parent, params, tags
    resume    params, tags                       what is new or changed since; the run is RUNNING again
    metric    key, step, value                   NaN and infinities as the strings "nan", "inf", "-inf"
    artifact  path, target, digest               path relative to the folder; digest of the content
    model     path, name, alias, digest
    end       status                             FINISHED, KILLED or FAILED

What already stands is not written again. So a resumed run may repeat the epochs after its checkpoint: the first
record and its time win, and nothing is logged twice. Only a summary (of all seeds) is written again, with a later
time, once its value is another one; of two values of a step MLflow shows the later one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ops.errors import ResourceError

FILENAME = "journal.jsonl"
Status = Literal["FINISHED", "KILLED", "FAILED"]
Record = dict[str, Any]


class Journal:
    """Appends one run's records to `folder/journal.jsonl`; one process at a time (the run's lock sees to that).

    Opening cuts a line that a kill left unfinished. Every method raises ResourceError where the disk is full; the
    file then ends with its last whole record.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """`run` is a stable key such as "hsan-cora-1a2b3c4d/seed-0", by which children name their parent."""
        self.folder = folder
        self.path = folder / FILENAME
        self.run = run
        self._metrics: dict[tuple[str, int], float | str] = {}
        self._latest = 0  # the latest time in the file
        self._files: dict[tuple[str, ...], str] = {}  # what (artifact or model, and where to) -> last digest
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._status: str | None = None  # None before start, then RUNNING or how it ended
        folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0
        for record, end in read_from(self.path):
            self._remember(record)
            self._size = end
        os.ftruncate(self._fd, self._size)
        if self._size == 0:
            # An identity, not a random draw of the training: it must differ after --fresh.
            self._append([{"op": "header", "journal": uuid.uuid4().hex, "schema": 1}])

    def start(self, name: str, parent: str | None, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Open the run, or set an ended one back to running; a parameter's first value stays (as MLflow demands)."""
        text = {key: str(value) for key, value in params.items()}
        if self._status is None:
            self._append([{"op": "start", "name": name, "parent": parent, "params": text, "tags": dict(tags)}])
            return
        new_params = {key: value for key, value in text.items() if key not in self._params}
        new_tags = {key: value for key, value in tags.items() if self._tags.get(key) != value}
        if self._status != "RUNNING" or new_params or new_tags:
            self._append([{"op": "resume", "params": new_params, "tags": new_tags}])

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record one step's values; (key, step) pairs that already stand are left out."""
        step = int(step)
        self._append(
            [
                {"op": "metric", "key": key, "step": step, "value": _plain(value)}
                for key, value in values.items()
                if (key, step) not in self._metrics
            ]
        )

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Record figures over all seeds; those that stand with another value again, since a seed more changes them."""
        step = int(step)
        # Later than all that stands, also where the clock was set back: MLflow takes the latest of a step's values.
        when = max(time.time_ns() // 1_000_000, self._latest + 1)
        self._append(
            [
                {"op": "metric", "key": key, "step": step, "value": _plain(value), "time": when}
                for key, value in values.items()
                if self._metrics.get((key, step)) != _plain(value)
            ]
        )

    def artifact(self, path: Path, target: str = "") -> None:
        """Record a file or folder inside the run's folder, to be kept under `target`; again only if it changed."""
        self._file("artifact", path, {"target": target}, (target,))

    def model(self, folder: str, registered_name: str, alias: str = "last") -> None:
        """Record the model in `folder` (relative), to be registered under a name with an alias; again if it changed."""
        self._file("model", Path(folder), {"name": registered_name, "alias": alias}, (registered_name, alias))

    def end(self, status: Status) -> None:
        """Close the run with a status; the same status twice is recorded once."""
        if self._status != status:
            self._append([{"op": "end", "status": status}])

    def close(self) -> None:
        """Give the file back; what was recorded is on disk (also after a power cut)."""
        if self._fd >= 0:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        """The open journal."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def _file(self, op: str, path: Path, extra: dict[str, str], key: tuple[str, ...]) -> None:
        full = self.folder / path
        relative = full.resolve().relative_to(self.folder.resolve()).as_posix()
        digest = _digest(full)
        if self._files.get((op, relative, *key)) != digest:
            self._append([{"op": op, "path": relative, **extra, "digest": digest}])

    def _append(self, records: list[Record]) -> None:
        """All lines in one write: a kill leaves whole lines and at most one torn one, which the next open cuts."""
        if not records:
            return
        now = time.time_ns() // 1_000_000
        full = [{"op": record.pop("op"), "run": self.run, "time": now, **record} for record in records]
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in full).encode()
        try:
            written = os.write(self._fd, lines)
            if written < len(lines):
                raise OSError("no space left on the device")
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            reason = error.strerror or error
            raise ResourceError(f"{self.path}: {reason}; free some space and start the same command again") from None
        self._size += len(lines)
        for record in full:
            self._remember(record)

    def _remember(self, record: Record) -> None:
        op = record["op"]
        self._latest = max(self._latest, record["time"])
        if op == "metric":
            self._metrics[record["key"], record["step"]] = record["value"]
        elif op == "artifact":
            self._files["artifact", record["path"], record["target"]] = record["digest"]
        elif op == "model":
            self._files["model", record["path"], record["name"], record["alias"]] = record["digest"]
        elif op in ("start", "resume"):
            self._status = "RUNNING"
            self._params.update(record["params"])
            self._tags.update(record["tags"])
        elif op == "end":
            self._status = record["status"]


def read(path: Path, offset: int = 0) -> Iterator[Record]:
    """The whole records of a journal from a byte offset on; a line still being written is not among them."""
    for record, _ in read_from(path, offset):
        yield record


def read_from(path: Path, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """As `read`, each record with the offset just behind it; what a power cut left after them is not read."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                return
            offset += len(line)
            yield record, offset


def finished(folder: Path) -> bool:
    """Whether the folder's journal ends with FINISHED: report, files and model, which follow the results, stand too."""
    path = folder / FILENAME
    records = deque(read(path), maxlen=1) if path.exists() else []
    return any(record.get("status") == "FINISHED" for record in records)


def batches(path: Path, offset: int, size: int) -> Iterator[tuple[list[Record], int]]:
    """The records from an offset on, metrics in groups of up to `size`, others alone; each group with its end."""
    group: list[Record] = []
    end = offset
    for record, behind in read_from(path, offset):
        if group and (record["op"] != "metric" or len(group) == size):
            yield group, end
            group = []
        group.append(record)
        end = behind
        if record["op"] != "metric":
            yield group, end
            group = []
    if group:
        yield group, end


def number(value: float | str) -> float:
    """A metric's value as it was given, from how `Journal` wrote it."""
    return float(value)


def _plain(value: float) -> float | str:
    """JSON knows neither NaN nor infinities."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's names and contents in sorted order."""
    h = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        h.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                h.update(block)
    return h.hexdigest()
