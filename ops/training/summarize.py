"""Everything of a run that spans its seeds: assignments, model, baselines, `result.json`, the report, its journal."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ops.api import AnyExperiment
from ops.atomic_io import atomic_write, now, read_json, write_json
from ops.config.settings import flat
from ops.datamodules import datamodule_of
from ops.evaluation.model_selection import PANEL, panel
from ops.results import finished_run, summary
from ops.results.stored_users import hidden_scores
from ops.storage import run_dir
from ops.tracking.journal import Journal
from ops.training.experiment import judges_of

EXPLAIN = "explain.json"
GROUPS = ("last", "selected", "oracle")  # always in this order: the headline first


def collect(experiment: AnyExperiment, folder: Path, planned: int) -> dict[str, Any]:
    """Write what the finished seeds of `folder` come to together; returns the content of `result.json`."""
    seeds = experiment.seeds
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [read_json(f / "result.json") or {} for f in folders.values()]
    clusters = summary.write_assignments(folder / "assignments.parquet", experiment.data, folders)
    chosen = seeds[panel([e["last"] for e in each]).chosen]
    for file in ("settings.json", "model.safetensors"):
        atomic_write(folder / "model" / file, (folders[chosen] / "model" / file).read_bytes())
    if experiment.k_choice:
        write_json(folder / "auto.json", experiment.k_choice)
    datamodule, launch = datamodule_of(experiment.method), experiment.launch
    found = datamodule.explain(experiment, clusters[seeds.index(chosen)]) if launch.explain else None
    if found is not None:
        write_json(folder / EXPLAIN, {"seed": chosen, "clusters": found})
    result = _what(experiment) | {
        "resumed_from": {str(s): e["resumed_from"] for s, e in zip(seeds, each, strict=True)},
        **{group: summary.over_seeds([e[group] for e in each]) for group in GROUPS},
        "selected_by": [e["selected_by"] for e in each],
        "baselines": _baselines(experiment),
        **datamodule.finish(experiment, folder, folders, chosen),
        "stability": summary.stability(clusters),
        **{k: sum(e[k] for e in each) for k in ("seconds", "cpu_seconds")},
        "peak_memory_gib": max(e["peak_memory_gib"] for e in each),
        "planned_memory_gib": planned / 2**30,
        "model_seed": chosen,
        **warm_start(experiment, each),
        "warnings": [w for e in each for w in e["warnings"]],
        "finished": now(),
        "paths": {"folder": run_dir.shown(launch, folder), "assignments": "assignments.parquet",
                  "model": "model", "report": "report.html"},
    }  # fmt: skip
    result["selected"]["indices"] = [name for name in PANEL if name in result["selected"]]
    result["verdict"] = summary.verdict(result)
    write_json(folder / "result.json", result)
    return read_json(folder / "result.json") or {}


def warm_start(experiment: AnyExperiment, each: list[dict[str, Any]]) -> dict[str, Any]:
    """What `result.json` says of a warm start: the run it went on from, nodes by kind, the share kept per seed."""
    if experiment.warm is None:
        return {}
    known = experiment.warm.n_known
    counts = {"known": known, "new": len(experiment.warm.rows) - known, "gone": len(experiment.warm.clusters) - known}
    return {"warm": {"run": experiment.warm.run, **counts, "kept": [e["kept"] for e in each]}}


def _what(experiment: AnyExperiment) -> dict[str, Any]:
    data, request = experiment.data, experiment.request
    values = flat(experiment.settings)
    return {
        "schema": 1,
        "method": experiment.method.name,
        "dataset": {"name": data.name, "hash": data.digest(), "rows": data.n_rows,
                    "notes": [*data.notes, *request.remarks], **finished_run.record(request.launch)},
        "settings": {k: {"value": v, "source": request.sources.get(k, "default")} for k, v in values.items()},
        "seeds": experiment.seeds,
        "command": request.command,
        "made_by": _made_by(experiment),
    }  # fmt: skip


def _made_by(experiment: AnyExperiment) -> str:
    names = ("tessera", "torch", "ray", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{versions}, Python {platform.python_version()}, {experiment.threads} threads"


def _baselines(experiment: AnyExperiment) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {}
    judges = judges_of(experiment)
    for name, clusters, embeddings in datamodule_of(experiment.method).baselines(experiment):
        rows.setdefault(name, []).append(judges.unlabelled(clusters, embeddings) | judges.evaluator(clusters))
    return {name: summary.over_seeds(found) for name, found in rows.items()}


def finish_journal(experiment: AnyExperiment, folder: Path, journal: Journal, result: dict[str, Any]) -> None:
    """The run's summary metrics, figures, report and model as records for MLflow."""
    for group in GROUPS:
        means = {f"{group}/{k}": v["mean"] for k, v in (result[group] or {}).items() if isinstance(v, dict)}
        journal.summary({k: v for k, v in means.items() if v is not None}, experiment.settings.epochs - 1)
    hidden = {k: m["mean"] for k, m in hidden_scores(result).items() if m["mean"] is not None}
    journal.summary(hidden, experiment.settings.epochs - 1)
    if experiment.launch.report:
        from ops.reporting.html import write_report

        journal.artifact(write_report(folder).relative_to(folder))
        journal.artifact(Path("figures"), "figures")
    for file in ("assignments.parquet", "result.json"):
        journal.artifact(Path(file))
    journal.model("model", f"tessera-{experiment.method.name}")
    journal.end("FINISHED")
