"""The run of one seed is opened and finished: in this process, in a trial, or on each worker of Ray Train."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ops.api import AnyExperiment, Record, Result
from ops.device import precision_on
from ops.distributed.process_group import ProcessGroup
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
    """Which of `count` workers of Ray Train this process is (0: none), and where they keep checkpoints."""

    rank: int
    count: int
    threads: int
    device: torch.device
    checkpoints: WorkerCheckpoints | None


def open_run(experiment: AnyExperiment, folder: Path, seed: int, hooks: Hooks, worker: Worker | None = None) -> SeedRun:
    """The run of a seed at its newest checkpoint; all workers call this together.

    `experiment.data` is the data as the method gets it. `hooks.record` hears of the epochs of earlier processes too.
    """
    if worker is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        worker = Worker(0, 0, experiment.threads, device, None)
    precision = precision_on(worker.device.type, experiment.launch.precision, experiment.method.precisions)
    group = ProcessGroup(worker.rank, max(worker.count, 1))
    run = SeedRun(
        folder, seed, experiment.settings.epochs, judges_of(experiment, group),
        experiment.console, stop=hooks.stop, on_record=hooks.record, on_checkpoint=hooks.saved, warm=experiment.warm,
        stop_on_collapse=experiment.launch.stop_on_collapse, cure=experiment.method.avoid_collapse,
        precision=precision, threads=worker.threads, device=worker.device, workers=worker.count, rank=worker.rank,
        checkpoints=worker.checkpoints,
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
    summary = finish_seed(experiment, run, result)
    if summary is not None and experiment.warm is not None:
        experiment.console.say(f"seed {run.seed}: {summary.kept:.1%} of the shared nodes kept their cluster")
    return summary
