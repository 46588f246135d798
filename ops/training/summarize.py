"""What a finished seed leaves in its folder, and everything of a run that spans its seeds."""

import platform
import shutil
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment, Result, Warm
from ops.atomic_io import Arrays, now, plain, replacing, save_arrays
from ops.clustering.label_matching import numbered_as
from ops.clustering.owners import Owners
from ops.config.settings import flat
from ops.data.load import prepared
from ops.datamodules import datamodule_of
from ops.errors import DivergedError
from ops.evaluation.model_selection import panel
from ops.evaluation.unlabelled import cluster_sizes
from ops.results import arrays, finished_run, statistics
from ops.results.feature_scale import looked_at
from ops.results.figure_rows import Rows, T, figure_arrays, figure_rows
from ops.results.model_store import describe, save_model
from ops.results.rows_by_rank import save_rows
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
from ops.results.stored_run import Explanation
from ops.storage import run_dir
from ops.storage.status import Ending
from ops.training.consensus_result import consensus_of
from ops.training.experiment import judges_of
from ops.training.rescore import given, rescored
from ops.training.seed_run import SeedRun

PATHS = {"model": "model", "report": "report.html"}  # in a run's folder


def finish_seed(experiment: AnyExperiment, run: SeedRun, result: Result) -> SeedResult | None:
    """Write all that a finished seed leaves in its folder, `result.json` last: it alone marks the seed as done.

    All ranks call it; each writes the rows that it owns. None behind rank 0. Raises DivergedError as `_watch_result`.
    """
    judges, last = run.judges, result.assignment
    if judges is None:  # rank 0 has all rows
        return None
    module, data, owners = datamodule_of(experiment.method), experiment.data, judges.owners
    figures = statistics.figures_of(run.history, result.epoch) if run.rank == 0 else None
    chosen = int(owners.group.broadcast_(torch.tensor(int(figures["selected"]["epoch"] or 0) if figures else 0)))
    drawn, drawn_scores = consensus_of(experiment, run.seed, result.embedding)
    sizes = cluster_sizes(last, owners)
    _watch_result(experiment, run, sizes)
    _write_rows(experiment, run, result, {"selected": run.assignments[chosen], **drawn})
    module.finish_seed(experiment, run, run.folder, result)
    z, drawn_clusters = _for_figures(result.embedding, owners), _for_figures(last, owners)
    run.publish()
    if figures is None:
        return None
    columns, alike = looked_at(partial(module.features, data), owners.total)
    words = describe(experiment.method.name, data, columns) | flat(experiment.settings)
    save_model(run.folder / "model", result.model, words)
    x = module.features(data) if module.offsets(data) is None else Rows(owners.total, partial(module.features, data))
    pixels = getattr(data, "pixels", None)
    save_arrays(run.folder / arrays.SAMPLE, **figure_arrays(x, z, drawn_clusters, experiment.labels, pixels))
    spent = run.spent()
    summary = SeedResult(
        seed=run.seed, epochs=len(run.history), finished=now(), resumed_from=run.resumed_from, **figures,
        sizes=sizes.tolist(), alike=alike, given=given(experiment), warnings=run.warnings, precision=run.precision,
        seconds=spent["seconds"], cpu_seconds=spent["cpu_seconds"], peak_memory_gib=spent["peak_memory_gib"],
    )  # fmt: skip
    _tell_shrunken(experiment, run, owners.total, result.epoch, summary)
    if drawn_scores is not None:
        summary.consensus = plain(drawn_scores)
    if run.warm is not None:
        summary.kept = run.warm.kept(result.assignment)
    summary.write(run.folder / "result.json")
    run.drop_checkpoints()
    return summary


def _tell_shrunken(
    experiment: AnyExperiment, run: SeedRun, rows: int, taken: int | None, summary: SeedResult
) -> None:  # fmt: skip
    """Warn of a cluster that has shrunk to almost nothing; with an epoch that was taken the summary says why."""
    if shrunken := statistics.shrunken(run.history, rows, experiment.k, taken):
        summary.warnings = [*run.warnings, f"seed {run.seed}: {shrunken}"]
        experiment.console.warn(summary.warnings[-1])
        if taken is not None:
            summary.taken = shrunken


def _for_figures(local: NDArray[T], owners: Owners) -> NDArray[T] | Rows[T]:
    """The rows of all ranks that figures need of each rank's; all ranks call it."""
    if owners.group.world == 1:
        return local
    numbers = np.sort(np.concatenate(figure_rows(owners.total)))
    rows = owners.gather(local, numbers)
    return Rows(owners.total, lambda asked: rows[np.searchsorted(numbers, asked)])


def _write_rows(experiment: AnyExperiment, run: SeedRun, result: Result, clusters: Arrays) -> None:
    """Write the rows that this rank owns: clusters and confidence, those of all scored epochs, embeddings."""
    assert run.judges is not None
    offsets_of, group = datamodule_of(experiment.method).offsets, run.judges.owners.group
    small = np.min_scalar_type(experiment.k)
    epochs = np.stack([each.astype(small) for each in run.assignments.values()])
    rows: Arrays = {"last": result.assignment, "confidence": result.confidence, **clusters}
    more = {"embedding": result.embedding, **result.more} if result.more else {}

    def offsets(name: str) -> NDArray[np.int64] | None:
        return None if name == "epoch" else offsets_of(experiment.data, name)

    save_rows(run.folder / arrays.ASSIGNMENTS, group, offsets, rows)
    save_rows(
        run.folder / arrays.EPOCHS, group, offsets, {"epoch": np.array(list(run.assignments)), "clusters": epochs}, 1
    )
    save_rows(run.folder / arrays.MORE, group, offsets, more)


def _watch_result(experiment: AnyExperiment, run: SeedRun, sizes: NDArray[np.int64]) -> None:
    """Warn of a result that is one cluster; DivergedError instead where the user asked to stop."""
    rows = int(sizes.sum())
    if sizes.max() < rows:
        return
    text = (
        f"seed {run.seed}: all {rows:,} rows are in one cluster of {experiment.k}; {experiment.method.avoid_collapse}"
    )
    if experiment.launch.stop_on_collapse:
        raise DivergedError(text)
    if run.rank == 0:
        run.warnings.append(text)
        experiment.console.warn(text)


def write_assignments(
    experiment: AnyExperiment, folder: Path, folders: Mapping[int, Path], chosen: int
) -> tuple[str, dict[int, NDArray[np.int64]]]:
    """`assignments.parquet`: seed, id (the user's own), cluster, confidence of the last epoch; its name, the clusters.

    Rows in parts are files of a folder `assignments`. With `consensus` as the result they are its clusters, and the
    confidence is the agreement of the draws. Clusters have the numbers of the `chosen` seed, the model's; those of
    other seeds take the number of the cluster there that they share most rows with.
    """
    data, result = experiment.data, experiment.launch.result
    confidence = {"last": "confidence", "consensus": "agreement"}[result]
    stored = {seed: arrays.read_arrays(each / arrays.ASSIGNMENTS) for seed, each in folders.items()}
    reference = stored[chosen]["last"]
    clusters = {seed: numbered_as(reference, each[result]) for seed, each in stored.items()}
    ids = np.arange(data.n_rows) if data.ids is None else data.ids

    def columns(rows: slice) -> dict[str, NDArray[np.generic]]:
        n = len(ids[rows])
        return {
            "seed": np.repeat(np.array(list(stored)), n),
            "id": np.tile(ids[rows], len(stored)),
            "cluster": np.concatenate([each[rows] for each in clusters.values()]),
            "confidence": np.concatenate([each[confidence][rows] for each in stored.values()]),
        }

    offsets = datamodule_of(experiment.method).offsets(data)
    return arrays.write_table(folder / "assignments.parquet", offsets, columns), clusters


def collect(experiment: AnyExperiment, folder: Path, planned: int) -> RunResult:
    """Write what the finished seeds of `folder` come to together, `result.json` last."""
    seeds, shown = experiment.seeds, experiment.launch.result
    folders = {seed: folder / f"seed-{seed}" for seed in seeds}
    each = [rescored(experiment, f) for f in folders.values()]
    lasts = [{k: v for k, v in e.last.items() if v is not None} for e in each]
    chosen = seeds[::-1][panel(lasts[::-1]).chosen]  # of equal seeds the first
    table, clusters = write_assignments(experiment, folder, folders, chosen)
    for file in ("settings.json", "model.safetensors"):
        with replacing(folder / "model" / file) as temporary:
            shutil.copyfile(folders[chosen] / "model" / file, temporary)
    if experiment.k_choice:
        CountSweep.model_validate(experiment.k_choice).write(folder / "auto.json")
    if experiment.launch.explain:
        _explain(experiment, folder, chosen, clusters[chosen])
    last, baselines = statistics.over_seeds([e.last for e in each]) or Scores(), _baselines(experiment)
    result = RunResult(
        schema=1, method=experiment.method.name, dataset=_dataset(experiment), settings=_settings(experiment),
        seeds=seeds, command=experiment.request.command, made_by=_versions(experiment.threads),
        resumed_from={str(s): e.resumed_from for s, e in zip(seeds, each, strict=True)},
        last=last, consensus=statistics.over_seeds([e.consensus for e in each]), result=shown,
        selected=statistics.over_seeds([e.selected for e in each], chosen=True),
        oracle=statistics.over_seeds([e.oracle for e in each]),
        selected_by=[e.selected_by for e in each], baselines=baselines,
        **datamodule_of(experiment.method).finish(experiment, folder, folders, chosen),
        stability=statistics.stability(list(clusters.values())),
        seconds=sum(e.seconds for e in each), cpu_seconds=sum(e.cpu_seconds for e in each),
        peak_memory_gib=max(e.peak_memory_gib for e in each),
        planned_memory_gib=planned / 2**30, precision=", ".join(sorted({e.precision or "float32" for e in each})),
        model_seed=chosen, warnings=[w for e in each for w in e.warnings], finished=now(),
        paths={"folder": run_dir.shown(experiment.launch, folder), "assignments": table, **PATHS},
    )  # fmt: skip
    if taken := {str(e.seed): e.taken for e in each if e.taken}:
        result.taken = taken
    if experiment.warm is not None:
        result.warm = warm_start(experiment.warm, each)
    result.verdict = "; ".join([*statistics.faults(each, experiment.k), *_verdicts(result)])
    result.write(folder / "result.json")
    return result


def _verdicts(result: RunResult) -> list[str]:
    """By labels where there are any, and of users by their hidden notes rather than by those that chose the epoch."""
    by_recall = statistics.recall_verdict(result.recall_line, result.strongest)
    by_scores = statistics.verdict(result.last, result.baselines)
    return [by_scores, by_recall] if by_recall and result.has_labels else [by_recall or by_scores]


def _explain(experiment: AnyExperiment, folder: Path, seed: int, clusters: NDArray[np.int64]) -> None:
    """Write which features set the clusters of the model's seed apart, where the data has features that can."""
    explained = datamodule_of(experiment.method).explain(experiment, clusters)
    if explained is not None:
        Explanation(seed=seed, clusters=explained).write(folder / "explain.json")


def warm_start(warm: Warm, each: list[SeedResult]) -> WarmStart:
    """What `result.json` says of a warm start."""
    known = warm.n_known
    new, gone = len(warm.rows) - known, len(warm.clusters) - known
    return WarmStart(run=warm.run, known=known, new=new, gone=gone, kept=[e.kept or 0.0 for e in each])


def _versions(threads: int) -> str:
    packages = ("tessera", "torch", "ray", "numpy", "scikit-learn")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{versions}, Python {platform.python_version()}, {threads} threads"


def _dataset(experiment: AnyExperiment) -> DataRecord:
    data, request = experiment.data, experiment.request
    return DataRecord(
        name=data.name, hash=data.digest(), rows=data.n_rows, given=given(experiment),
        notes=[*data.notes, *request.remarks], spec=finished_run.location(request.launch.dataset),
        **prepared(request.launch),
    )  # fmt: skip


def _settings(experiment: AnyExperiment) -> dict[str, SettingRecord]:
    sources = experiment.request.sources
    values = plain(flat(experiment.settings)).items()
    return {key: SettingRecord(value=value, source=sources.get(key, "default")) for key, value in values}


def _baselines(experiment: AnyExperiment) -> dict[str, Scores | None]:
    rows: dict[str, list[dict[str, float]]] = {}
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    for name, clusters, embeddings in datamodule_of(experiment.method).baselines(experiment):
        rows.setdefault(name, []).append(judges.unlabelled(clusters, embeddings) | judges.evaluator(clusters))
    return {name: statistics.over_seeds(each) for name, each in rows.items()}


def outcome(experiment: AnyExperiment, folder: Path, result: RunResult) -> Ending:
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
