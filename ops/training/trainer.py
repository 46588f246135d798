"""One training from its settings to its results: what `workflows/train.py` and the end of every search run.

data -> K -> identity -> plan -> one seed after the other (each resumable) -> tables, report, model.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ops.atomic_io import read_json
from ops.config.cli import Resolved
from ops.config.console import Console
from ops.config.redact import mask
from ops.config.settings import flat
from ops.config.tracking_uri import default_uri, ui_command
from ops.distributed.ray_session import crew
from ops.errors import Interrupted
from ops.results import summary as results
from ops.results.model_store import describe
from ops.storage import run_dir
from ops.storage.mirror import shared
from ops.storage.status import HISTORY, finished, recorded
from ops.tracking.tracker import tracked
from ops.training.experiment import Job, make_job, plan
from ops.training.ray_train import Driver
from ops.training.seed_run import SeedRun
from ops.training.summarize import GROUPS, collect, outcome


def run_training(resolved: Resolved, console: Console) -> tuple[Path, dict[str, Any]]:
    """Train what `resolved` asks for, or what is missing of it; returns the run's folder and its result."""
    job = make_job(resolved, console)
    return run_job(job, run_dir.local_out(job.resolved.launch), root=None)


def run_job(job: Job, out: Path, root: Path | None) -> tuple[Path, dict[str, Any]]:
    """`run_training` with the data at hand; `root` is the study it belongs to, whose tracker is already at work."""
    launch = job.resolved.launch
    name = launch.name or run_dir.default_name(job.resolved.method.NAME, job.data.name, job.identity)
    folder = run_dir.open_folder(str(out), name)
    with run_dir.lock(folder):
        if root is not None:  # the study's mirror is the best run's too
            return folder, _run(job, folder, root)
        with shared(folder, run_dir.remote(launch, name), job.console.say, job.console.warn) as mirror:
            return folder, _run(replace(job, mirror=mirror), folder, None)


def _run(job: Job, folder: Path, root: Path | None) -> dict[str, Any]:
    launch, known = job.resolved.launch, run_dir.shown(job.resolved.launch, folder)
    run_dir.claim(folder, job.identity, fresh=launch.fresh, name=known)
    if launch.fresh and root is None and job.mirror is not None:
        job.mirror.clear()
    stored = read_json(folder / "result.json")
    if stored and set(job.seeds) <= set(stored["seeds"]) and finished(folder):
        seeds = ", ".join(map(str, stored["seeds"]))
        job.console.say(f"{known}: finished on {stored['finished']} with seeds {seeds}, --fresh runs it again")
        if root is None:
            with tracked(folder, job.uri, require=launch.require_tracking, warn=job.console.warn):
                pass  # MLflow may lack something of it
        return stored
    with crew(launch, job.console) as workers:
        job = replace(job, workers=workers)
        with job.kind.serve(job) as data:
            return _work(replace(job, served=data), folder, root, known)


def _work(job: Job, folder: Path, root: Path | None, known: str) -> dict[str, Any]:
    launch, planned = job.resolved.launch, plan(job)
    by_way = f" by way of {folder}" if job.mirror is not None else ""
    job.console.say(f"  results in {known}{by_way}, records in MLflow at {mask(job.uri)}")
    if root is not None:
        return _train_all(job, folder, planned)
    with tracked(folder, job.uri, require=launch.require_tracking, warn=job.console.warn):
        return _train_all(job, folder, planned)


def where(folder: Path, resolved: Resolved, console: Console) -> None:
    """Say where the report and MLflow's pages are."""
    launch, page = resolved.launch, folder / "report.html"
    if page.is_file():
        known = run_dir.shown(launch, page)
        console.say(f"report: {known}" + (f" (here: {page})" if known != str(page) else ""))
    console.say(f"MLflow: {ui_command(launch.tracking_uri or default_uri(run_dir.local_out(launch)))}")


def _train_all(job: Job, folder: Path, planned: int) -> dict[str, Any]:
    launch, settings = job.resolved.launch, job.resolved.settings
    params = flat(settings) | {"dataset": job.data.name, "data": job.data.digest()[:16]}
    # A tag: the same run may be given more seeds, and MLflow refuses another value for a parameter.
    tags = {"method": job.resolved.method.NAME, "dataset": job.data.name, "seeds": str(launch.seeds)}
    with recorded(folder, folder.name, params, tags) as shown:
        with stop_signals() as stop:
            for seed in job.seeds:
                seed_folder = folder / f"seed-{seed}"
                if read_json(seed_folder / "result.json") is None or not finished(seed_folder):
                    train_seed(job, folder, seed, stop)
                if stop():  # asked after the seed's last report
                    raise Interrupted(f"stopped after seed {seed}; its results are kept")
        result = collect(job, folder, planned)
        shown.update(outcome(job, folder, result))
    return result


def train_seed(job: Job, folder: Path, seed: int, stop: Any, on_record: Any = None) -> dict[str, Any]:
    """Train one seed in `folder/seed-S` from where it was; `on_record` hears of earlier processes' epochs too."""
    settings, method = job.resolved.settings, job.resolved.method
    seed_folder = folder / f"seed-{seed}"
    params = flat(settings) | {"seed": seed, "threads": job.threads, "dataset": job.data.name}
    with recorded(seed_folder, f"seed-{seed}", params, {"method": method.NAME, "dataset": job.data.name}) as shown:
        summary = read_json(seed_folder / "result.json")
        if summary is None:
            summary = _train_seed(job, seed_folder, seed, stop, on_record)
        else:  # killed behind its results
            shutil.rmtree(seed_folder / "checkpoints", ignore_errors=True)
            for line in (seed_folder / HISTORY).read_text().splitlines() if on_record else ():
                on_record(json.loads(line))
        figures = {f"{group}/{k}": v for group in GROUPS for k, v in (summary[group] or {}).items() if k != "epoch"}
        shown.update(metrics=figures, step=settings.epochs - 1)
    job.saved()
    return summary


def _train_seed(job: Job, folder: Path, seed: int, stop: Any, on_record: Any) -> dict[str, Any]:
    settings, method = job.resolved.settings, job.resolved.method
    workers = job.workers

    def begin() -> SeedRun:
        return SeedRun(
            folder, seed, settings.epochs, job.judges, job.console, workers=workers.count if workers else 0,
            threads=workers.threads if workers else job.threads, device="cuda" if torch.cuda.is_available() else "cpu",
            stop=stop, on_record=on_record, on_checkpoint=job.saved, warm=job.warm,
            stop_on_collapse=job.resolved.launch.stop_on_collapse, cure=method.COLLAPSED,
        )  # fmt: skip

    run = begin()
    try:
        for record in run.history if on_record else ():
            on_record(record)
        if workers is None:
            result = method.train(settings, job.served, run)
        else:
            run, result = Driver(method, settings, job.served, run, begin, workers, job.console).train(folder / "ray")
        stored = describe(method.NAME, job.data) | flat(settings)
        summary = results.finish_seed(run, result, job.kind.features(job.data), job.labels, stored)
        if job.warm is not None:
            job.console.say(f"seed {seed}: {summary['kept']:.1%} of the shared nodes kept their cluster")
        return summary
    finally:
        run.close()


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
