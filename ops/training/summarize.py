"""Everything of a run that spans its seeds: assignments, model, baselines, `result.json`, the report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ops.atomic_io import atomic_write, now, read_json, write_json
from ops.config.redact import mask
from ops.config.settings import flat
from ops.evaluation.model_selection import PANEL, panel
from ops.results import finished_run, summary
from ops.results.stored_users import hidden_scores
from ops.storage import run_dir
from ops.training.experiment import Job

EXPLAIN = "explain.json"
GROUPS = ("last", "selected", "oracle")  # always in this order: the headline first


def collect(job: Job, folder: Path, planned: int) -> dict[str, Any]:
    """Write what the finished seeds of `folder` come to together; returns the content of `result.json`."""
    seeds = job.seeds
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [read_json(f / "result.json") or {} for f in folders.values()]
    clusters = summary.write_assignments(folder / "assignments.parquet", job.data, folders)
    chosen = seeds[panel([e["last"] for e in each]).chosen]
    for file in ("settings.json", "model.safetensors"):
        atomic_write(folder / "model" / file, (folders[chosen] / "model" / file).read_bytes())
    if job.auto:
        write_json(folder / "auto.json", job.auto)
    found = job.kind.explain(job, clusters[seeds.index(chosen)]) if job.resolved.launch.explain else None
    if found is not None:
        write_json(folder / EXPLAIN, {"seed": chosen, "clusters": found})
    result = _what(job) | {
        "resumed_from": {str(s): e["resumed_from"] for s, e in zip(seeds, each, strict=True)},
        **{group: summary.over_seeds([e[group] for e in each]) for group in GROUPS},
        "selected_by": [e["selected_by"] for e in each],
        "baselines": _baselines(job),
        **job.kind.finish(job, folder, folders, chosen),
        "stability": summary.stability(clusters),
        **{k: sum(e[k] for e in each) for k in ("seconds", "cpu_seconds")},
        "peak_memory_gib": max(e["peak_memory_gib"] for e in each),
        "planned_memory_gib": planned / 2**30,
        "model_seed": chosen,
        **warm_start(job, each),
        "warnings": [w for e in each for w in e["warnings"]],
        "finished": now(),
        "paths": {"folder": run_dir.shown(job.resolved.launch, folder), "assignments": "assignments.parquet",
                  "model": "model", "report": "report.html"},
    }  # fmt: skip
    result["selected"]["indices"] = [name for name in PANEL if name in result["selected"]]
    result["verdict"] = summary.verdict(result)
    write_json(folder / "result.json", result)
    return read_json(folder / "result.json") or {}


def warm_start(job: Job, each: list[dict[str, Any]]) -> dict[str, Any]:
    """What `result.json` says of a warm start: the run it went on from, nodes by kind, the share kept per seed."""
    if job.warm is None:
        return {}
    known = job.warm.n_known
    counts = {"known": known, "new": len(job.warm.rows) - known, "gone": len(job.warm.clusters) - known}
    return {"warm": {"run": job.warm.run, **counts, "kept": [e["kept"] for e in each]}}


def _what(job: Job) -> dict[str, Any]:
    values = flat(job.resolved.settings)
    return {
        "schema": 1,
        "method": job.resolved.method.NAME,
        "dataset": {"name": job.data.name, "hash": job.data.digest(), "rows": job.data.n_rows,
                    "notes": [*job.data.notes, *job.resolved.remarks], **finished_run.record(job.resolved.launch)},
        "settings": {k: {"value": v, "source": job.resolved.sources.get(k, "default")} for k, v in values.items()},
        "seeds": job.seeds,
        "command": mask(job.resolved.command),
        "made_by": _made_by(job),
    }  # fmt: skip


def _made_by(job: Job) -> str:
    names = ("tessera", "torch", "ray", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{versions}, Python {platform.python_version()}, {job.threads} threads"


def _baselines(job: Job) -> dict[str, Any]:
    rows: dict[str, list[dict[str, float]]] = {}
    for name, found in job.kind.baselines(job):
        rows.setdefault(name, []).append(found)
    return {name: summary.over_seeds(found) for name, found in rows.items()}


def outcome(job: Job, folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Write the report; returns what MLflow shows of the run (`ops.storage.status.recorded`)."""
    groups = {group: result[group] or {} for group in GROUPS}
    groups |= {f"baseline/{name}": figures or {} for name, figures in result["baselines"].items()}
    spreads = {f"{group}/{k}": v for group, figures in groups.items() for k, v in figures.items()} | hidden_scores(
        result
    )
    if job.resolved.launch.report:
        from ops.reporting.html import write_report

        write_report(folder)
    return {
        "metrics": {k: v["mean"] for k, v in spreads.items() if isinstance(v, dict) and v["mean"] is not None},
        "step": job.resolved.settings.epochs - 1,
        "model": f"tessera-{job.resolved.method.NAME}",
        "tags": {"mlflow.note.content": result["verdict"]},
    }
