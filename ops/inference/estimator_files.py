"""An estimator's files: what it saves is a run's folder, and any run's folder or model in MLflow loads as one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import now, save_arrays
from ops.config.settings import flat
from ops.data.types.graph import AttributedGraph, Data
from ops.data.types.images import ImageSet
from ops.errors import SettingsError
from ops.graph.sampling.dataset import PartitionedGraph
from ops.results import arrays
from ops.results.feature_scale import looked_at
from ops.results.figure_rows import figure_arrays
from ops.results.model_store import describe, save_model
from ops.results.schema import DataRecord, RunResult, Scores, SeedResult, SettingRecord
from ops.results.stored_run import Explanation


def save_estimator(estimator: Any, folder: Path) -> Path:
    """A run's folder of a fitted estimator. Raises SettingsError where the folder holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"save: {folder} is there already; give a new folder")
    data, settings, seed = estimator._data, estimator._fit_settings, 0
    x = _features(data)
    statistics, _ = looked_at(x.__getitem__, len(x))
    seed_folder = folder / f"seed-{seed}"
    seed_folder.mkdir(parents=True)
    clusters, ids = estimator.labels_, np.arange(data.n_rows) if data.ids is None else data.ids
    columns = {"seed": np.zeros(len(ids), dtype=np.int64), "id": ids, "cluster": clusters}
    arrays.write_table(folder / "assignments.parquet", columns | {"confidence": estimator.confidence_})
    save_model(folder / "model", estimator.model_, flat(settings) | describe(estimator.method.name, data, statistics))
    sample = figure_arrays(x, estimator.embedding_, clusters, None, getattr(data, "pixels", None))
    save_arrays(seed_folder / arrays.SAMPLE, **sample)
    (seed_folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in estimator.history_))
    SeedResult(seed=seed, epochs=len(estimator.history_), sizes=np.bincount(clusters).tolist()).write(
        seed_folder / "result.json"
    )
    if isinstance(data, AttributedGraph):
        from ops.evaluation.explain import explain

        explained = explain(data.x, clusters, settings.k, data.feature_names, scaling=data.scaling)
        Explanation(seed=seed, clusters=explained).write(folder / "explain.json")
    RunResult(
        method=estimator.method.name,
        dataset=DataRecord(name=data.name, hash=data.digest(), rows=data.n_rows, notes=list(data.notes)),
        settings={k: SettingRecord(value=v, source="estimator") for k, v in flat(settings).items()},
        seeds=[seed], last=Scores(), model_seed=seed, finished=now(), command=repr(estimator),
    ).write(folder / "result.json")  # fmt: skip
    return folder


def _features(data: Data) -> NDArray[np.number]:
    if isinstance(data, ImageSet):
        x = data.pixels if data.features is None else data.features
        return np.asarray(x).reshape(data.n_rows, -1)
    if isinstance(data, AttributedGraph):
        return data.x
    if isinstance(data, PartitionedGraph) and data.n_features:
        return data.connect().features(data.rows, np.arange(data.n_rows))
    return np.zeros((data.n_rows, 1))


def report(estimator: Any, path: Path) -> Path:
    """The report of a fitted estimator as one HTML file."""
    from ops.reporting.html import write_report

    with TemporaryDirectory(prefix="tessera-") as temporary:
        page = write_report(save_estimator(estimator, Path(temporary) / "run"))
        shutil.copyfile(page, path)
    return path


def load_estimator(address: str, class_of: Callable[[str], type[Any]], tracking_uri: str | None = None) -> Any:
    """The fitted estimator of a run's folder (also s3://), a search, or models:/NAME@ALIAS.

    It has its model, so that it predicts; `labels_`, `confidence_` and `ids_` where the run's clusters are at hand.
    Raises DataError for what is none of these, SettingsError for a method without an estimator.
    """
    from ops.inference.registry import open_any

    model, nodes = open_any(address, tracking_uri)
    kind = class_of(model.method)
    estimator = kind(**{key: value for key, value in model.settings.items() if value is not None})
    estimator.model_, estimator._fit_settings = model.tensors, estimator.settings
    estimator._scaling, estimator._columns = model.about.scaler, model.about.columns
    estimator.n_clusters_, estimator.n_features_in_ = estimator.settings.k, model.about.n_features
    if nodes is not None:
        estimator.labels_, estimator.ids_ = nodes.clusters, nodes.ids
    return estimator
