"""A search with Ray Tune: trials of one method on one data set, ranked (and pruned by ASHA) without labels.

A trial is a run of one seed in its own folder, found again by its settings: a search that was killed goes on with the
same command, ended trials are told to the scheduler from their stored curves, broken ones from their checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ops import memory
from ops.atomic_io import now, read_json, write_json
from ops.config.cli import Resolved, resolve
from ops.config.console import Console
from ops.config.redact import mask
from ops.config.settings import SearchSettings, flat, search_domain
from ops.distributed.ray_session import check_seen, cluster_session, ray_session, share, trial_callback
from ops.distributed.resources import Share, on_cluster
from ops.errors import Interrupted, SettingsError
from ops.results import summary
from ops.results.schema import read_history
from ops.storage import run_dir
from ops.storage.mirror import shared
from ops.storage.run_dir import RAY, TRIAL
from ops.storage.status import HISTORY, State, begin, end, finished, recorded
from ops.tracking.tracker import tracked
from ops.training.experiment import Job, make_job, plan
from ops.training.trainer import run_job, train_seed
from ops.tuning import search_space
from ops.tuning.ranking import best_trial, print_study, rank
from ops.tuning.remote_trials import followed
from ops.tuning.signals import interruptible, was_interrupted

REDUCTION = 2  # ASHA keeps the better half at each rung
ENDED = ("finished", "stopped")
ENDS: dict[str, State] = {"failed": "FAILED", "interrupted": "KILLED"}  # how MLflow calls them


@dataclass(frozen=True)
class Study:
    """What every trial process needs; travels through Ray's object store."""

    job: Job
    folder: Path
    searched: tuple[str, ...]


def run_search(resolved: Resolved, console: Console) -> tuple[Path, dict[str, Any]]:
    """Search, then train the best setting over several seeds; returns the study's folder and its trials."""
    launch = resolved.launch
    assert isinstance(launch, SearchSettings)
    if launch.warm_start is not None:
        raise SettingsError(
            f"--warm-start {launch.warm_start}: only train.py takes it; train the found setting with it"
        )
    searched = search_space.searched(resolved, launch)
    job = make_job(resolved, console)
    if launch.objective.startswith("last/") and job.labels is None:
        raise SettingsError(f"--objective {launch.objective}: {job.data.name} has no labels to rank by; leave it out")
    if getattr(resolved.method, "KIND", "graph") == "users" and job.held is None:
        raise SettingsError(
            f"--dataset {launch.dataset}: was partitioned before, nothing is hidden from it to rank trials by; "
            "give the graph's tables"
        )
    value = search_space.identity(job, launch, searched)
    name = launch.name or run_dir.default_name(f"tune-{job.resolved.method.NAME}", job.data.name, value)
    folder = run_dir.open_folder(str(run_dir.local_out(launch)), name)
    skip = (f"{TRIAL}*", RAY)  # each trial sends its own folder, and Ray its files
    with (
        run_dir.lock(folder),
        shared(folder, run_dir.remote(launch, name), console.say, console.warn, skip=skip) as mirror,
    ):
        return folder, _search(Study(replace(job, mirror=mirror), folder.absolute(), searched), launch, value)


def search_command(argv: Sequence[str], method: ModuleType, presets: Path, program: str) -> None:
    """What `workflows/tune_METHOD.py` does: parse, search, print. Raises as `resolve` and `run_search` do."""
    resolved = resolve(argv, method, SearchSettings, presets, program)
    console = Console(resolved.launch.quiet, resolved.launch.json_output)
    folder, trials = run_search(resolved, console)
    if resolved.launch.json_output:
        print(json.dumps(trials))
    print_study(folder, trials, resolved, console)


def _search(study: Study, launch: SearchSettings, value: Mapping[str, Any]) -> dict[str, Any]:
    job, folder, known = study.job, study.folder, run_dir.shown(launch, study.folder)
    run_dir.claim(folder, value, fresh=launch.fresh, name=known)
    if launch.fresh and job.mirror is not None:
        job.mirror.clear()
    stored = read_json(folder / "trials.json")
    if stored and _covers(study, stored, launch) and finished(folder):
        job.console.say(f"{known}: finished on {stored['finished']}, --fresh runs it again")
        with tracked(folder, job.uri, require=launch.require_tracking, warn=job.console.warn):
            return stored  # MLflow may lack something of it
    with cluster_session():
        if on_cluster() and job.mirror is None:
            check_seen(folder, launch.out)
        return _work(study, launch, known)


def _work(study: Study, launch: SearchSettings, known: str) -> dict[str, Any]:
    job, folder, each = study.job, study.folder, share(launch, study.job.console)
    plan(job, each)
    job.console.say(f"  searching {', '.join(study.searched)}: {launch.trials} trials, ranked by {launch.objective}")
    if job.mirror is not None:
        job.console.say(f"  results in {known} by way of {folder}, records in MLflow at {mask(job.uri)}")
    with tracked(folder, job.uri, require=launch.require_tracking, warn=job.console.warn):
        return _run(study, launch, each)


def _run(study: Study, launch: SearchSettings, each: Share) -> dict[str, Any]:
    job, folder = study.job, study.folder
    params = {k: v for k, v in flat(job.resolved.settings).items() if k not in study.searched}
    params |= {"searched": ",".join(study.searched), "trials": launch.trials, "objective": launch.objective}
    tags = {"method": job.resolved.method.NAME, "dataset": job.data.name}
    with recorded(folder, folder.name, params, tags) as shown:
        with followed(folder, run_dir.remote(launch, folder.name), job.console.warn):
            _tune(study, launch, each)
        trials = rank(folder, job.resolved, job.data.name, search_space.trial_names(job))
        best = best_trial(trials)
        if launch.seeds:
            _train_best(study, launch, best["settings"])
        trials["finished"] = now()
        write_json(folder / "trials.json", trials)
        shown.update(metrics={"tune/score": best["metrics"]["score"]}, step=job.resolved.settings.epochs - 1)
        if launch.report:
            from ops.reporting.html import write_report

            write_report(folder)
    return trials


def _train_best(study: Study, launch: SearchSettings, settings: Mapping[str, Any]) -> None:
    resolved = study.job.resolved.with_settings("trial", **settings)
    job = replace(study.job, resolved=resolved.with_launch(name="best", fresh=False))
    old = read_json(study.folder / "best" / run_dir.RUN_FILE)
    if old is not None and old != json.loads(json.dumps(job.identity)):  # more trials have found a better one
        job.resolved = job.resolved.with_launch(fresh=True)
    job.console.say(f"training the best setting over {launch.seeds} seeds")
    run_job(job, study.folder, root=study.folder)


def _covers(study: Study, stored: Mapping[str, Any], launch: SearchSettings) -> bool:
    """Whether a stored study has all that is asked for."""
    best = read_json(study.folder / "best" / "result.json")
    has_seeds = set(study.job.seeds) <= set(best["seeds"] if best else [])
    return bool(stored["finished"]) and stored["asked"] >= launch.trials and has_seeds


def _tune(study: Study, launch: SearchSettings, each: Share) -> None:
    """All trials through Ray Tune. Raises Interrupted where a signal ended it early."""
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    settings = study.job.resolved.settings
    quiet = Console(quiet=True)
    job = replace(study.job, threads=each.threads, workers=each.workers, console=quiet, mirror=None)
    there = run_dir.remote(launch, study.folder.name)
    domains = {key: search_space.domain(search_domain(type(settings), key)) for key in study.searched}
    start = {key: search_space.start(study.job.resolved, key) for key in study.searched}
    with ray_session(each.cpus), interruptible(study.folder, there) as asked:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, study=replace(study, job=job)), each.resources),
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=launch.trials, max_concurrent_trials=each.concurrent,
                reuse_actors=True,
                search_alg=BasicVariantGenerator(points_to_evaluate=[start], random_state=launch.search_seed),
                scheduler=_scheduler(settings.epochs, prune=launch.prune),
            ),
            run_config=tune.RunConfig(
                name=RAY, storage_path=str(there or study.folder), verbose=0,
                callbacks=[trial_callback(study.job.console, launch.trials)],
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )  # fmt: skip
        tuner.fit()
    if asked:
        raise Interrupted("the search was stopped; finished trials and the checkpoints of the others are kept")


def _scheduler(epochs: int, *, prune: bool) -> Any:
    """Which trials go on: ASHA's better half at each rung, or all."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if not prune:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    # max_t: one more than the last report, which ASHA would otherwise end as if it were pruned
    return ASHAScheduler(
        time_attr="epoch", max_t=epochs + 1, reduction_factor=REDUCTION,
        grace_period=epochs // REDUCTION**3 + 1,  # so that no rung falls on the last epoch
    )  # fmt: skip


def _trial(config: dict[str, Any], study: Study) -> None:
    """One trial inside its (reused) actor: trains one seed, or tells the stored curve of an ended one."""
    from ray import tune

    job = replace(study.job, resolved=study.job.resolved.with_settings("trial", **config))
    memory.preload()
    torch.set_num_threads(job.threads)
    name = search_space.trial_name(job.resolved, job.data.digest())
    there = run_dir.remote(job.resolved.launch, study.folder.name)
    root = study.folder if there is None else run_dir.local_out(job.resolved.launch) / study.folder.name  # of this node
    folder = root / name
    seed = job.resolved.launch.first_seed
    folder.mkdir(parents=True, exist_ok=True)
    ending: dict[str, Any] = {"trial": name, "settings": config, "status": "failed", "epochs": 0, "metrics": {}}
    # another trial may have drawn the same settings, or a killed driver's trial may still be ending
    say = job.console
    with (
        run_dir.lock(folder, wait=True),
        shared(folder, there and there / name, say.say, say.warn, wait=True) as mirror,
    ):
        job = replace(job, mirror=mirror)
        stored = read_json(folder / "trial.json")
        if stored and stored["status"] in ENDED:
            for record in read_history(folder / f"seed-{seed}" / HISTORY):
                _report(tune, record, name)
            return
        begin(folder, name, config, {"method": job.resolved.method.NAME})
        try:
            train_seed(job, folder, seed, lambda: False, lambda r: _report(tune, r, name))
            ending["status"] = "finished"
        except SystemExit:  # how Ray Tune stops a function whose trial the scheduler has ended; it must pass on
            ending["status"] = "interrupted" if was_interrupted(root, there) else "stopped"
            raise
        except Exception as error:
            ending |= {"error": f"{type(error).__name__}: {error}", "code": getattr(error, "code", 1)}
            raise
        finally:
            _end_trial(folder, seed, ending)


def _end_trial(folder: Path, seed: int, ending: dict[str, Any]) -> None:
    path = folder / f"seed-{seed}" / HISTORY
    records = summary.evaluated(read_history(path)) if path.is_file() else []
    shown: dict[str, Any] = {}
    if records:
        ending["epochs"] = int(records[-1]["epoch"]) + 1
        ending["metrics"] = summary.short(records[-1])
        figures = {k: v for k, v in records[-1].items() if k not in ("epoch", "sys/time")}
        shown = {"metrics": figures, "step": int(records[-1]["epoch"])}
    write_json(folder / "trial.json", ending)
    end(folder, ENDS.get(ending["status"], "FINISHED"), **shown)


def _report(tune: Any, record: Mapping[str, float], name: str) -> None:
    if "tune/score" in record and record["epoch"] >= 0:
        tune.report({"score": record["tune/score"], "epoch": int(record["epoch"]) + 1, "trial": name})
