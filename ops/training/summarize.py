"""What a finished seed leaves in its folder, and everything of a run that spans its seeds."""

import platform
import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment, Result, Warm
from ops.atomic_io import Arrays, now, plain, replacing, save_arrays
from ops.clustering.owners import Owners
from ops.config.settings import flat
from ops.data.load import prepared
from ops.datamodules import datamodule_of
from ops.errors import DivergedError
from ops.evaluation.model_selection import panel
from ops.evaluation.unlabelled import cluster_sizes
from ops.graph.partition.executors import in_process
from ops.results import arrays, finished_run, statistics
from ops.results.feature_scale import looked_at
from ops.results.figure_rows import Rows, T, figure_arrays, figure_rows
from ops.results.model_store import describe, save_model
from ops.results.schema import GROUPS, CountSweep, DataRecord, RunResult, Scores, SeedResult, SettingRecord, WarmStart
from ops.results.seed_rows import SeedRows, save_rows
from ops.storage import run_dir
from ops.storage.location import Location
from ops.storage.status import Ending
from ops.training.consensus_and_baselines import (
    BASELINES,
    CONSENSUS,
    baselines_of,
    baselines_of_seed,
    consensus_of,
    consensus_of_seeds,
    ids_of,
)
from ops.training.rescore import given, rescored
from ops.training.seed_run import SeedRun
from ops.training.seed_tables import TABLE, write_assignments, write_explanation

PATHS = {"model": "model", "report": "report.html"}  # in a run's folder


def finish_seed(experiment: AnyExperiment, run: SeedRun, result: Result) -> SeedResult | None:
    """Write all that a finished seed leaves in its folder, `result.json` last: it alone marks the seed as done.

    All ranks call it; each writes the rows that it owns. None behind rank 0. Raises DivergedError as `_watch_result`.
    """
    run.measure()
    judges, last = run.judges, result.assignment
    if judges is None:  # rank 0 has all rows
        return None
    module, data, owners = datamodule_of(experiment.method), experiment.data, judges.owners
    figures = statistics.figures_of(run.history, result.epoch) if run.rank == 0 else None
    chosen = int(owners.group.broadcast_(torch.tensor(int(figures["selected"]["epoch"] or 0) if figures else 0)))
    agreed, agreed_scores = consensus_of(experiment, run, result)
    sizes = cluster_sizes(last, owners)
    _watch_result(experiment, run, sizes)
    _write_rows(experiment, run, result, {"selected": run.assignments[chosen], **agreed})
    module.finish_seed(experiment, run, run.folder, result)
    baselines = baselines_of_seed(experiment, run)
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
    kept = None if run.warm is None else run.warm.kept(last)
    of_some: dict[str, Any] = {"consensus": plain(agreed_scores), "baselines": baselines, "kept": kept}
    summary = SeedResult(
        seed=run.seed, epochs=len(run.history), finished=now(), resumed_from=run.resumed_from, **figures,
        sizes=sizes.tolist(), alike=alike, given=given(experiment), warnings=run.warnings, precision=run.precision,
        **{key: value for key, value in (run.spent() | of_some).items() if value is not None},
    )  # fmt: skip
    _tell_worsened(experiment, run, owners.total, result.epoch, summary)
    summary.write(run.folder / "result.json")
    if summary.kept is not None:
        experiment.console.say(f"seed {run.seed}: {summary.kept:.1%} of the shared nodes kept their cluster")
    return summary


def _tell_worsened(experiment: AnyExperiment, run: SeedRun, rows: int, taken: int | None, summary: SeedResult) -> None:
    """Warn of clusters that have become worse; with an epoch that was taken the summary says why."""
    unfit = () if experiment.method.kind == "graph" else ("cluster/modularity",)  # of users it is no aim
    history = [{key: value for key, value in record.items() if key not in unfit} for record in run.history]
    if worsened := statistics.worsened(history, rows, experiment.k, taken):
        summary.warnings = [*run.warnings, f"seed {run.seed}: {worsened}"]
        experiment.console.warn(summary.warnings[-1])
        if taken is not None:
            summary.taken = worsened


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
    if (first := offsets_of(experiment.data)) is not None and len(first) > 2:
        ids = [experiment.data.part_ids(part) for part in run.judges.owners.parts]
        rows = {**rows, "id": np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)}
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


def collect(experiment: AnyExperiment, folder: Path, planned: int, place: Location | None = None) -> RunResult:
    """Write what the finished seeds of `folder` come to together, `result.json` last.

    `place`: where that is on S3 if ranks keep their rows there.
    """
    seeds, shown, run = experiment.seeds, experiment.launch.result, in_process()
    module, offsets = datamodule_of(experiment.method), datamodule_of(experiment.method).offsets(experiment.data)
    rows = SeedRows(folder, tuple(seeds), 1 if offsets is None else len(offsets) - 1, place)
    each = [_rescored(experiment, rows, seed) for seed in seeds]
    lasts = [{k: v for k, v in e.last.items() if v is not None} for e in each]
    chosen = seeds[::-1][panel(lasts[::-1]).chosen]  # of equal seeds the first
    ids = None if rows.parts > 1 else ids_of(experiment)
    stability = write_assignments(rows, run, chosen, shown, experiment.k, ids)
    _write_files(experiment, rows, chosen, each[seeds.index(chosen)].sizes)
    last, baselines = statistics.over_seeds([e.last for e in each]) or Scores(), baselines_of(experiment, rows, each)
    result = RunResult(
        schema=1, method=experiment.method.name, dataset=_dataset(experiment), settings=_settings(experiment),
        seeds=seeds, command=experiment.request.command, made_by=_versions(experiment.threads), last=last, result=shown,
        baselines=baselines, **module.finish(experiment, rows, chosen, run), stability=stability,
        planned_memory_gib=planned / 2**30, model_seed=chosen, finished=now(),
        paths={"folder": run_dir.shown(experiment.launch, folder), "assignments": rows.table(TABLE), **PATHS},
    )  # fmt: skip
    _add_seeds(result, each)
    result.consensus_of_seeds = consensus_of_seeds(experiment, rows, chosen)
    if (folder / f"{BASELINES}.parquet").is_file():
        result.paths[BASELINES] = f"{BASELINES}.parquet"
    if result.consensus_of_seeds is not None:
        result.paths[CONSENSUS] = f"{CONSENSUS}.parquet"
    if experiment.warm is not None:
        result.warm = warm_start(experiment.warm, each)
    result.verdict = "; ".join([*statistics.faults(each, experiment.k), *_verdicts(result)])
    result.write(folder / "result.json")
    return result


def _write_files(experiment: AnyExperiment, rows: SeedRows, chosen: int, sizes: list[int]) -> None:
    """Write what is left beside `result.json`: the model, the choice of K, what sets the clusters of `sizes` apart."""
    rows.bring(TABLE)  # for the report and MLflow
    for file in ("settings.json", "model.safetensors"):
        with replacing(rows.folder / "model" / file) as temporary:
            shutil.copyfile(rows.seed(chosen) / "model" / file, temporary)
    if experiment.k_choice:
        CountSweep.model_validate(experiment.k_choice).write(rows.folder / "auto.json")
    if experiment.launch.explain:
        write_explanation(experiment, rows, chosen, sizes)


def _add_seeds(result: RunResult, each: list[SeedResult]) -> None:
    """Add what `result.json` says of all seeds together but for their last epochs."""
    result.resumed_from = {str(e.seed): e.resumed_from for e in each}
    result.consensus = statistics.over_seeds([e.consensus for e in each])
    result.selected = statistics.over_seeds([e.selected for e in each], chosen=True)
    result.oracle = statistics.over_seeds([e.oracle for e in each])
    result.selected_by = [e.selected_by for e in each]
    result.seconds, result.cpu_seconds = sum(e.seconds for e in each), sum(e.cpu_seconds for e in each)
    result.peak_memory_gib = max(e.peak_memory_gib for e in each)
    result.precision = ", ".join(sorted({e.precision or "float32" for e in each}))
    result.warnings = [w for e in each for w in e.warnings]
    if taken := {str(e.seed): e.taken for e in each if e.taken}:
        result.taken = taken


def _rescored(experiment: AnyExperiment, rows: SeedRows, seed: int) -> SeedResult:
    """The seed's summary by the labels that there are now; where these are new, all rows are needed in the folder."""
    folder = rows.seed(seed)
    if SeedResult.read(folder / "result.json").given != given(experiment):
        for file in (arrays.EPOCHS, arrays.ASSIGNMENTS):
            rows.bring(f"{folder.name}/{Path(file).stem}")
    return rescored(experiment, folder)


def _verdicts(result: RunResult) -> list[str]:
    """By labels where there are any, and of users by their hidden notes rather than by those that chose the epoch."""
    by_recall = statistics.recall_verdict(result.recall_line, result.strongest)
    by_scores = statistics.verdict(result.last, result.baselines)
    return [by_scores, by_recall] if by_recall and result.has_labels else [by_recall or by_scores]


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
