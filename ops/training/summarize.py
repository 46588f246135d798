"""What a finished seed leaves in its folder, and everything of a run that spans its seeds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment, Result
from ops.atomic_io import atomic_write, now, plain, replacing, save_arrays
from ops.clustering.label_matching import numbered_as
from ops.config.settings import flat
from ops.data.types.graph import Data
from ops.datamodules import datamodule_of
from ops.evaluation.model_selection import panel
from ops.results import arrays, finished_run, statistics
from ops.results.explanation import Explanation
from ops.results.feature_scale import rows_alike
from ops.results.figure_rows import figure_arrays
from ops.results.model_store import save_model
from ops.results.schema import (
    GROUPS,
    CountSweep,
    DataRecord,
    RunResult,
    Scores,
    SeedResult,
    SettingRecord,
    WarmStart,
)
from ops.storage import run_dir
from ops.training.consensus_result import consensus_of
from ops.training.experiment import judges_of
from ops.training.rescore import given, rescored
from ops.training.seed_run import SeedRun

PATHS = {"assignments": "assignments.parquet", "model": "model", "report": "report.html"}  # in a run's folder


def finish_seed(
    experiment: AnyExperiment, run: SeedRun, result: Result, x: NDArray[Any], settings: Mapping[str, Any]
) -> SeedResult:
    """Write all that a finished seed leaves in its folder, `result.json` last: it alone marks the seed as done.

    `x` [N F] is the input that figures set beside the embedding.
    """
    figures, folder = statistics.figures_of(run.history), run.folder
    chosen = run.assignments[int(figures["selected"]["epoch"])]
    last, confidence = result.assignment, result.confidence
    drawn, drawn_scores = consensus_of(experiment, run.seed, result.embedding)
    save_arrays(folder / arrays.ASSIGNMENTS, last=last, confidence=confidence, selected=chosen, **drawn)
    save_model(folder / "model", result.model, settings)
    pixels = getattr(experiment.data, "pixels", None)
    save_arrays(folder / arrays.SAMPLE, **figure_arrays(x, result.embedding, last, experiment.labels, pixels))
    small = np.min_scalar_type(experiment.k)
    kept = np.stack([clusters.astype(small) for clusters in run.assignments.values()])
    save_arrays(folder / arrays.EPOCHS, epoch=np.array(list(run.assignments)), clusters=kept)
    if result.more:
        save_arrays(folder / arrays.MORE, embedding=result.embedding, **result.more)
    spent: dict[str, Any] = run.spent()
    summary = SeedResult(
        seed=run.seed, epochs=len(run.history), finished=now(), resumed_from=run.resumed_from, **figures,
        sizes=np.bincount(last).tolist(), alike=rows_alike(x), given=given(experiment), **spent, warnings=run.warnings,
        precision=run.precision,
    )  # fmt: skip
    if drawn_scores is not None:
        summary.consensus = plain(drawn_scores)
    if run.warm is not None:
        summary.kept = run.warm.kept(result.assignment)
    summary.write(folder / "result.json")
    run.drop_checkpoints()
    return summary


def write_assignments(
    path: Path, data: Data, folders: Mapping[int, Path], chosen: int, result: str = "last"
) -> dict[int, NDArray[np.int64]]:
    """`assignments.parquet`: seed, id (the user's own), cluster, confidence of the last epoch; returns the clusters.

    With `consensus` as the `result` they are its clusters, and the confidence is the agreement of the draws.

    Clusters have the numbers of the `chosen` seed, the model's; those of other seeds take the number of the cluster
    there that they share most rows with.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, clusters = [], dict[int, NDArray[np.int64]]()
    confidence = {"last": "confidence", "consensus": "agreement"}[result]
    reference = arrays.read_arrays(folders[chosen] / arrays.ASSIGNMENTS)["last"]
    ids = np.arange(data.n_rows) if data.ids is None else data.ids
    for seed, folder in folders.items():
        stored = arrays.read_arrays(folder / arrays.ASSIGNMENTS)
        clusters[seed] = numbered_as(reference, stored[result])
        columns = {"seed": np.full(len(ids), seed), "id": ids, "cluster": clusters[seed]}
        tables.append(pa.table(columns | {"confidence": stored[confidence]}))
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
    return clusters


def collect(experiment: AnyExperiment, folder: Path, planned: int) -> RunResult:
    """Write what the finished seeds of `folder` come to together, `result.json` last."""
    seeds, shown = experiment.seeds, experiment.launch.result
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [rescored(experiment, f) for f in folders.values()]
    chosen = seeds[panel([{k: v for k, v in e.last.items() if v is not None} for e in each]).chosen]
    clusters = write_assignments(folder / "assignments.parquet", experiment.data, folders, chosen, shown)
    for file in ("settings.json", "model.safetensors"):
        atomic_write(folder / "model" / file, (folders[chosen] / "model" / file).read_bytes())
    if experiment.k_choice:
        CountSweep.model_validate(experiment.k_choice).write(folder / "auto.json")
    if experiment.launch.explain:
        _explain(experiment, folder, chosen, clusters[chosen])
    last, baselines = statistics.over_seeds([e.last for e in each]) or Scores(), _baselines(experiment)
    result = RunResult(
        **_request(experiment),
        resumed_from={str(s): e.resumed_from for s, e in zip(seeds, each, strict=True)},
        last=last,
        consensus=statistics.over_seeds([e.consensus for e in each]),
        result=shown,
        selected=statistics.over_seeds([e.selected for e in each], chosen=True),
        oracle=statistics.over_seeds([e.oracle for e in each]),
        selected_by=[e.selected_by for e in each],
        baselines=baselines,
        **datamodule_of(experiment.method).finish(experiment, folder, folders, chosen),
        stability=statistics.stability(list(clusters.values())),
        seconds=sum(e.seconds for e in each),
        cpu_seconds=sum(e.cpu_seconds for e in each),
        peak_memory_gib=max(e.peak_memory_gib for e in each),
        planned_memory_gib=planned / 2**30,
        precision=", ".join(sorted({e.precision or "float32" for e in each})),
        model_seed=chosen,
        **warm_start(experiment, each),
        warnings=[w for e in each for w in e.warnings],
        finished=now(),
        paths={"folder": run_dir.shown(experiment.launch, folder), **PATHS},
        verdict="; ".join([*statistics.faults(each, experiment.k), statistics.verdict(last, baselines)]),
    )  # fmt: skip
    result.write(folder / "result.json")
    return result


def _explain(experiment: AnyExperiment, folder: Path, seed: int, clusters: NDArray[np.int64]) -> None:
    """Write which features set the clusters of the model's seed apart, where the data has features that can."""
    explained = datamodule_of(experiment.method).explain(experiment, clusters)
    if explained is not None:
        Explanation.model_validate({"seed": seed, "clusters": explained}).write(folder / "explain.json")


def warm_start(experiment: AnyExperiment, each: list[SeedResult]) -> dict[str, Any]:
    """What `result.json` says of a warm start, where there was one."""
    if experiment.warm is None:
        return {}
    n_before = experiment.warm.n_known
    counts = {
        "known": n_before,
        "new": len(experiment.warm.rows) - n_before,
        "gone": len(experiment.warm.clusters) - n_before,
    }
    return {"warm": WarmStart(run=experiment.warm.run, **counts, kept=[e.kept or 0.0 for e in each])}


def _request(experiment: AnyExperiment) -> dict[str, Any]:
    """What `result.json` says of the command: method, data, settings with their sources, versions."""
    data, request = experiment.data, experiment.request
    packages = ("tessera", "torch", "ray", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    values = plain(flat(experiment.settings))
    return {
        "schema": 1,
        "method": experiment.method.name,
        "dataset": DataRecord(name=data.name, hash=data.digest(), rows=data.n_rows, given=given(experiment),
                              notes=[*data.notes, *request.remarks], **finished_run.location(request.launch)),
        "settings": {k: SettingRecord(value=v, source=request.sources.get(k, "default")) for k, v in values.items()},
        "seeds": experiment.seeds,
        "command": request.command,
        "made_by": f"{versions}, Python {platform.python_version()}, {experiment.threads} threads",
    }  # fmt: skip


def _baselines(experiment: AnyExperiment) -> dict[str, Scores | None]:
    rows: dict[str, list[dict[str, float]]] = {}
    judges = judges_of(experiment)
    for name, clusters, embeddings in datamodule_of(experiment.method).baselines(experiment):
        rows.setdefault(name, []).append(judges.unlabelled(clusters, embeddings) | judges.evaluator(clusters))
    return {name: statistics.over_seeds(each) for name, each in rows.items()}


def outcome(experiment: AnyExperiment, folder: Path, result: RunResult) -> dict[str, Any]:
    """Write the report; returns what MLflow shows of the run (`ops.storage.status.recorded`)."""
    means = {f"{group}/{k}": v for group in GROUPS for k, v in (getattr(result, group) or Scores()).means.items()}
    for name, scores in result.baselines.items():
        means |= {f"baseline/{name}/{k}": v for k, v in (scores or Scores()).means.items()}
    means |= {k: spread.mean for k, spread in result.hidden_scores.items() if spread.mean is not None}
    if experiment.launch.report:
        from ops.reporting.html import try_report

        try_report(folder, experiment.console.warn)
    return {
        "metrics": means,
        "step": experiment.settings.epochs - 1,
        "model": f"tessera-{experiment.method.name}",
        "tags": {"mlflow.note.content": result.verdict},
    }
