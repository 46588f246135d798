"""A search with Ray Tune: trials of one method on one data set, ranked (and pruned by ASHA) without labels.

A trial is a run of one seed in its own folder, found again by its settings: a search that was killed goes on with the
same command, ended trials are told to the scheduler from their stored curves, broken ones from their checkpoints.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ops import memory
from ops.api import AnyExperiment, AnyMethod, Record
from ops.atomic_io import now, read_json
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import MethodSettings, SearchSettings, flat, search_domain
from ops.data.load import prepared
from ops.datamodules import datamodule_of
from ops.distributed.ray_session import check_seen, cluster_session, ray_session, share, trial_callback
from ops.distributed.resources import Share, Workers, on_cluster
from ops.errors import DataError, DivergedError, Interrupted, SettingsError
from ops.masking import shown
from ops.results.schema import RunResult, SeedResult
from ops.results.search_schema import SearchResult, TrialResult
from ops.results.statistics import evaluated, numbers, short
from ops.results.stored_run import read_history
from ops.storage import run_dir
from ops.storage.mirror import Mirror, shared
from ops.storage.run_dir import RAY, TRIAL
from ops.storage.status import HISTORY, STATUS, Ending, RunState, begin, end, finished, recorded
from ops.tracking.tracker import Tracking
from ops.training.experiment import Session, build_experiment, identity, plan, tracking_uri
from ops.training.ray_train import KEPT_BY_WORKERS, left_to_workers
from ops.training.rescore import given, rescored, score_history
from ops.training.trainer import fit, run_experiment
from ops.tuning import search_space
from ops.tuning.ranking import best_trial, rank
from ops.tuning.remote_trials import followed
from ops.tuning.signals import interruptible, was_interrupted

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

REDUCTION = 2  # ASHA keeps the better half at each rung
ENDED = ("finished", "stopped")
ENDS: dict[str, RunState] = {"failed": "FAILED", "interrupted": "KILLED"}  # how MLflow calls them


@dataclass(frozen=True)
class Study:
    """What every trial process needs; travels through Ray's object store."""

    experiment: AnyExperiment
    launch: SearchSettings
    folder: Path
    searched: tuple[str, ...]
    workers: Workers | None = None  # of a trial


def run_search(
    method: AnyMethod, request: Request[MethodSettings, SearchSettings], console: Console
) -> tuple[Path, SearchResult]:
    """Search, then train the best setting over several seeds; returns the study's folder and its trials."""
    launch = request.launch
    if launch.warm_start is not None:
        raise SettingsError(
            f"--warm-start {launch.warm_start}: only train.py takes it; train the found setting with it"
        )
    searched = search_space.searched_settings(method, request)
    experiment = build_experiment(method, request, console)
    if launch.objective.startswith("last/") and experiment.labels is None:
        raise SettingsError(
            f"--objective {launch.objective}: {experiment.data.name} has no labels to rank by; leave it out"
        )
    if method.kind == "users" and experiment.hidden is None:
        raise SettingsError(
            f"--dataset {launch.dataset}: was partitioned before, nothing is hidden from it to rank trials by; "
            "leave out --holdout none"
        )
    value = search_space.identity(experiment, launch, searched)
    name = launch.name or run_dir.default_name(f"tune-{method.name}", experiment.data.name, value)
    folder = run_dir.open_folder(str(run_dir.local_out(launch)), name)
    skip = (f"{TRIAL}*", RAY, *left_to_workers(launch))  # each trial sends its own folder, and Ray its files
    with (
        run_dir.lock(folder),
        shared(folder, run_dir.remote(launch, name), console.say, console.warn, skip=skip) as mirror,
    ):
        return folder, _search(Study(experiment, launch, folder.absolute(), searched), mirror, value)


def _search(study: Study, mirror: Mirror | None, value: Mapping[str, object]) -> SearchResult:
    experiment, launch, folder = study.experiment, study.launch, study.folder
    place, uri, console = run_dir.shown(launch, folder), tracking_uri(launch), experiment.console
    run_dir.claim(folder, value, fresh=launch.fresh, name=place)
    if launch.fresh and mirror is not None:
        mirror.clear()
    stored = SearchResult.read_optional(folder / "trials.json")
    if stored and _covers(study, stored) and finished(folder):
        console.say(f"{place}: finished on {stored.finished}, --fresh runs it again")
        with Tracking(folder, uri, require=launch.require_tracking, warn=console.warn):
            return stored  # MLflow may lack something of it
    with cluster_session():
        if on_cluster() and mirror is None:
            check_seen(folder, launch.out)
        each = share(launch, console)
        plan(experiment, None, each)
        console.say(f"  searching {', '.join(study.searched)}: {launch.trials} trials, ranked by {launch.objective}")
        if mirror is not None:
            console.say(f"  results in {place} by way of {folder}, records in MLflow at {shown(uri)}")
        with Tracking(folder, uri, require=launch.require_tracking, warn=console.warn):
            return _run(study, each)


def _run(study: Study, each: Share) -> SearchResult:
    experiment, launch, folder = study.experiment, study.launch, study.folder
    params = {k: v for k, v in flat(experiment.settings).items() if k not in study.searched}
    params |= {"searched": ",".join(study.searched), "trials": launch.trials, "objective": launch.objective}
    params |= prepared(launch)
    tags = {"method": experiment.method.name, "dataset": experiment.data.name}
    with recorded(folder, folder.name, params, tags) as record:
        with followed(folder, run_dir.remote(launch, folder.name), experiment.console.warn):
            _tune(study, each)
        names, command = search_space.trial_names(experiment), experiment.request.command
        trials = rank(folder, launch, experiment.method.name, experiment.data.name, command, names)
        best = best_trial(trials)
        if launch.seeds:
            _train_best(study, best)
        trials.start = {key: search_space.start(experiment.request, key) for key in study.searched}
        trials.finished, trials.given = now(), given(experiment)
        trials.write(folder / "trials.json")
        score, last = best.metrics["score"] or 0.0, experiment.settings.epochs - 1
        record.update({"metrics": {"tune/score": score}, "step": last})
        if launch.report:
            from ops.reporting.html import try_report

            try_report(folder, experiment.console.warn)
    return trials


def _train_best(study: Study, best: TrialResult) -> None:
    experiment = study.experiment.with_settings("trial", **best.settings)
    old = read_json(study.folder / "best" / run_dir.RUN_FILE)
    # more trials may have found a better one than the one that was trained before
    fresh = old is not None and old != json.loads(json.dumps(identity(experiment)))
    experiment = replace(experiment, request=experiment.request.with_launch(name="best", fresh=fresh))
    experiment.console.say(f"training the best setting over {study.launch.seeds} seeds")
    seed = f"seed-{study.launch.first_seed}"
    trained, target = study.folder / best.trial / seed, study.folder / "best" / seed
    if finished(trained) and not (target / "result.json").exists():
        run_dir.claim(run_dir.open_folder(str(study.folder), "best"), identity(experiment), fresh=fresh)
        # without its status: in MLflow the run's seed and the trial's are two records
        shutil.copytree(trained, target, ignore=shutil.ignore_patterns(STATUS), dirs_exist_ok=True)
        experiment = replace(experiment, request=experiment.request.with_launch(fresh=False))
        experiment.console.say(f"seed {study.launch.first_seed}: as the trial {best.trial} has trained it")
    run_experiment(experiment, study.folder, study.folder)


def _covers(study: Study, stored: SearchResult) -> bool:
    """Whether a stored study has all that is asked for, by the labels and names that there are now."""
    best = RunResult.read_optional(study.folder / "best" / "result.json")
    has_seeds = set(study.experiment.seeds) <= set(best.seeds if best else [])
    is_current = stored.given == given(study.experiment)
    return bool(stored.finished) and stored.asked >= study.launch.trials and has_seeds and is_current


def _tune(study: Study, each: Share) -> None:
    """All trials through Ray Tune. Raises Interrupted where a signal ended it early."""
    launch, settings, console = study.launch, study.experiment.settings, study.experiment.console
    experiment = replace(study.experiment, threads=each.threads, console=Console(quiet=True))
    trial = replace(study, experiment=experiment, workers=each.workers)
    there = run_dir.remote(launch, study.folder.name)
    start = {key: search_space.start(experiment.request, key) for key in study.searched}
    with ray_session(each.cpus), interruptible(study.folder, there) as asked:
        if on_cluster():
            data = datamodule_of(experiment.method).for_nodes(experiment.data, launch)
            trial = replace(trial, experiment=replace(experiment, data=data))
        from ray import tune  # reads what the session has set
        from ray.tune.execution import class_cache
        from ray.tune.search.basic_variant import BasicVariantGenerator

        domains = {key: search_space.domain(search_domain(type(settings), key)) for key in study.searched}
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(_trial, study=trial), each.resources),
            param_space=domains,
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=launch.trials, max_concurrent_trials=each.concurrent,
                reuse_actors=True,
                search_alg=BasicVariantGenerator(points_to_evaluate=[start], random_state=launch.search_seed),
                scheduler=_scheduler(settings.epochs, prune=launch.prune),
            ),
            run_config=tune.RunConfig(
                name=RAY, storage_path=str(there or study.folder), verbose=0,
                callbacks=[trial_callback(console, launch.trials)],
                failure_config=tune.FailureConfig(max_failures=1),
            ),
        )  # fmt: skip
        # Ray puts these into a runtime environment, which it logs for all to read; the trials inherit AWS_*
        class_cache.ENV_VARS_TO_PROPAGATE = {k for k in class_cache.ENV_VARS_TO_PROPAGATE if not k.startswith("AWS_")}
        tuner.fit()
    if asked():
        raise Interrupted("the search was stopped; finished trials and the checkpoints of the others are kept")


def _scheduler(epochs: int, *, prune: bool) -> "TrialScheduler":
    """Which trials go on: ASHA's better half at each rung, or all."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if not prune:
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    # max_t: one more than the last report, which ASHA would otherwise end as if it were pruned
    return ASHAScheduler(
        time_attr="epoch", max_t=epochs + 1, reduction_factor=REDUCTION,
        grace_period=epochs // REDUCTION**3 + 1,  # so that no rung falls on the last epoch
    )  # fmt: skip


def _trial(config: dict[str, object], study: Study) -> None:
    """One trial inside its (reused) actor: trains one seed, or tells the stored curve of an ended one."""
    experiment, launch = study.experiment.with_settings("trial", **config), study.launch
    experiment = replace(experiment, request=experiment.request.with_launch(seeds=0))  # no seed of a run's results
    memory.preload()
    torch.set_num_threads(experiment.threads)
    name = search_space.trial_name(experiment, experiment.data.digest())
    there = run_dir.remote(launch, study.folder.name)
    root = study.folder if there is None else run_dir.local_out(launch) / study.folder.name  # of this node
    folder, seed = root / name, launch.first_seed
    folder.mkdir(parents=True, exist_ok=True)
    ending = TrialResult(trial=name, settings=config, status="failed", epochs=0, metrics={}, given=given(experiment))
    skip = KEPT_BY_WORKERS if study.workers is not None and study.workers.cluster else ()
    # another trial may have drawn the same settings, or a killed driver's trial may still be ending
    say = experiment.console
    with (
        run_dir.lock(folder, wait=True),
        shared(folder, there and there / name, say.say, say.warn, skip=skip, wait=True) as mirror,
    ):
        session = Session(experiment.data, study.workers, mirror.offer if mirror is not None else lambda: None)
        stored = TrialResult.read_optional(folder / "trial.json")
        if stored and stored.status in ENDED:
            _rescore(experiment, folder, seed, stored)
            for record in read_history(folder / f"seed-{seed}" / HISTORY):
                _report(name, numbers(record))
            return
        begin(folder, name, config, {"method": experiment.method.name})
        try:
            fit(experiment, session, folder, seed, lambda: False, partial(_report, name))
            ending.status = "finished"
        except SystemExit:  # how Ray Tune stops a function whose trial the scheduler has ended; it must pass on
            ending.status = "interrupted" if was_interrupted(root, there) else "stopped"
            raise
        except Exception as error:
            ending.error, ending.code = f"{type(error).__name__}: {error}", getattr(error, "code", 1)
            if not isinstance(error, SettingsError | DataError | DivergedError):  # another try would end the same
                raise
            _report(name, {"epoch": -1.0, "tune/score": math.nan}, failed=str(error))
        finally:
            _end_trial(folder, seed, ending)


def _rescore(experiment: AnyExperiment, folder: Path, seed: int, stored: TrialResult) -> None:
    """Write the scores by labels of an ended trial anew where the labels, ids or columns' names have changed."""
    now = given(experiment)
    if stored.given == now:
        return
    seed_folder = folder / f"seed-{seed}"
    if (seed_folder / "result.json").is_file():
        rescored(experiment, seed_folder)
    else:
        score_history(seed_folder, experiment.labels)
    _end_trial(folder, seed, stored.model_copy(update={"given": now}))


def _end_trial(folder: Path, seed: int, ending: TrialResult) -> None:
    path = folder / f"seed-{seed}" / HISTORY
    records = evaluated([numbers(record) for record in read_history(path)])
    summary = SeedResult.read_optional(path.parent / "result.json")
    outcome: Ending = {}
    if records:
        taken = records[-1]["epoch"] if summary is None else summary.last["epoch"]
        result = next(record for record in records if record["epoch"] == taken)
        ending.epochs = int(records[-1]["epoch"]) + 1
        ending.metrics = dict(short(result))
        metrics = {k: v for k, v in result.items() if k not in ("epoch", "sys/time")}
        outcome = {"metrics": metrics, "step": int(result["epoch"])}
    ending.write(folder / "trial.json")
    end(folder, ENDS.get(ending.status, "FINISHED"), **outcome)


def _report(name: str, record: Record, failed: str = "") -> None:
    from ray import tune

    if failed or ("tune/score" in record and record["epoch"] >= 0):
        told = {"score": record["tune/score"], "epoch": int(record["epoch"]) + 1, "trial": name}
        tune.report(told | ({"failed": failed} if failed else {}))
