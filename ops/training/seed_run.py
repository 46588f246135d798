"""One seed of one run on disk: what `run` is for a method that trains in this process or inside a trial.

It scores assignments (indices without labels; labels only through the Evaluator), keeps the history, checkpoints and
passes a stop on. The method sees none of it.
"""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops import memory
from ops.api import Arrays, Judge, Record, State, Warm
from ops.atomic_io import atomic_write, plain, write_json
from ops.config.console import Clock, Console
from ops.errors import DivergedError, Interrupted
from ops.evaluation.labelled import Evaluator
from ops.storage.status import HISTORY
from ops.training import checkpoint

CHECKPOINT_SECONDS = 60.0
COLLAPSED_SHARE, COLLAPSED_TIMES = 0.95, 3
BRANCH = "branch/"  # embeddings of this name are other clusters of the same rows, int64 [N], scored beside
COLLAPSED_STD = 0.1  # of `collapse/std`: 1 where projections of unit length point everywhere, 0 where all point one way


@dataclass(frozen=True)
class Judges:
    """Who scores an assignment: `unlabelled` gives indices by name, `evaluator` the scores that need labels."""

    unlabelled: Judge
    evaluator: Evaluator
    n_clusters: int
    rows: int


class SeedRun:
    """`ops.api.Run` on a folder; `start` is its newest sound checkpoint, or None.

    `stop` is asked at every report: a true answer writes a checkpoint and raises Interrupted. `on_record` hears of
    every epoch (a search reports to its scheduler there). `cure`: what helps this method against a collapse.
    """

    def __init__(
        self, folder: Path, seed: int, epochs: int, judges: Judges, console: Console, *,
        threads: int, device: str = "cpu", stop: Callable[[], bool] = lambda: False,
        on_record: Callable[[Record], None] = lambda record: None, on_checkpoint: Callable[[], None] = lambda: None,
        stop_on_collapse: bool = False, warm: Warm | None = None, workers: int = 0,
        cure: str = "lower --lr",
    ) -> None:  # fmt: skip
        self.folder, self.seed, self.rank, self.world = folder, seed, 0, 1
        self.device, self.warm = torch.device(device), warm
        self.history: list[Record] = []
        self.assignments: dict[int, NDArray[np.int64]] = {}
        self.warnings: list[str] = []
        self._judges, self._console, self._stop = judges, console, stop
        self._on_checkpoint = on_checkpoint
        self._on_record, self._stop_on_collapse, self._threads = on_record, stop_on_collapse, [workers, threads]
        self._collapsed, self._cure = 0, cure
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0, "peak": 0.0}  # by earlier processes of this seed
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._last_epoch_at = self._began
        self.workers_spent = (0.0, 0.0)  # CPU seconds of all and the largest peak (bytes) of one, where others train
        self._checkpointed = float("-inf")
        folder.mkdir(parents=True, exist_ok=True)
        memory.reset_peak()
        self.start = self._resume()
        self._clock = Clock(self.start.epoch + 1 if self.start else 0, epochs - 1)
        self._history_file = (folder / HISTORY).open("a", encoding="utf-8")

    @property
    def resumed_from(self) -> list[int]:
        """The epochs that this seed was resumed from, oldest first."""
        with suppress(OSError, ValueError):
            return [int(e) for e in json.loads((self.folder / "resumed.json").read_text())]
        return []

    def spent(self) -> dict[str, float]:
        """Seconds, CPU seconds and peak GiB of this seed, earlier processes included."""
        return {
            "seconds": self._before["seconds"] + time.monotonic() - self._began,
            "cpu_seconds": self._before["cpu_seconds"] + time.process_time() - self._cpu + self.workers_spent[0],
            "peak_memory_gib": max(self._before["peak"], self._peak()),
        }

    def _peak(self) -> float:
        """GiB of the process that trains."""
        return (self.workers_spent[1] or memory.peak()) / 2**30

    def report(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        """See `ops.api.Run.report`."""
        record: Record = {"epoch": epoch, **metrics}
        if assignment is not None:
            self.assignments[epoch] = assignment
            record |= self._score(assignment, embeddings or {})
        now = time.monotonic()
        took = now - self._last_epoch_at
        record |= {"sys/epoch_s": took, "sys/samples_per_s": self._judges.rows / max(took, 1e-9)}
        record |= {"sys/peak_memory_gib": self._peak(), "sys/time": time.time()}
        self.history.append(record)
        self._history_file.write(json.dumps(plain(record)) + "\n")
        self._history_file.flush()
        who = f"seed {self.seed}"
        self._console.progress(self._clock.line(who, epoch, record), milestone=assignment is not None)
        if assignment is not None:
            self._watch_collapse(record, epoch, len(assignment))
        self._checkpoint(state, due=assignment is not None)
        self._last_epoch_at = time.monotonic()
        self._on_record(record)

    def __enter__(self) -> SeedRun:
        """The run; its history file is closed at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the history file."""
        self.close()

    def close(self) -> None:
        """Close the history file."""
        self._history_file.close()

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints of a seed that has ended."""
        for path in (self.folder / "checkpoints").glob("*"):
            shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            (self.folder / "checkpoints").rmdir()

    def _score(self, assignment: NDArray[np.int64], embeddings: Arrays) -> Record:
        found = self._judges.unlabelled(assignment, embeddings)
        score = found.pop("score", None)
        record = {f"cluster/{k}": v for k, v in found.items()}
        if score is not None:
            record["tune/score"] = score
        for name in [each for each in embeddings if each.startswith(BRANCH)]:  # clusters of the method's other branches
            found = self._judges.evaluator(np.asarray(embeddings[name], dtype=np.int64))
            record |= {f"{name}_{k}": v for k, v in found.items()}
        return record | {f"eval/{k}": v for k, v in self._judges.evaluator(assignment).items()}

    def _watch_collapse(self, record: Record, epoch: int, rows: int) -> None:
        largest = record.get("cluster/size_max", 0) > COLLAPSED_SHARE * rows
        clusters = record.get("cluster/empty", 0) * 2 > self._judges.n_clusters
        spread = record.get("collapse/std", 1.0)
        self._collapsed = self._collapsed + 1 if largest or clusters or spread < COLLAPSED_STD else 0
        if self._collapsed == COLLAPSED_TIMES:
            text = f"seed {self.seed}: the clusters have collapsed by epoch {epoch}; {self._cure}"
            if spread < COLLAPSED_STD:
                text = (f"seed {self.seed}: the projections collapsed by epoch {epoch} (collapse/std {spread:.3f}, "
                        f"1 is healthy); {self._cure}")  # fmt: skip
            self.warnings.append(text)
            if self._stop_on_collapse:
                raise DivergedError(text)
            self._console.warn(text)

    def _checkpoint(self, state: Callable[[], State] | None, *, due: bool) -> None:
        stopping = self._stop()
        recent = time.monotonic() - self._checkpointed < CHECKPOINT_SECONDS
        if state is not None and (stopping or (due and not recent)):
            made = state()
            spent = self.spent()
            extra: dict[str, Any] = {
                "run.history": plain(self.history),
                "run.threads": self._threads,
                "run.warnings": self.warnings,
                "run.collapsed": self._collapsed,
                "run.spent": {"peak": spent.pop("peak_memory_gib"), **spent},
                "run.assignment_epochs": torch.tensor(list(self.assignments), dtype=torch.int64),
            }
            if self.assignments:
                extra["run.assignments"] = torch.from_numpy(np.stack(list(self.assignments.values())).astype(np.int32))
            checkpoint.save(self.folder / "checkpoints", State(made.epoch, made.shared | extra, made.parts))
            self._on_checkpoint()
            self._checkpointed = time.monotonic()
        if stopping:
            epoch = self.history[-1]["epoch"]
            raise Interrupted(f"stopped after epoch {epoch:.0f} of seed {self.seed}; the checkpoint is kept")

    def _resume(self) -> State | None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = checkpoint.load_latest(self.folder / "checkpoints")
        for each in caught:
            self._console.warn(str(each.message))
        own = {k: v for k, v in (state.shared if state else {}).items() if k.startswith("run.")}
        if state is not None:
            self.history = [{k: float("nan") if v is None else v for k, v in r.items()} for r in own["run.history"]]
            epochs = own["run.assignment_epochs"].tolist()
            self.assignments = dict(zip(epochs, own["run.assignments"].numpy().astype(np.int64), strict=True))
            self._before, self.warnings = own["run.spent"], own["run.warnings"]
            self._collapsed = own["run.collapsed"]
            write_json(self.folder / "resumed.json", [*self.resumed_from, state.epoch])
            self._console.say(f"seed {self.seed}: resumed after epoch {state.epoch}")
            if own["run.threads"] != self._threads:
                both = (own["run.threads"], self._threads)
                before, now = (f"{w} workers of {t} threads" if w else f"{t} threads" for w, t in both)
                self._console.warn(
                    f"seed {self.seed} began with {before} and goes on with {now}: "
                    "the result may differ from an undisturbed run's in the last bits"
                )
        lines = "".join(json.dumps(plain(r)) + "\n" for r in self.history)
        atomic_write(self.folder / HISTORY, lines)
        return state and State(state.epoch, {k: v for k, v in state.shared.items() if k not in own}, state.parts)
