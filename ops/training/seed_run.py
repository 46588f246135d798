"""One seed of one run on disk: what `run` is for a method, in this process, inside a trial or on a worker of Ray Train.

It scores assignments (indices without labels; labels only through the evaluator), keeps the history, checkpoints and
passes a stop on. The method sees none of it. Of several workers rank 0 keeps the records; the others take part in
what needs all: the sum of their use of the machine, rank 0's decisions, a checkpoint's parts and, where each has rows
of its own, the scores.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from ops import memory
from ops.api import Record, State, Warm
from ops.atomic_io import Arrays, atomic_write, plain, write_json
from ops.clustering.owners import Owners
from ops.config.console import Clock, Console
from ops.device import Precision
from ops.errors import DivergedError, Interrupted
from ops.results.statistics import COLLAPSED_SHARE, numbers
from ops.storage.status import HISTORY
from ops.training.checkpoint import FOLDER, load_latest, save
from ops.training.experiment import Hooks, Judges, Worker

CHECKPOINT_SECONDS = 60.0
COLLAPSED_TIMES = 3
ASSIGNMENTS = "run.assignments"  # int32 [E n], of a part's rows
BRANCH = "branch/"  # embeddings of this name are other clusters of the same rows, int64 [N], scored beside
COLLAPSED_STD = 0.1  # of `collapse/std`: 1 where projections of unit length point everywhere, 0 where all point one way

V = TypeVar("V")


class SeedRun:
    """`ops.api.Run` on a folder; `start` is its newest sound checkpoint, or None.

    `cure`: what helps this method against a collapse. Workers without rows of their own need no `judges`; rank 0 keeps
    the history.
    """

    def __init__(
        self, folder: Path, seed: int, epochs: int, judges: Judges | None, console: Console, hooks: Hooks,
        worker: Worker, *, warm: Warm | None = None, stop_on_collapse: bool = False, cure: str = "lower --lr",
        precision: Precision = "float32",
    ) -> None:  # fmt: skip
        self.folder, self.seed, self.rank, self.world = folder, seed, worker.rank, max(worker.count, 1)
        self.device, self.warm = worker.device, warm
        self.history: list[Record] = []
        self.assignments: dict[int, NDArray[np.int64]] = {}
        self.warnings: list[str] = []
        self.judges, self._console, self._hooks = judges, console, hooks
        self._stop_on_collapse, self._threads = stop_on_collapse, [worker.count, worker.threads]
        self._checkpoints, self._collapsed, self._cure = worker.checkpoints, 0, cure
        self._before = {"seconds": 0.0, "cpu_seconds": 0.0, "peak": 0.0}  # by earlier processes of this seed
        self._began, self._cpu = time.monotonic(), time.process_time()
        self._last_epoch_at = self._began
        self._cpu_seconds, self._peak = 0.0, 0.0  # of all workers together, and bytes of the one that has the most
        self._checkpointed = float("-inf")
        memory.reset_peak()
        state = self._load()
        self._precisions = (state.shared.get("run.precision", precision) if state else precision, precision)
        self.precision = self._precisions[0] if self.device.type != "cpu" else "float32"
        self.start = state and State(
            state.epoch, _without_run(state.shared), {part: _without_run(each) for part, each in state.parts.items()}
        )
        if state is not None and judges is not None:
            self.assignments = _stored_assignments(state, judges.owners)
        if self.rank == 0:
            self._begin(state)
            self._clock = Clock(self.start.epoch + 1 if self.start else 0, epochs - 1)
            self._history_file = (folder / HISTORY).open("a", encoding="utf-8")

    @property
    def resumed_from(self) -> list[int]:
        """The epochs that this seed was resumed from, oldest first."""
        with suppress(OSError, ValueError, TypeError):
            return [int(e) for e in json.loads((self.folder / "resumed.json").read_text())]
        return []

    def spent(self) -> dict[str, float]:
        """Seconds, CPU seconds and peak GiB of this seed as of the last `measure`, earlier processes included."""
        return {
            "seconds": self._before["seconds"] + time.monotonic() - self._began,
            "cpu_seconds": self._before["cpu_seconds"] + self._cpu_seconds,
            "peak_memory_gib": max(self._before["peak"], self._peak / 2**30),
        }

    def measure(self) -> None:
        """Take the CPU seconds of all workers and the largest peak of one; called equally often by all ranks."""
        self._cpu_seconds, self._peak = time.process_time() - self._cpu, float(memory.peak())
        if self.world > 1:
            cpu, peak = torch.tensor([[self._cpu_seconds], [self._peak]], dtype=torch.float64, device=self.device)
            dist.all_reduce(cpu)
            dist.all_reduce(peak, op=dist.ReduceOp.MAX)
            self._cpu_seconds, self._peak = float(cpu), float(peak)

    def report(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        """See `ops.api.Run.report`."""
        self.measure()
        stopping = saving = False
        scores: Record = {}
        if assignment is not None and self.judges is not None:
            self.assignments[epoch] = assignment
            scores = _score(self.judges, assignment, embeddings or {})
        if self.rank == 0:
            self._record(epoch, metrics, scores)
            stopping = self._hooks.stop()
            recent = time.monotonic() - self._checkpointed < CHECKPOINT_SECONDS
            saving = state is not None and (stopping or (assignment is not None and not recent))
        stopping, saving = self._agreed(stopping, saving)
        if saving and state is not None:
            self._save(state())
        if stopping:
            raise Interrupted(f"stopped after epoch {epoch} of seed {self.seed}; the checkpoint is kept")
        self._last_epoch_at = time.monotonic()
        if self.rank == 0:
            self._hooks.record(self.history[-1])

    def __enter__(self) -> SeedRun:
        """The run; its history file is closed at the end."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the history file."""
        if self.rank == 0:
            self._history_file.close()

    def _agreed(self, *answers: bool) -> list[bool]:
        """Rank 0's answers, on every rank."""
        decided = torch.tensor(answers, dtype=torch.int64, device=self.device)
        if self.world > 1:
            dist.broadcast(decided, src=0)
        return [bool(each) for each in decided.tolist()]

    def publish(self) -> None:
        """Wait until what each rank has written is where rank 0's files are; ranks with rows of their own call it."""
        if self.rank:
            self._hooks.saved()
        if self.judges is not None and self.judges.owners.group.world > 1:
            dist.barrier()

    def _record(self, epoch: int, metrics: Mapping[str, float], scores: Record) -> None:
        """Keep and tell one epoch; `scores` are there where it was scored."""
        assert self.judges is not None
        record: Record = {"epoch": epoch, **metrics, **scores}
        took, rows = time.monotonic() - self._last_epoch_at, self.judges.owners.total
        record |= {"sys/epoch_s": took, "sys/samples_per_s": rows / max(took, 1e-9)}
        record |= {"sys/peak_memory_gib": self._peak / 2**30, "sys/time": time.time()}
        self.history.append(record)
        self._history_file.write(json.dumps(plain(record)) + "\n")
        self._history_file.flush()
        line, share = self._clock.line(f"seed {self.seed}", epoch, record), self._clock.share(epoch)
        self._console.progress(line, milestone=bool(scores), share=share)
        if scores:
            self._watch_collapse(record, epoch, rows, self.judges.n_clusters)

    def _watch_collapse(self, record: Record, epoch: int, rows: int, k: int) -> None:
        largest = record.get("cluster/size_max", 0) > COLLAPSED_SHARE * rows
        clusters = record.get("cluster/empty", 0) * 2 > k
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

    def _save(self, state: State) -> None:
        """Write a checkpoint: what the method keeps and what the run itself needs, by part and by rank 0."""
        if self.assignments and self.judges is not None:
            clusters = torch.from_numpy(np.stack(list(self.assignments.values())).astype(np.int32))
            by_part = {part: {ASSIGNMENTS: clusters[:, rows]} for part, rows in self.judges.owners.slices()}
            parts = {p: {**state.parts.get(p, {}), **by_part.get(p, {})} for p in {**state.parts, **by_part}}
            state = State(state.epoch, state.shared, parts)
        if self.rank == 0:
            spent = self.spent()
            extra: dict[str, object] = {
                "run.history": plain(self.history),
                "run.threads": self._threads,
                "run.precision": self.precision,
                "run.warnings": self.warnings,
                "run.collapsed": self._collapsed,
                "run.spent": {"peak": spent.pop("peak_memory_gib"), **spent},
                "run.assignment_epochs": torch.tensor(list(self.assignments), dtype=torch.int64),
            }
            state = State(state.epoch, state.shared | extra, state.parts)
        if self._checkpoints is None:
            save(self.folder / FOLDER, state)
        else:
            self._checkpoints.save(state)
        self._checkpointed = time.monotonic()
        if self.rank == 0:
            self._hooks.saved()

    def _load(self) -> State | None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state = load_latest(self.folder / FOLDER) if self._checkpoints is None else self._checkpoints.load()
        for each in caught:
            self._console.warn(str(each.message))
        return state

    def _begin(self, state: State | None) -> None:
        """Go on from a checkpoint, if there is one, and say so; the history ends where it does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if state is not None:
            kept = {k: v for k, v in state.shared.items() if k.startswith("run.")}
            self.history = [numbers(record) for record in kept["run.history"]]
            self._before, self.warnings = kept["run.spent"], kept["run.warnings"]
            self._collapsed = kept["run.collapsed"]
            write_json(self.folder / "resumed.json", [*self.resumed_from, state.epoch])
            self._console.say(f"seed {self.seed}: resumed after epoch {state.epoch}")
            if kept["run.threads"] != self._threads:
                both = (kept["run.threads"], self._threads)
                before, now = (f"{w} workers of {t} threads" if w else f"{t} threads" for w, t in both)
                self._console.warn(
                    f"seed {self.seed} began with {before} and goes on with {now}: "
                    "the result may differ from an undisturbed run's in the last bits"
                )
            began, asked = self._precisions
            if began != asked:
                words = f"not in {asked}" if self.precision == began else f"CPUs have {asked} only"
                self._console.warn(
                    f"seed {self.seed} began with products in {began} and goes on in {self.precision}: {words}"
                )
        lines = "".join(json.dumps(plain(r)) + "\n" for r in self.history)
        atomic_write(self.folder / HISTORY, lines)


def _without_run(values: Mapping[str, V]) -> dict[str, V]:
    """What a method has stored, without what the run itself has."""
    return {name: value for name, value in values.items() if not name.startswith("run.")}


def _stored_assignments(state: State, owners: Owners) -> dict[int, NDArray[np.int64]]:
    """The clusters of this rank's rows at each epoch that was scored."""
    epochs = state.shared["run.assignment_epochs"].tolist()
    pieces = [state.parts[part][ASSIGNMENTS] for part in owners.parts if epochs]
    rows = torch.cat(pieces or [torch.zeros(len(epochs), 0)], 1).numpy().astype(np.int64)
    return dict(zip(epochs, rows, strict=True))


def _score(judges: Judges, assignment: NDArray[np.int64], embeddings: Arrays) -> Record:
    indices = judges.unlabelled(assignment, embeddings)
    score = indices.pop("score", None)
    record = {f"cluster/{k}": v for k, v in indices.items()}
    if score is not None:
        record["tune/score"] = score
    for name in [each for each in embeddings if each.startswith(BRANCH)]:  # clusters of the method's other branches
        of_branch = judges.evaluator(np.asarray(embeddings[name], dtype=np.int64))
        record |= {f"{name}_{k}": v for k, v in of_branch.items()}
    return record | {f"eval/{k}": v for k, v in judges.evaluator(assignment).items()}
