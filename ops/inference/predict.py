"""Clusters for rows by a trained model, rows of its training or new ones: what `workflows/predict.py` runs.

The kind of data decides how rows are read and placed (`graph_rows`, `users`, `images`); all else is one way.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.data.io.remote import local_copy
from ops.data.load import load, prepared
from ops.device import device_on
from ops.errors import DataError, naming
from ops.inference.graph_rows import place_rows
from ops.inference.images import place_images
from ops.inference.placement import Placement, Prediction
from ops.inference.registry import open_any
from ops.inference.users import place_users
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel
from ops.results.schema import DataRecord
from ops.storage.object_store import is_s3
from ops.storage.parquet import check_file, write_pieces

PLACE: dict[str, Callable[[Prediction], Placement]] = {
    "graph": place_rows, "users": place_users, "images": place_images,
}  # fmt: skip


def run_prediction(
    run: str, request: PredictSettings, methods: Mapping[str, AnyMethod], console: Console
) -> dict[str, object]:
    """Write id, cluster and confidence of every row of `request.data` to `request.out`; returns a summary.

    Raises SettingsError or DataError before anything is written; ServiceError where MLflow or a store is away.
    """
    check_file(request.out, run, filter(None, (request.data, request.known)))
    model, training = open_model(run, request)
    if model.method not in methods:
        raise DataError(f"{run}: is a model of {model.method!r}, which this program does not have")
    method = methods[model.method]
    model = model.checked(method).on(device_on(request.device))
    return predict(Prediction(run, model, training, request, method), console)


def predict(prediction: Prediction, console: Console) -> dict[str, object]:
    """`run_prediction` with a model that is read already."""
    began = time.monotonic()
    method, request = prediction.method, prediction.request
    if request.skip_damaged:
        method.require("images", "--skip-damaged")
    copy = local_copy(request.data) if method.kind == "graph" and is_s3(request.data) else None
    with naming(copy, request.data) if copy else nullcontext():
        placement = PLACE[method.kind](prediction.on(str(copy)) if copy else prediction)
        for sentence in placement.remarks:
            console.say(sentence)
        clusters: list[NDArray[np.int64]] = []
        write_pieces(request.out, _columns(placement, clusters))
    warnings = prediction.model.remarks(placement.features)
    for warning in warnings:
        console.warn(warning)
    sentences, more = placement.outcome()
    for sentence in sentences:
        console.say(sentence)
    return _summary(prediction, placement, np.concatenate(clusters), console) | more | {
        "warnings": warnings, "seconds": time.monotonic() - began
    }  # fmt: skip


def _columns(placement: Placement, clusters: list[NDArray[np.int64]]) -> Iterator[dict[str, object]]:
    """The columns of every piece, ids first; its clusters are kept in `clusters`."""
    first = 0
    for piece in placement.pieces:
        last = first + len(piece["cluster"])
        yield {"id": placement.ids[first:last], **piece}
        clusters.append(piece["cluster"])
        first = last


def _summary(
    prediction: Prediction, placement: Placement, clusters: NDArray[np.int64], console: Console
) -> dict[str, object]:
    """The counts, and the last sentence: how many rows of the training have changed their cluster."""
    n, matched, training = len(placement.ids), placement.training_rows >= 0, prediction.training
    n_matched, changed = int(matched.sum()), None
    if training is not None and training.clusters is not None and n_matched:
        changed = int((clusters[matched] != training.clusters[placement.training_rows[matched]]).sum())
        console.say(f"{changed:,} of the {n_matched:,} known {placement.noun} are in another cluster than in training")
    sizes = np.bincount(clusters, minlength=prediction.model.settings["n_clusters"]).tolist()
    return {
        "out": prediction.request.out, "model": prediction.run, "method": prediction.model.method, "rows": n,
        "known": n_matched, "new": n - n_matched, "changed": changed, "sizes": sizes,
    }  # fmt: skip


def open_model(run: str, request: PredictSettings) -> tuple[StoredModel, TrainedNodes | None]:
    """`open_any` with the training data that `--known` names, whose hash is checked of a model in MLflow."""
    model, training = open_any(run, request.tracking_uri)
    if request.known is None:
        return model, training
    if training is not None:
        moved = {"spec": request.known, "knn": request.knn or training.source.knn}
        return model, replace(training, source=training.source.model_copy(update=moved))
    scale, encoding = model.about.scaling.kind if model.about.scaling else "none", model.encoding
    source = DataRecord(spec=request.known, knn=request.knn, knn_metric=request.knn_metric, scale=scale,
                        one_hot=bool(encoding.categories), ignore=",".join(encoding.ignored),
                        make_features=encoding.made)  # fmt: skip
    graph, _ = load(request.known, **prepared(source))
    training = TrainedNodes(graph.n_nodes, graph.ids, None, model.about.data, source, run)
    _ = training.graph  # its hash is checked now, before any work
    return model, training
