"""What a finished seed leaves in its folder, and everything of a run that spans its seeds."""

import platform
import shutil
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment, Result
from ops.atomic_io import now, plain, replacing, save_arrays
from ops.clustering.owners import Owners
from ops.config.settings import flat
from ops.datamodules import datamodule_of
from ops.errors import DivergedError
from ops.evaluation.model_selection import panel
from ops.evaluation.unlabelled import cluster_sizes
from ops.graph.partition.executors import RunTasks, in_process
from ops.results import arrays, finished_run, statistics
from ops.results.explanation import Explanation
from ops.results.feature_scale import looked_at
from ops.results.figure_rows import Rows, figure_arrays, figure_rows
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
from ops.results.seed_rows import SeedRows
from ops.rng import generator
from ops.storage import run_dir
from ops.storage.location import Location
from ops.training.baselines import baselines_of, baselines_of_seed
from ops.training.consensus_result import consensus_of
from ops.training.rescore import given, rescored
from ops.training.seed_run import SeedRun
from ops.training.seed_tables import TABLE, write_assignments

PATHS = {"model": "model", "report": "report.html"}  # in a run's folder
EXPLAINED = 1 << 20  # rows in parts, of more a sample


def finish_seed(experiment: AnyExperiment, run: SeedRun, result: Result) -> SeedResult | None:
    """Write all that a finished seed leaves in its folder, `result.json` last: it alone marks the seed as done.

    All ranks call it; each writes the rows that it owns. None behind rank 0. Raises DivergedError as `_watch_result`.
    """
    judges, last = run.judges, result.assignment
    if judges is None:  # rank 0 has all rows
        return None
    module, data, owners = datamodule_of(experiment.method), experiment.data, judges.owners
    figures = statistics.figures_of(run.history) if run.rank == 0 else {"selected": {"epoch": 0}}
    chosen = int(owners.group.broadcast_(torch.tensor(int(figures["selected"]["epoch"]))))
    drawn, drawn_scores = consensus_of(experiment, run.seed, result.embedding)
    sizes = cluster_sizes(last, owners)
    _watch_result(experiment, run, sizes)
    _write_rows(experiment, run, result, {"selected": run.assignments[chosen], **drawn})
    module.finish_seed(experiment, run, run.folder, result)
    more = baselines_of_seed(experiment, run)
    z, drawn_clusters = (_for_figures(each, owners) for each in (result.embedding, last))
    run.publish()
    if run.rank:
        return None
    _tell_shrunken(experiment, run, owners.total)
    columns, alike = looked_at(partial(module.features, data), owners.total)
    words = describe(experiment.method.name, data, columns) | flat(experiment.settings)
    save_model(run.folder / "model", result.model, words)
    x = module.features(data) if module.offsets(data) is None else Rows(owners.total, partial(module.features, data))
    pixels = getattr(data, "pixels", None)
    save_arrays(run.folder / arrays.SAMPLE, **figure_arrays(x, z, drawn_clusters, experiment.labels, pixels))
    more |= run.spent() | ({} if drawn_scores is None else {"consensus": plain(drawn_scores)})
    summary = SeedResult(
        seed=run.seed, epochs=len(run.history), finished=now(), resumed_from=run.resumed_from, **figures,
        sizes=sizes.tolist(), alike=alike, given=given(experiment), **more, warnings=run.warnings,
        precision=run.precision,
    )  # fmt: skip
    if run.warm is not None:
        summary.kept = run.warm.kept(result.assignment)
    summary.write(run.folder / "result.json")
    run.drop_checkpoints()
    return summary


def _tell_shrunken(experiment: AnyExperiment, run: SeedRun, rows: int) -> None:
    """Warn of a cluster that has shrunk to almost nothing."""
    if shrunken := statistics.shrunken(run.history, rows, experiment.k):
        run.warnings.append(f"seed {run.seed}: {shrunken}")
        experiment.console.warn(run.warnings[-1])


def _for_figures(local: NDArray[Any], owners: Owners) -> NDArray[Any] | Rows:
    """The rows of all ranks that figures need of each rank's; all ranks call it."""
    if owners.group.world == 1:
        return local
    numbers = np.sort(np.concatenate(figure_rows(owners.total)))
    rows = owners.gather(local, numbers)
    return Rows(owners.total, lambda asked: rows[np.searchsorted(numbers, asked)])


def _write_rows(experiment: AnyExperiment, run: SeedRun, result: Result, clusters: Mapping[str, NDArray[Any]]) -> None:
    """Write the rows that this rank owns: clusters and confidence, those of all scored epochs, embeddings."""
    assert run.judges is not None
    offsets_of, group = datamodule_of(experiment.method).offsets, run.judges.owners.group
    small = np.min_scalar_type(experiment.k)
    epochs = np.stack([each.astype(small) for each in run.assignments.values()])
    rows: arrays.Arrays = {"last": result.assignment, "confidence": result.confidence, **clusters}
    if (first := offsets_of(experiment.data)) is not None and len(first) > 2:
        ids = [experiment.data.part_ids(part) for part in run.judges.owners.parts]
        rows["id"] = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
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


def collect(
    experiment: AnyExperiment, folder: Path, planned: int, place: Location | None = None, run: RunTasks | None = None
) -> RunResult:
    """Write what the finished seeds of `folder` come to together, `result.json` last.

    `place`: where that is on S3 if ranks keep their rows there; `run` does the tasks of parts, by default here.
    """
    seeds, shown, run = experiment.seeds, experiment.launch.result, run or in_process()
    module, offsets = datamodule_of(experiment.method), datamodule_of(experiment.method).offsets(experiment.data)
    rows = SeedRows(folder, tuple(seeds), 1 if offsets is None else len(offsets) - 1, place)
    each = [_rescored(experiment, rows, seed) for seed in seeds]
    lasts = [{k: v for k, v in e.last.items() if v is not None} for e in each]
    chosen = seeds[::-1][panel(lasts[::-1]).chosen]  # of equal seeds the first
    stability = write_assignments(rows, run, chosen, shown, experiment.k, None if rows.parts > 1 else _ids(experiment))
    rows.bring(TABLE)  # for the report and MLflow
    for file in ("settings.json", "model.safetensors"):
        with replacing(folder / "model" / file) as temporary:
            shutil.copyfile(rows.seed(chosen) / "model" / file, temporary)
    if experiment.k_choice:
        CountSweep.model_validate(experiment.k_choice).write(folder / "auto.json")
    if experiment.launch.explain:
        _explain(experiment, rows, chosen, each[seeds.index(chosen)].sizes)
    last, baselines = statistics.over_seeds([e.last for e in each]) or Scores(), baselines_of(experiment, each)
    result = RunResult(
        **_request(experiment),
        **_of_seeds(each),
        last=last,
        result=shown,
        baselines=baselines,
        **module.finish(experiment, rows, chosen, run),
        stability=stability,
        planned_memory_gib=planned / 2**30,
        model_seed=chosen,
        **warm_start(experiment, each),
        finished=now(),
        paths={"folder": run_dir.shown(experiment.launch, folder), "assignments": rows.table(TABLE), **PATHS},
        verdict="; ".join([*statistics.faults(each, experiment.k), statistics.verdict(last, baselines)]),
    )  # fmt: skip
    result.write(folder / "result.json")
    return result


def _of_seeds(each: list[SeedResult]) -> dict[str, Any]:
    """What `result.json` says of all seeds together but for their last epochs."""
    return {
        "resumed_from": {str(e.seed): e.resumed_from for e in each},
        "consensus": statistics.over_seeds([e.consensus for e in each]),
        "selected": statistics.over_seeds([e.selected for e in each], chosen=True),
        "oracle": statistics.over_seeds([e.oracle for e in each]),
        "selected_by": [e.selected_by for e in each],
        "seconds": sum(e.seconds for e in each), "cpu_seconds": sum(e.cpu_seconds for e in each),
        "peak_memory_gib": max(e.peak_memory_gib for e in each),
        "precision": ", ".join(sorted({e.precision or "float32" for e in each})),
        "warnings": [w for e in each for w in e.warnings],
    }  # fmt: skip


def _rescored(experiment: AnyExperiment, rows: SeedRows, seed: int) -> SeedResult:
    """The seed's summary by the labels that there are now; where these are new, all rows are needed in the folder."""
    folder = rows.seed(seed)
    if SeedResult.read(folder / "result.json").given != given(experiment):
        for file in (arrays.EPOCHS, arrays.ASSIGNMENTS):
            rows.bring(f"{folder.name}/{Path(file).stem}")
    return rescored(experiment, folder)


def _ids(experiment: AnyExperiment) -> NDArray[Any]:
    return np.arange(experiment.data.n_rows) if experiment.data.ids is None else np.asarray(experiment.data.ids)


def _explain(experiment: AnyExperiment, rows: SeedRows, seed: int, sizes: list[int]) -> None:
    """Write which features set the clusters of the model's seed apart, where the data has features that can.

    Of rows in parts at most EXPLAINED, drawn by a key, are looked at.
    """
    module, result = datamodule_of(experiment.method), experiment.launch.result
    if rows.parts == 1:
        explained = module.explain(experiment, rows.read(seed, 0)[result])
    else:
        offsets, total = module.offsets(experiment.data), experiment.data.n_rows
        assert offsets is not None, "only then rows lie in parts"
        numbers = np.sort(generator(0, "explained").choice(total, min(total, EXPLAINED), replace=False))
        ends = np.searchsorted(numbers, offsets)
        pieces = [
            rows.read(seed, part)[result][numbers[a:b] - offsets[part]] for part, (a, b) in enumerate(pairwise(ends))
        ]
        explained = module.explain(experiment, np.concatenate(pieces), numbers)
        for each in explained or ():
            each["rows"] = sizes[each["cluster"]]
    if explained is not None:
        Explanation.model_validate({"seed": seed, "clusters": explained}).write(rows.folder / "explain.json")


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
