"""The run of one seed is opened and finished: in this process, in a trial, or on each worker of Ray Train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ops.api import AnyExperiment, Record, Result
from ops.config.settings import flat
from ops.datamodules import datamodule_of
from ops.errors import DivergedError
from ops.results.model_store import describe
from ops.results.schema import SeedResult
from ops.training.checkpoint import WorkerCheckpoints
from ops.training.experiment import judges_of
from ops.training.seed_run import SeedRun
from ops.training.summarize import finish_seed


@dataclass(frozen=True)
class Hooks:
    """Who hears of a seed: `stop` is asked after each epoch, `record` gets each, `saved` follows a checkpoint."""

    stop: Callable[[], bool] = lambda: False
    record: Callable[[Record], None] = lambda record: None
    saved: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Worker:
    """Which of `count` workers of Ray Train this process is, and where they keep checkpoints."""

    rank: int
    count: int
    threads: int
    device: torch.device
    checkpoints: WorkerCheckpoints


def open_run(experiment: AnyExperiment, folder: Path, seed: int, hooks: Hooks, worker: Worker | None = None) -> SeedRun:
    """The run of a seed at its newest checkpoint; all workers call this together.

    `experiment.data` is the data as the method gets it; behind rank 0 the experiment has no labels. `hooks.record`
    hears of the epochs of earlier processes too.
    """
    if worker is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        where: dict[str, Any] = {"threads": experiment.threads, "device": device}
    else:
        where = {"threads": worker.threads, "device": worker.device, "workers": worker.count, "rank": worker.rank,
                 "checkpoints": worker.checkpoints}  # fmt: skip
    first = worker is None or worker.rank == 0
    run = SeedRun(
        folder, seed, experiment.settings.epochs, judges_of(experiment) if first else None,
        experiment.console, stop=hooks.stop, on_record=hooks.record, on_checkpoint=hooks.saved, warm=experiment.warm,
        stop_on_collapse=experiment.launch.stop_on_collapse, cure=experiment.method.avoid_collapse,
        precision=experiment.precision_on(torch.device(where["device"]).type), **where,
    )  # fmt: skip
    try:
        for record in run.history:
            hooks.record(record)
    except BaseException:  # a search's scheduler may end the trial here
        run.close()
        raise
    return run


def finish_run(experiment: AnyExperiment, run: SeedRun, result: Result) -> SeedResult | None:
    """Write the seed's results to its folder and return their summary; None behind rank 0. All workers call it."""
    run.measure()
    if run.rank:
        return None
    x = datamodule_of(experiment.method).features(experiment.data)
    stored = describe(experiment.method.name, experiment.data, x) | flat(experiment.settings)
    _watch_result(experiment, run, result)
    summary = finish_seed(experiment, run, result, x, stored)
    if experiment.warm is not None:
        experiment.console.say(f"seed {run.seed}: {summary.kept:.1%} of the shared nodes kept their cluster")
    return summary


def _watch_result(experiment: AnyExperiment, run: SeedRun, result: Result) -> None:
    """Warn of a result that is one cluster; DivergedError instead where the user asked to stop."""
    if (result.assignment == result.assignment[0]).all():
        rows, cure = len(result.assignment), experiment.method.avoid_collapse
        text = f"seed {run.seed}: all {rows:,} rows are in one cluster of {experiment.k}; {cure}"
        if experiment.launch.stop_on_collapse:
            raise DivergedError(text)
        run.warnings.append(text)
        experiment.console.warn(text)
