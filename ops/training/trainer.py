"""One training from its settings to its results: what `workflows/train.py` and the end of every search run.

request -> experiment (data, K) -> plan -> one seed after the other (each resumable) -> tables, report, model.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from ops.api import AnyExperiment, D, Experiment, Record, S
from ops.atomic_io import write_json
from ops.config.console import Console
from ops.config.settings import LaunchSettings, flat
from ops.config.tracking_uri import default_uri, ui_command
from ops.data.load import prepared
from ops.data.types.mapped_file import is_mapped
from ops.datamodules import datamodule_of
from ops.distributed.apart import apart
from ops.distributed.ray_session import check_seen, crew, has_workers
from ops.errors import Interrupted
from ops.masking import shown
from ops.results.schema import RunResult, SeedResult
from ops.results.statistics import numbers
from ops.results.stored_run import read_history
from ops.storage import run_dir
from ops.storage.mirror import Mirror, shared
from ops.storage.status import HISTORY, Ending, finished, recorded
from ops.tracking.tensorboard import board
from ops.tracking.tracker import Tracking
from ops.training.consensus_and_baselines import check_result
from ops.training.experiment import Hooks, Session, identity, labels_to_judge_by, plan, tracking_uri
from ops.training.ray_train import drop_checkpoints, left_to_workers, rows_on_s3, train_on_workers
from ops.training.rescore import changed, given
from ops.training.summarize import collect, outcome
from ops.training.train_seed import train_seed


def run_experiment(
    experiment: Experiment[S, D], out: Path, study: Path | None = None, choice: Mapping[str, object] | None = None
) -> tuple[Path, RunResult]:
    """Train an experiment, or what is missing of it, in a folder of `out`; returns the run's folder and its result.

    `study`: the folder of the search that it belongs to, whose tracker and mirror are at work. `choice`: how the method
    was chosen, which `choice.json` keeps.
    """
    check_result(experiment)
    with _opened(experiment, out, study) as (folder, mirror):
        if choice is not None:
            write_json(folder / "choice.json", choice)
        if (stored := _finished_result(experiment, folder, study)) is not None:
            return folder, stored
        with _session(experiment, folder, mirror) as session:
            planned = plan(experiment, session.workers)
            place, by_way = run_dir.shown(experiment.launch, folder), f" by way of {folder}" if mirror else ""
            uri = shown(tracking_uri(experiment.launch))
            experiment.console.say(f"  results in {place}{by_way}, records in MLflow at {uri}")
            with _recorded(experiment, folder, study) as record:
                with stop_signals() as stop:
                    for seed in experiment.seeds:
                        fit(experiment, session, folder, seed, stop)
                        if stop():  # asked after the seed's last report
                            raise Interrupted(f"stopped after seed {seed}; its results are kept")
                result, shown_of_it = _summed_up(experiment, folder, planned)
                record.update(shown_of_it)
    return folder, result


@contextmanager
def _opened(experiment: AnyExperiment, out: Path, study: Path | None) -> Iterator[tuple[Path, Mirror | None]]:
    """The run's folder, locked and claimed, with its mirror on S3 (a study's mirror is the best run's too)."""
    launch, console, value = experiment.launch, experiment.console, identity(experiment)
    name = launch.name or run_dir.default_name(experiment.method.name, experiment.data.name, value)
    folder, remote = run_dir.open_folder(str(out), name), run_dir.remote(launch, name) if study is None else None
    with (
        run_dir.lock(folder),
        shared(folder, remote, console.say, console.warn, skip=left_to_workers(launch)) as mirror,
    ):
        run_dir.claim(folder, value, fresh=launch.fresh, name=run_dir.shown(launch, folder))
        if launch.fresh and mirror is not None:
            mirror.clear()
        yield folder, mirror


def _finished_result(experiment: AnyExperiment, folder: Path, study: Path | None) -> RunResult | None:
    """The stored result of a run that has all seeds asked for; None where there is something to train."""
    launch, console, stored = experiment.launch, experiment.console, RunResult.read_optional(folder / "result.json")
    others = (
        stored is not None and stored.result != launch.result
    )  # the seeds are finished, other clusters are asked for
    if not stored or others or not set(experiment.seeds) <= set(stored.seeds) or not finished(folder):
        return None
    seeds, place = ", ".join(map(str, stored.seeds)), run_dir.shown(launch, folder)
    console.say(f"{place}: finished on {stored.finished} with seeds {seeds}, --fresh runs it again")
    if words := changed(stored.dataset.given, given(experiment)):
        console.say(f"  {words} changed since: scores are computed anew, assignments rewritten, the training is kept")
        of_all = replace(
            experiment, request=experiment.request.with_launch(first_seed=stored.seeds[0], seeds=len(stored.seeds))
        )
        with _recorded(of_all, folder, study) as record:
            stored, shown_of_it = _summed_up(of_all, folder, round(stored.planned_memory_gib * 2**30))
            record.update(shown_of_it)
    elif study is None:
        with Tracking(folder, tracking_uri(launch), require=launch.require_tracking, warn=console.warn):
            pass  # MLflow may lack something of it
    return stored


def _summed_up(experiment: AnyExperiment, folder: Path, planned: int) -> tuple[RunResult, Ending]:
    """`collect` and `outcome` of what the seeds have left; of large data and behind workers that own rows in a process
    of its own.
    """
    data = experiment.data
    by_ranks = has_workers(experiment.launch) and datamodule_of(experiment.method).offsets(data) is not None
    if not by_ranks and not is_mapped(data):
        result = collect(experiment, folder, planned)
        return result, outcome(experiment, folder, result)
    labels = None if hasattr(experiment.hidden, "labels") else experiment.labels
    return apart(_in_new_process, replace(experiment, labels=labels), folder, planned)


def _in_new_process(experiment: AnyExperiment, folder: Path, planned: int) -> tuple[RunResult, Ending]:
    """The labels of rows that ranks own lie in files, which what is hidden names."""
    experiment = replace(experiment, labels=labels_to_judge_by(experiment.labels, experiment.hidden))
    torch.set_num_threads(experiment.threads)
    result = collect(experiment, folder, planned, rows_on_s3(experiment.launch, folder))
    return result, outcome(experiment, folder, result)


@contextmanager
def _session(experiment: Experiment[S, D], folder: Path, mirror: Mirror | None) -> Iterator[Session[D]]:
    """The workers that the launch asks for, with the data served to them.

    Raises SettingsError where workers on several nodes do not all see the run's folder.
    """
    with crew(experiment.launch, experiment.console) as workers:
        if workers is not None and workers.cluster and run_dir.remote(experiment.launch) is None:
            check_seen(folder, experiment.launch.out)
        with datamodule_of(experiment.method).serve(experiment, workers) as data:
            yield Session(data, workers, mirror.offer if mirror is not None else lambda: None)


@contextmanager
def _recorded(experiment: AnyExperiment, folder: Path, study: Path | None) -> Iterator[Ending]:
    """The run's status and, unless a study's tracker is at work, its way to MLflow; yields what MLflow shows of it."""
    launch, data = experiment.launch, experiment.data
    params = flat(experiment.settings) | {"dataset": data.name, "data": data.digest()[:16]} | prepared(launch)
    # A tag: the same run may be given more seeds, and MLflow refuses another value for a parameter.
    tags = {"method": experiment.method.name, "dataset": data.name, "seeds": str(launch.seeds)}
    uri, require = tracking_uri(launch), launch.require_tracking
    tracker = nullcontext() if study else Tracking(folder, uri, require=require, warn=experiment.console.warn)
    with tracker, recorded(folder, folder.name, params, tags) as record:
        yield record


def where(folder: Path, launch: LaunchSettings, console: Console) -> None:
    """Say where the report and MLflow's pages are."""
    page = folder / "report.html"
    if page.is_file():
        shown = run_dir.shown(launch, page)
        console.say(f"report: {shown}" + (f" (here: {page})" if shown != str(page) else ""))
    if launch.tensorboard:
        console.say(f"TensorBoard: tensorboard --logdir {folder}")
    console.say(f"MLflow: {ui_command(launch.tracking_uri or default_uri(run_dir.local_out(launch)))}")


def fit(
    experiment: Experiment[S, D], session: Session[D], folder: Path, seed: int, stop: Callable[[], bool],
    on_record: Callable[[Record], None] = lambda record: None,
) -> None:  # fmt: skip
    """Train one seed in `folder/seed-S` from where it was and write its results; nothing is done again.

    `on_record` hears of every epoch, those of earlier processes too.
    """
    seed_folder, data = folder / f"seed-{seed}", experiment.data
    summary = SeedResult.read_optional(seed_folder / "result.json")
    if summary is not None:  # killed behind its results
        for epoch in read_history(seed_folder / HISTORY):
            on_record(numbers(epoch))
        if finished(seed_folder):
            return
    params = flat(experiment.settings) | {"seed": seed, "threads": experiment.threads, "dataset": data.name}
    tags = {"method": experiment.method.name, "dataset": data.name}
    shown = board(seed_folder) if experiment.launch.tensorboard and summary is None else nullcontext(None)
    with recorded(seed_folder, f"seed-{seed}", params, tags) as record, shown as show:

        def hear(epoch: Record) -> None:
            if show:
                show(epoch)
            on_record(epoch)

        if summary is None:
            served, hooks = replace(experiment, data=session.data), Hooks(stop, hear, session.saved)
            if session.workers is None:
                summary = train_seed(served, seed_folder, seed, hooks)
            else:
                summary = train_on_workers(served, session.workers, seed_folder, seed, hooks)
        assert summary is not None, "rank 0 of a process or of workers returns one"
        drop_checkpoints(experiment, session.workers, seed_folder)
        record.update({"metrics": summary.figures(), "step": experiment.settings.epochs - 1})
    session.saved()


@contextmanager
def stop_signals(first: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """While inside, SIGTERM and SIGINT ask for a stop (`first` is called then); a second one stops at once."""
    asked: list[int] = []

    def handler(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        first()

    old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
