"""A warm start: data that has grown is clustered again from a finished run's model, and its cluster ids are kept."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ops.api import D, Experiment, S, Warm
from ops.atomic_io import sha256
from ops.config.settings import MethodSettings
from ops.data.io.incremental import known_rows
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError
from ops.results.finished_run import open_finished


def with_warm_start(experiment: Experiment[S, D]) -> Experiment[S, D]:
    """The experiment with the finished run that `--warm-start` names. Raises as `load_warm` does."""
    method, run = experiment.method, str(experiment.launch.warm_start)
    method.require("graph", f"--warm-start {run}")
    graph = cast(AttributedGraph, experiment.data)  # of a method that requires graphs
    return replace(experiment, warm=load_warm(run, method.name, method.fixed, experiment.settings, graph))


def load_warm(run: str, method: str, shaped: Iterable[str], settings: MethodSettings, data: AttributedGraph) -> Warm:
    """The model of the finished `run` for a training on `data`, whose nodes are matched with the run's by their ids.

    `shaped` are the settings that must be the run's. Raises DataError for a folder that is no finished run, other
    columns, or data that shares no node with it; SettingsError for another method or other `shaped` settings.
    """
    model, before = open_finished(run)
    if model.method != method:
        raise SettingsError(f"--warm-start {run}: is a run of {model.method}; give one of {method}")
    for key in shaped:
        there, here = model.settings.get(key), getattr(settings, key)
        if there != here:
            flag = key.replace("_", "-")
            raise SettingsError(f"--{flag} {here}: {run} was trained with {there}; a warm start needs the same")
    names, wanted = data.feature_names, model.about.feature_names
    if data.n_features != (before_width := model.about.n_features) and before_width is not None:
        raise DataError(f"{data.name}: has {data.n_features} features, {run} was trained on {before_width}")
    if names is not None and wanted is not None and list(names) != wanted:
        at = next(i for i, (a, b) in enumerate(zip(names, wanted, strict=True)) if a != b)
        raise DataError(f"{data.name}: column {at} is {names[at]!r}, in {run} {wanted[at]!r}; columns must be the same")
    if before.ids is not None and data.ids is None:
        raise DataError(f"{data.name}: has no ids, but the nodes of {run} have; give the features their id column")
    rows = known_rows(data.ids, data.n_nodes, before.ids, before.n)
    if (rows < 0).all():
        raise DataError(f"{data.name}: none of its ids is known to {run} (its first: {_first(before.ids)})")
    assert before.clusters is not None
    digest = hashlib.sha256(sha256(model.folder / "model.safetensors").encode())
    for array in (rows, before.clusters):
        digest.update(np.ascontiguousarray(array).data)
    return Warm(run, model.tensors, rows, before.clusters, digest.hexdigest(), by_number=data.ids is None)


def sentence(warm: Warm) -> str:
    """What the plan says of it."""
    shared, gone = warm.n_known, len(warm.clusters) - warm.n_known
    by = "row number, as the data has no ids" if warm.by_number else "id"
    words = f"warm start from {warm.run}: {shared:,} known nodes (matched by {by}), {len(warm.rows) - shared:,} new"
    return words + (f", {gone:,} gone" if gone else "")


def _first(ids: NDArray[np.character] | NDArray[np.int64] | None) -> str:
    return "row numbers from 0" if ids is None else repr(ids[0].item())
