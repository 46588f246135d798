"""One seed from its newest checkpoint to its results: in this process, in a trial, or on each worker of Ray Train."""

from pathlib import Path

import torch

from ops.api import AnyExperiment
from ops.device import precision_on, without_subnormals
from ops.distributed.process_group import ProcessGroup
from ops.results.schema import SeedResult
from ops.training.experiment import Hooks, Worker, judges_of
from ops.training.seed_run import SeedRun
from ops.training.summarize import finish_seed


def train_seed(
    experiment: AnyExperiment, folder: Path, seed: int, hooks: Hooks, worker: Worker | None = None
) -> SeedResult | None:
    """Train a seed and write its results to `folder`; returns their summary, None behind rank 0. All workers call it.

    `experiment.data` is the data as the method gets it. `hooks.record` hears of the epochs of earlier processes too.
    """
    if worker is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        worker = Worker(threads=experiment.threads, device=device)
    method, launch, settings = experiment.method, experiment.launch, experiment.settings
    judges = judges_of(experiment, ProcessGroup(worker.rank, max(worker.count, 1)))
    with without_subnormals(), SeedRun(
        folder, seed, settings.epochs, judges, experiment.console, hooks, worker, warm=experiment.warm,
        stop_on_collapse=launch.stop_on_collapse, cure=method.avoid_collapse,
        precision=precision_on(worker.device.type, launch.precision, method.precisions),
    ) as run:  # fmt: skip
        for record in run.history:
            hooks.record(record)
        return finish_seed(experiment, run, method.train(settings, experiment.data, run))
