"""Everything of a run that spans its seeds: assignments, model, baselines, `result.json`, the report, its journal."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ops.cluster.selection import PANEL, panel
from ops.run import known, place, results
from ops.run.checkpoint import atomic_write, write_json
from ops.run.job import Job
from ops.run.journal import Journal
from ops.run.settings import flat
from ops.run.stored_users import hidden_scores

EXPLAIN = "explain.json"
GROUPS = ("last", "selected", "oracle")  # always in this order: the headline first


def collect(job: Job, folder: Path, planned: int) -> dict[str, Any]:
    """Write what the finished seeds of `folder` come to together; returns the content of `result.json`."""
    seeds = job.seeds
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [results.read_json(f / "result.json") or {} for f in folders.values()]
    clusters = results.write_assignments(folder / "assignments.parquet", job.data, folders)
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
        **{group: results.over_seeds([e[group] for e in each]) for group in GROUPS},
        "selected_by": [e["selected_by"] for e in each],
        "baselines": _baselines(job),
        **job.kind.finish(job, folder, folders, chosen),
        "stability": results.stability(clusters),
        **{k: sum(e[k] for e in each) for k in ("seconds", "cpu_seconds")},
        "peak_memory_gib": max(e["peak_memory_gib"] for e in each),
        "planned_memory_gib": planned / 2**30,
        "model_seed": chosen,
        **warm_start(job, each),
        "warnings": [w for e in each for w in e["warnings"]],
        "finished": results.now(),
        "paths": {"folder": place.shown(job.resolved.launch, folder), "assignments": "assignments.parquet",
                  "model": "model", "report": "report.html"},
    }  # fmt: skip
    result["selected"]["indices"] = [name for name in PANEL if name in result["selected"]]
    result["verdict"] = results.verdict(result)
    write_json(folder / "result.json", result)
    return results.read_json(folder / "result.json") or {}


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
                    "notes": [*job.data.notes, *job.resolved.remarks], **known.record(job.resolved.launch)},
        "settings": {k: {"value": v, "source": job.resolved.sources.get(k, "default")} for k, v in values.items()},
        "seeds": job.seeds,
        "command": job.resolved.command,
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
    return {name: results.over_seeds(found) for name, found in rows.items()}


def finish_journal(job: Job, folder: Path, journal: Journal, result: dict[str, Any]) -> None:
    """The run's summary metrics, figures, report and model as records for MLflow."""
    for group in GROUPS:
        means = {f"{group}/{k}": v["mean"] for k, v in (result[group] or {}).items() if isinstance(v, dict)}
        journal.summary({k: v for k, v in means.items() if v is not None}, job.resolved.settings.epochs - 1)
    hidden = {k: m["mean"] for k, m in hidden_scores(result).items() if m["mean"] is not None}
    journal.summary(hidden, job.resolved.settings.epochs - 1)
    if job.resolved.launch.report:
        from ops.run.report import write_report

        journal.artifact(write_report(folder).relative_to(folder))
        journal.artifact(Path("figures"), "figures")
    for file in ("assignments.parquet", "result.json"):
        journal.artifact(Path(file))
    journal.model("model", f"tessera-{job.resolved.method.NAME}")
    journal.end("FINISHED")
