"""One seed over several workers of Ray Train: each trains, rank 0 keeps the run and its files, the driver follows.

A worker that dies takes its group with it; Ray Train starts the group anew and it goes on from the last checkpoint.
"""

import os
import re
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ops import FOR_TORCH, memory
from ops.api import AnyExperiment
from ops.config.console import Console
from ops.config.settings import LaunchSettings, SearchSettings
from ops.datamodules import datamodule_of
from ops.distributed.rendezvous import torch_config
from ops.distributed.resources import Workers, on_cluster
from ops.errors import Interrupted, ResourceError, TesseraError
from ops.results.schema import SeedResult
from ops.storage import object_store as s3
from ops.storage import run_dir
from ops.training.checkpoint import FOLDER, Place, WorkerCheckpoints, drop
from ops.training.experiment import Hooks, Worker, labels_to_judge_by
from ops.training.rank_zero import Event, Follower, reporter
from ops.training.train_seed import train_seed

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

MAX_FAILURES = 3  # restarts of the group before the run ends with Ray's error
POLL_SECONDS = 0.2
KEPT_BY_WORKERS = (f"*/{FOLDER}/*",)  # of a run on S3
PARTS = "*/part-*"  # of rows that ranks own, in the files of seeds and in the tables of a run
SNAPSHOT = "checkpoint_manager_snapshot.json"  # by which Ray Train would go on with checkpoints of an earlier start


def train_on_workers(experiment: AnyExperiment, workers: Workers, folder: Path, seed: int, hooks: Hooks) -> SeedResult:
    """Train one seed to its end in `folder`; returns its summary. Ray must be running.

    `experiment.data` is the data as the method gets it. Raises what the method or the run raised (Interrupted,
    DivergedError, ...), ResourceError where the cluster cannot place the workers or they keep failing.
    """
    folder = folder.absolute()
    place = _on_s3(experiment.launch, folder) if workers.cluster else None
    is_trial = isinstance(experiment.launch, SearchSettings)
    follower = Follower(folder, place, skip=() if is_trial else (PARTS,))
    trainer = _trainer(experiment, workers, seed, folder, place)
    _without_idle_processes(trainer, ends_with_driver=not (workers.cluster or is_trial))
    ended: list[object] = []
    thread = threading.Thread(target=_fit, args=(trainer, ended), daemon=True)
    thread.start()
    newest, asked, over = float("-inf"), False, False
    error: SystemExit | None = None  # how Ray Tune ends a trial; the workers end first
    while not over:
        thread.join(POLL_SECONDS)
        over = not thread.is_alive()
        for event in follower.events(last=over):
            _show(event, experiment.console, workers)
            if event["kind"] == "saved" and place is None:  # else rank 0 sends its files itself
                hooks.saved()
            elif event["kind"] == "record" and error is None and event["record"]["epoch"] > newest:
                newest = event["record"]["epoch"]  # a group that replaces a lost one trains some epochs again
                try:
                    hooks.record(event["record"])
                except SystemExit as stopped:
                    error = stopped
        if not asked and not over and (error is not None or hooks.stop()):
            asked = True
            follower.ask_stop()
    follower.clear()
    if error is not None:
        raise error
    return _outcome(ended[0])


def left_to_workers(launch: LaunchSettings) -> tuple[str, ...]:
    """What a mirror of the run must skip: workers of a cluster keep checkpoints and rows in parts on S3 themselves.

    Of a search's trials the rows are copied, for the best one is a run's first seed too.
    """
    if not on_cluster() or launch.workers == 0:
        return ()
    return KEPT_BY_WORKERS if isinstance(launch, SearchSettings) else (*KEPT_BY_WORKERS, PARTS)


def rows_on_s3(launch: LaunchSettings, folder: Path) -> s3.Location | None:
    """Where the rows in parts of a run's `folder` are if its workers keep them on S3, else None."""
    return _on_s3(launch, folder.absolute()) if PARTS in left_to_workers(launch) else None


def drop_checkpoints(experiment: AnyExperiment, workers: Workers | None, folder: Path) -> None:
    """Remove the checkpoints of a seed that has ended."""
    place = _on_s3(experiment.launch, folder.absolute()) if workers is not None and workers.cluster else None
    drop(folder / FOLDER)
    if place is not None:
        drop(place / FOLDER)


def _on_s3(launch: LaunchSettings, folder: Path) -> s3.Location | None:
    """Where a folder of the run is on S3, None where the run belongs into a folder."""
    if run_dir.remote(launch) is None:
        return None
    return run_dir.remote(launch, *folder.relative_to(run_dir.local_out(launch).absolute()).parts)


def _show(event: Event, console: Console, workers: Workers) -> None:
    """What rank 0 wants to have said."""
    if event["kind"] == "lost":
        console.warn(f"a worker was lost; {workers.count} workers start again from the checkpoint")
    elif event["kind"] in ("say", "warn", "progress"):
        getattr(console, event["kind"])(**{name: value for name, value in event.items() if name != "kind"})


def _fit(trainer: Any, ended: list[object]) -> None:
    try:
        ended.append(trainer.fit().return_value)
    except BaseException as error:
        ended.append(error)


def _send(folder: Path, place: s3.Location) -> None:
    """Send what a rank behind 0 has written of the results to S3, where rank 0 sends its own. Raises ServiceError."""
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        s3.upload(path, place / path.relative_to(folder).as_posix())


def _outcome(ended: object) -> SeedResult:
    """The summary that rank 0 has returned; else raises the reason why there is none."""
    if isinstance(ended, str):
        raise Interrupted(ended)
    if isinstance(ended, SeedResult):
        return ended
    cause = getattr(ended, "controller_failure", None)
    if isinstance(cause, TesseraError):
        raise cause
    text = str(ended or "").strip() or "no word from Ray"
    if memory_left := re.search(r"low on memory.*? was (.*? used / .*? limit)", text, re.DOTALL):
        raise ResourceError(
            f"Ray has ended a worker, as its machine has hardly any memory left ({memory_left[1]}, other programs "
            "included); end some or ask for fewer --workers, then give the same command again: it goes on"
        )
    raise ResourceError(f"the workers ended without a result: {text.splitlines()[-1]}")


def _trainer(
    experiment: AnyExperiment, workers: Workers, seed: int, folder: Path, place: s3.Location | None
) -> "TorchTrainer":
    """Ray Train's trainer, whose storage is the folder of the seed's checkpoints."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if place is None:
        (folder / FOLDER / SNAPSHOT).unlink(missing_ok=True)
    else:
        s3.delete(place / FOLDER / SNAPSHOT)
    resources = {"CPU": float(workers.threads)} | ({"GPU": workers.gpus} if workers.gpus else {})
    # what nodes that were started before do not inherit, and torch needs before us; never secrets: Ray logs it
    inherited = {name: os.environ[name] for name in FOR_TORCH}
    environment = {"env_vars": inherited} if workers.cluster else None
    # only what training needs: nothing that only judges may see, no addresses with passwords
    request = experiment.request.with_launch(tracking_uri=None)
    bare = replace(experiment, request=request, labels=None, hidden=None)
    own_rows = datamodule_of(experiment.method).offsets(experiment.data) is not None  # their labels are in files
    config = {
        "experiment": ray.put(bare), "seed": seed,
        "judged": ray.put((None if own_rows else experiment.labels, experiment.hidden)),
        "workers": workers, "folder": folder, "place": place,
    }  # fmt: skip
    return TorchTrainer(
        work,  # type: ignore[arg-type]
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        torch_config=torch_config(workers.gpus),
        run_config=RunConfig(
            name=FOLDER,
            storage_path=str(folder if place is None else place),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            worker_runtime_env=environment,  # type: ignore[call-arg]
            callbacks=[_ending()],
        ),
    )


def _without_idle_processes(trainer: "TorchTrainer", *, ends_with_driver: bool) -> None:
    """Have Ray Train not start processes, of over a second each, that have nothing to do here.

    One serves Ray's data sets, which we have none of. One frees the workers' room when the controller has died, which
    a session that ends with its driver does too.
    """
    if not hasattr(trainer, "_create_default_callbacks"):  # another Ray
        return
    idle = {"DatasetsCallback"} | ({"PlacementGroupCleanerCallback"} if ends_with_driver else set())
    every = trainer._create_default_callbacks

    def at_work() -> list[Any]:
        return [each for each in every() if type(each).__name__ not in idle]

    trainer._create_default_callbacks = at_work


def _ending() -> Any:
    """A callback of Ray Train's controller: an error that is the user's ends the run, it would only come again."""
    from ray.train import UserCallback

    class Ending(UserCallback):
        def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
            """What is raised here ends the run without another try."""
            for error in worker_exceptions.values():
                cause = getattr(error, "_base_exc", error)
                if isinstance(cause, TesseraError):
                    raise cause

    return Ending()


def work(config: Mapping[str, Any]) -> SeedResult | str | None:
    """What Ray Train runs on every worker; rank 0 returns the seed's summary, or where it was interrupted.

    Labels, and what else only judges may see, come to rank 0 and to ranks that judge rows of their own, and there only
    to the run; the method gets data without them.
    """
    import ray
    import ray.train.torch

    workers: Workers = config["workers"]
    memory.preload()
    torch.set_num_threads(workers.threads)
    rank, device = ray.train.get_context().get_world_rank(), ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    folder, place = config["folder"], config["place"]
    checkpoints: Place = folder / FOLDER if place is None else place / FOLDER
    experiment = ray.get(config["experiment"])
    own_rows = datamodule_of(experiment.method).offsets(experiment.data) is not None
    saved = WorkerCheckpoints(checkpoints, rank, workers.count, by_part=own_rows)
    worker = Worker(rank, workers.count, workers.threads, device, saved)
    with ExitStack() as stack:
        hooks = Hooks()
        if rank == 0 or own_rows:
            labels, hidden = ray.get(config["judged"])
            experiment = replace(experiment, labels=labels_to_judge_by(labels, hidden), hidden=hidden)
        if rank == 0:
            outbox = stack.enter_context(reporter(folder, place))
            experiment = replace(experiment, console=outbox)
            folder, hooks = outbox.folder, Hooks(outbox.stop, outbox.record, outbox.saved)
        elif place is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seed-")))
            hooks = Hooks(saved=partial(_send, folder, place))
        try:
            return train_seed(experiment, folder, config["seed"], hooks, worker)
        except Interrupted as error:
            return str(error)
