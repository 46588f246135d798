"""One training from its settings to its results: what `workflows/train.py` and the end of every search run.

data -> K -> identity -> plan -> one seed after the other (each resumable) -> tables, report, model.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.cluster.baselines import baselines
from ops.cluster.indices import GraphJudge
from ops.cluster.scores import Evaluator
from ops.cluster.selection import PANEL, panel
from ops.data.load import load
from ops.data.types import AttributedGraph
from ops.data.validate import check_clusters
from ops.errors import Interrupted, SettingsError
from ops.run import memory, place, results
from ops.run.checkpoint import write_json
from ops.run.cli import Resolved
from ops.run.console import Console
from ops.run.journal import Journal, finished
from ops.run.seedrun import Judges, SeedRun
from ops.run.settings import flat
from ops.run.tracker import Pending, Tracker, check_uri, default_uri, sync


@dataclass
class Job:
    """A resolved command with its data loaded: everything a training needs, on this machine."""

    resolved: Resolved
    data: AttributedGraph
    labels: NDArray[np.int64] | None
    console: Console
    threads: int
    auto: dict[str, Any] | None = None  # the sweep behind `--n-clusters auto`

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run: one training's identity without its seed."""
        return place.identity(self.resolved.method.NAME, flat(self.resolved.settings), self.data.digest())

    @property
    def judges(self) -> Judges:
        """Who scores this job's assignments."""
        k = self.resolved.settings.k
        return Judges(GraphJudge(self.data, k), Evaluator(self.labels), k)

    @property
    def uri(self) -> str:
        """The MLflow store of this job."""
        launch = self.resolved.launch
        return check_uri(launch.tracking_uri or default_uri(Path(launch.out).expanduser()))


def make_job(resolved: Resolved, console: Console) -> Job:
    """Load and check the data, settle K. Raises DataError or SettingsError before any work starts."""
    launch = resolved.launch
    if launch.workers not in ("auto", 0):
        raise SettingsError(
            f"--workers {launch.workers}: training over several workers is not built yet; give --workers 0"
        )
    data, labels = load(launch.dataset, knn=launch.knn, knn_metric=launch.knn_metric)
    threads = launch.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    job = Job(resolved, data, labels, console, threads)
    return settle_clusters(job)


def settle_clusters(job: Job) -> Job:
    """K from the settings, the sweep (`auto`) or, said so, the number of classes. Raises SettingsError or DataError."""
    wanted = job.resolved.settings.n_clusters
    if wanted is None:
        if job.labels is None:
            raise SettingsError(f"{job.data.name} has no labels to count: give --n-clusters K or --n-clusters auto")
        wanted, source = len(np.unique(job.labels)), "labels (number of classes)"
    elif wanted == "auto":
        from ops.cluster.auto_k import sweep

        job.console.say("choosing the number of clusters without labels ...")
        job.auto = sweep(job.data)
        wanted, source = job.auto["chosen"], "auto"
        job.console.say(f"K = {wanted}: {job.auto['reason']}")
    else:
        source = job.resolved.sources.get("n_clusters", "default")
    check_clusters(wanted, job.data.n_nodes)
    job.resolved = job.resolved.with_settings(source, n_clusters=wanted)
    return job


def plan(job: Job) -> int:
    """Print what will run and where; returns the planned peak bytes. Raises ResourceError where it does not fit."""
    settings, launch, data = job.resolved.settings, job.resolved.launch, job.data
    planned: int = memory.preload() + job.resolved.method.estimate(settings, data)
    edges = data.edge_index.shape[1]
    say = job.console.say
    say(f"{job.resolved.method.NAME} on {data.name}: {data.n_nodes:,} nodes, {data.n_features:,} features, "
        f"{edges:,} directed edges, data {data.digest()[:8]}")  # fmt: skip
    for note in data.notes:
        say(f"  {note}")
    say(f"  K = {settings.k} (from {job.resolved.sources['n_clusters']}), {settings.epochs} epochs, "
        f"seeds {launch.first_seed}-{launch.first_seed + launch.seeds - 1}")  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    disk = shutil.disk_usage(Path(launch.out).expanduser()).free
    say(f"  in this process on {device}, {job.threads} threads; planned peak {planned / 2**30:.2f} GiB "
        f"of {memory.available() / 2**30:.1f}, free disk {disk / 2**30:.0f} GiB")  # fmt: skip
    memory.check_fits(planned, launch.memory_limit, job.resolved.method.ADVICE)
    return planned


def run_training(resolved: Resolved, console: Console) -> tuple[Path, dict[str, Any]]:
    """Train what `resolved` asks for, or what is missing of it; returns the run's folder and its result."""
    job = make_job(resolved, console)
    return run_job(job, Path(job.resolved.launch.out).expanduser(), root=None)


def run_job(job: Job, out: Path, root: Path | None) -> tuple[Path, dict[str, Any]]:
    """`run_training` with the data at hand; `root` is the study it belongs to, whose tracker is already at work."""
    launch = job.resolved.launch
    name = launch.name or place.default_name(job.resolved.method.NAME, job.data.name, job.identity)
    folder = place.open_folder(str(out), name)
    with place.lock(folder):
        place.claim(folder, job.identity, fresh=launch.fresh)
        seeds = list(range(launch.first_seed, launch.first_seed + launch.seeds))
        stored = results.read_json(folder / "result.json")
        if stored and stored["seeds"] == seeds and finished(folder):
            job.console.say(f"{folder}: finished on {stored['finished']}, --fresh runs it again")
            if root is None:
                tell_pending(job.console, sync(folder, job.uri))
            return folder, stored
        planned = plan(job)
        job.console.say(f"  results in {folder}, MLflow in {Tracker.ui_command(job.uri).split(' --host')[0]}")
        if root is not None:
            return folder, _train_all(job, folder, f"{root.name}/{name}", root.name, planned)
        tracker = Tracker(folder, job.uri, require=launch.require_tracking, say=job.console.warn)
        with tracker:
            result = _train_all(job, folder, name, None, planned)
            tell_pending(job.console, tracker.close())
    return folder, result


def tell_pending(console: Console, pending: Pending) -> None:
    """Say what MLflow has not got yet; it stays in the journals."""
    if pending.records:
        console.warn(f"{pending.records} records wait for MLflow ({pending.reason}); the same command sends them")


def _train_all(job: Job, folder: Path, key: str, parent: str | None, planned: int) -> dict[str, Any]:
    launch, settings = job.resolved.launch, job.resolved.settings
    params = flat(settings) | {"dataset": job.data.name, "data": job.data.digest()[:16], "seeds": launch.seeds}
    with Journal(folder, key) as journal:
        journal.start(folder.name, parent, params, {"method": job.resolved.method.NAME, "dataset": job.data.name})
        try:
            with stop_signals() as stop:
                for seed in range(launch.first_seed, launch.first_seed + launch.seeds):
                    own = folder / f"seed-{seed}"
                    if results.read_json(own / "result.json") is None or not finished(own):
                        train_seed(job, folder, f"{key}/seed-{seed}", key, seed, stop)
                    if stop():  # asked after the seed's last report
                        raise Interrupted(f"stopped after seed {seed}; its results are kept")
            result = collect(job, folder, planned)
            finish_journal(job, folder, journal, result)
        except BaseException as error:
            journal.end("KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED")
            raise
    return result


def train_seed(
    job: Job, folder: Path, key: str, parent: str, seed: int, stop: Any, on_record: Any = None
) -> dict[str, Any]:
    """Train one seed in `folder/seed-S` from where it was; `on_record` hears of earlier processes' epochs too."""
    settings, method = job.resolved.settings, job.resolved.method
    own = folder / f"seed-{seed}"
    with Journal(own, key) as journal:
        params = flat(settings) | {"seed": seed, "threads": job.threads, "dataset": job.data.name}
        journal.start(f"seed-{seed}", parent, params, {"method": method.NAME, "dataset": job.data.name})
        summary = results.read_json(own / "result.json")
        if summary is None:
            summary = _train_seed(job, own, seed, journal, stop, on_record)
        else:  # killed behind its results
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
            for line in (own / "history.jsonl").read_text().splitlines() if on_record else ():
                on_record(json.loads(line))
        for group in ("last", "selected", "oracle"):
            values = {f"{group}/{k}": v for k, v in (summary[group] or {}).items() if k != "epoch"}
            journal.metrics(values, settings.epochs - 1)
        journal.end("FINISHED")
    return summary


def _train_seed(job: Job, own: Path, seed: int, journal: Journal, stop: Any, on_record: Any) -> dict[str, Any]:
    settings, method = job.resolved.settings, job.resolved.method
    run = SeedRun(
        own, seed, settings.epochs, job.judges, journal, job.console, threads=job.threads,
        device="cuda" if torch.cuda.is_available() else "cpu", stop=stop, on_record=on_record,
        stop_on_collapse=job.resolved.launch.stop_on_collapse,
    )  # fmt: skip
    try:
        for record in run.history if on_record else ():
            on_record(record)
        result = method.train(settings, job.data, run)
        stored = {"method": method.NAME, "dataset": job.data.name, **flat(settings)}
        return results.finish_seed(run, result, job.data, job.labels, stored)
    except BaseException as error:
        failed = isinstance(error, Exception) and not isinstance(error, Interrupted)  # a pruned trial exits
        journal.end("FAILED" if failed else "KILLED")
        raise
    finally:
        run.close()


def collect(job: Job, folder: Path, planned: int) -> dict[str, Any]:
    """Everything of a run that spans its seeds: assignments, model, baselines, `result.json`."""
    launch, settings = job.resolved.launch, job.resolved.settings
    seeds = list(range(launch.first_seed, launch.first_seed + launch.seeds))
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [results.read_json(f / "result.json") or {} for f in folders.values()]
    clusters = results.write_assignments(folder / "assignments.parquet", job.data, folders)
    chosen = seeds[panel([e["last"] for e in each]).chosen]
    shutil.copytree(folders[chosen] / "model", folder / "model", dirs_exist_ok=True)
    if job.auto:
        write_json(folder / "auto.json", job.auto)
    judge, evaluator = job.judges.unlabelled, job.judges.evaluator
    rows: dict[str, list[dict[str, float]]] = {}
    for name, _, found in baselines(job.data, settings.k, seeds, getattr(settings, "low_pass_order", 2)):
        rows.setdefault(name, []).append(judge(found) | evaluator(found))
    sources = {k: job.resolved.sources.get(k, "default") for k in flat(settings)}
    result = {
        "schema": 1,
        "method": job.resolved.method.NAME,
        "dataset": {"name": job.data.name, "hash": job.data.digest(), "rows": job.data.n_nodes,
                    "notes": job.data.notes},
        "settings": {k: {"value": v, "source": sources[k]} for k, v in flat(settings).items()},
        "seeds": seeds,
        "resumed_from": {str(s): e["resumed_from"] for s, e in zip(seeds, each, strict=True)},
        **{group: results.over_seeds([e[group] for e in each]) for group in ("last", "selected", "oracle")},
        "selected_by": [e["selected_by"] for e in each],
        "baselines": {name: results.over_seeds(found) for name, found in rows.items()},
        "stability": results.stability(clusters),
        **{k: sum(e[k] for e in each) for k in ("seconds", "cpu_seconds")},
        "peak_memory_gib": max(e["peak_memory_gib"] for e in each),
        "planned_memory_gib": planned / 2**30,
        "model_seed": chosen,
        "warnings": [w for e in each for w in e["warnings"]],
        "command": job.resolved.command,
        "finished": results.now(),
        "paths": {"folder": str(folder), "assignments": "assignments.parquet", "model": "model",
                  "report": "report.html"},
    }  # fmt: skip
    result["selected"]["indices"] = list(PANEL)
    write_json(folder / "result.json", result)
    return results.read_json(folder / "result.json") or {}


def finish_journal(job: Job, folder: Path, journal: Journal, result: dict[str, Any]) -> None:
    """The run's summary metrics, figures, report and model as records for MLflow."""
    for group in ("last", "selected", "oracle"):
        means = {f"{group}/{k}": v["mean"] for k, v in (result[group] or {}).items() if isinstance(v, dict)}
        journal.metrics({k: v for k, v in means.items() if v is not None}, job.resolved.settings.epochs - 1)
    if job.resolved.launch.report:
        from ops.run.report import write_report

        journal.artifact(write_report(folder).relative_to(folder))
        journal.artifact(Path("figures"), "figures")
    for file in ("assignments.parquet", "result.json"):
        journal.artifact(Path(file))
    journal.model("model", f"tessera-{job.resolved.method.NAME}")
    journal.end("FINISHED")


@contextmanager
def stop_signals() -> Iterator[Any]:
    """While inside, SIGTERM and SIGINT ask for a stop at the next report; a second one stops at once."""
    asked: list[int] = []

    def handler(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
