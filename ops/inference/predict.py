"""Clusters for rows by a trained model, known rows or new ones: what `workflows/predict.py` runs.

A feature table without edges comes and goes in pieces. Otherwise all rows and the known nodes that matter make one
graph, over which the method filters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.data.io.builder import Raw
from ops.data.io.ids import as_keys, check_ids
from ops.data.io.incremental import begins_with, grow, known_rows
from ops.data.io.remote import local_copy
from ops.data.io.stream import TableStream
from ops.data.io.validate import check_features
from ops.data.load import load, read_rows, table_file
from ops.errors import DataError, SettingsError, naming
from ops.inference.images import predict_images
from ops.inference.summary import summary
from ops.inference.users import predict_users
from ops.results.finished_run import TrainedNodes, open_run
from ops.results.model_store import StoredModel, in_order, read_model
from ops.results.schema import DataRecord
from ops.storage.object_store import is_s3
from ops.storage.parquet import check_file, write_pieces

Found = tuple[NDArray[np.int64], NDArray[np.float32]]  # clusters [n] and confidences [n]


@dataclass(frozen=True)
class Answer:
    """The rows' ids (None: row numbers), which of them are known (row or -1), and their clusters piece by piece."""

    ids: NDArray[Any] | None
    rows: NDArray[np.int64]
    linked: str  # what the rows were filtered over, in words
    pieces: Iterator[Found]


def run_prediction(
    run: str, request: PredictSettings, methods: Mapping[str, AnyMethod], console: Console
) -> dict[str, Any]:
    """Write id, cluster and confidence of every row of `request.data` to `request.out`; returns a summary.

    Raises SettingsError or DataError before anything is written; ServiceError where MLflow or a store is away.
    """
    check_file(request.out, run, filter(None, (request.data, request.known)))
    model, known = open_model(run, request)
    if model.method not in methods:
        raise DataError(f"{run}: is a model of {model.method!r}, which this program does not have")
    method = methods[model.method]
    if request.skip_damaged:
        method.require("images", "--skip-damaged")
    if method.kind == "users":
        return predict_users(run, model, known, request, method, console)
    if method.kind == "images":
        return predict_images(run, model, known, request, method, console)
    data = local_copy(request.data) if is_s3(request.data) else None
    with naming(data, request.data) if data else nullcontext():
        return _predict(
            run, model, known, request.model_copy(update={"data": str(data or request.data)}), method, console
        )


def _predict(
    run: str,
    model: StoredModel,
    known: TrainedNodes | None,
    request: PredictSettings,
    method: AnyMethod,
    console: Console,
) -> dict[str, Any]:
    began = time.monotonic()
    answer = _answer(model, known, request, method)
    n, n_known = len(answer.rows), int((answer.rows >= 0).sum())
    of = f"known to {known.owner}" if known else "known (which ones are is told by --known DATASET only)"
    console.say(f"{n:,} rows: {n_known:,} {of}, {n - n_known:,} new; filtered over {answer.linked}")
    if n_known < n:
        console.say(f"new rows are placed {method.new_rows}")
    clusters = _write(request.out, answer)
    found = summary(run, model, request, answer.rows, clusters, known, "rows", console, began)
    return found | {"filtered_over": answer.linked}


def open_model(run: str, request: PredictSettings) -> tuple[StoredModel, TrainedNodes | None]:
    """The model behind RUN or models:/NAME@ALIAS, and the nodes it was trained on where they can be told."""
    if run.startswith("models:"):
        if not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/[^/@]+)?", run):
            raise SettingsError(f"{run}: give models:/NAME@ALIAS or models:/NAME/VERSION")
        from ops.inference.registry import download_model

        model, known = read_model(download_model(run, request.tracking_uri)), None
    else:
        model, known = open_run(run)
    if request.known is None:
        return model, known
    if known is not None:
        before = known.source
        return model, known.with_source(request.known, request.knn or before.knn, before.knn_metric)
    graph, _ = load(request.known, knn=request.knn, knn_metric=request.knn_metric)
    source = DataRecord(spec=request.known, knn=request.knn, knn_metric=request.knn_metric)
    made = TrainedNodes(graph.n_nodes, graph.ids, None, model.about.get("data"), source, run)
    _ = made.graph  # its hash is checked now, before any work
    return model, made


def _answer(model: StoredModel, known: TrainedNodes | None, request: PredictSettings, method: AnyMethod) -> Answer:
    path = table_file(request.data)
    if path is not None:
        stream = TableStream(path, request.batch_rows)
        rows = _match(stream, known)
        if (rows < 0).all():
            pieces = (
                method.predict(model.tensors, model.settings, in_order(p.x, p.feature_names, model, str(path)), None)
                for p in stream.pieces()
            )
            return Answer(stream.ids, rows, "no edges", pieces)
    theirs = None if known is None else as_keys(np.arange(known.n) if known.ids is None else known.ids)
    raw = read_rows(request.data, theirs)
    x = in_order(check_features(raw.x, feature_names=raw.feature_names, origin=raw.origin), raw.feature_names, model,
                 raw.origin)  # fmt: skip
    ids = None if raw.ids is None else check_ids(raw.ids, len(x), origin=raw.origin)
    rows = _match_all(x, ids, known)
    beside = _beside(raw, rows, known)
    features, edges = grow(raw, x, rows, known.graph if known and beside else None)
    linked = [
        words for words, on in (("their own edges", raw.edges is not None), ("the training data's", beside)) if on
    ]
    found = method.predict(model.tensors, model.settings, features, edges)
    n = len(x)
    return Answer(ids, rows, " and ".join(linked) or "no edges", iter([(found[0][:n], found[1][:n])]))


def _beside(raw: Raw, rows: NDArray[np.int64], known: TrainedNodes | None) -> bool:
    """Whether the known nodes' features and edges are needed beside the new data's."""
    if known is None:
        return False
    if raw.edges is None:
        return bool((rows >= 0).any())
    if len(np.unique(rows[rows >= 0])) == known.n:  # the grown graph as a whole: its edges are the ones that count
        return False
    outside = bool(raw.edges.size) and raw.ids is not None and bool((raw.edges >= len(rows)).any())
    return outside or bool((rows >= 0).any())


def _match(stream: TableStream, known: TrainedNodes | None) -> NDArray[np.int64]:
    """Which known node each row of a table is, -1 for none; by id, or feature for feature where there are no ids."""
    new = np.full(stream.n_rows, -1, dtype=np.int64)
    if known is None:
        return new
    if stream.ids is not None:
        return known_rows(stream.ids, stream.n_rows, known.ids, known.n)
    if stream.n_rows < known.n:
        return new
    theirs = known.graph.x
    same = all(begins_with(p.x, theirs, p.first) for p in stream.pieces() if p.first < known.n)
    return np.where(np.arange(stream.n_rows) < known.n, np.arange(stream.n_rows), -1) if same else new


def _match_all(x: NDArray[np.float32], ids: NDArray[Any] | None, known: TrainedNodes | None) -> NDArray[np.int64]:
    n = len(x)
    if known is None:
        return np.full(n, -1, dtype=np.int64)
    if ids is not None:
        return known_rows(ids, n, known.ids, known.n)
    same = n >= known.n and begins_with(x, known.graph.x)
    return np.where(np.arange(n) < known.n, np.arange(n), -1) if same else np.full(n, -1, dtype=np.int64)


def _write(out: str, answer: Answer) -> NDArray[np.int64]:
    """id, cluster, confidence as parquet to a file or object, whole or not there; returns all clusters."""
    clusters: list[NDArray[np.int64]] = []
    write_pieces(out, _columns(answer, clusters))
    return np.concatenate(clusters)


def _columns(answer: Answer, clusters: list[NDArray[np.int64]]) -> Iterator[dict[str, Any]]:
    """The columns of every piece; its clusters are kept in `clusters`."""
    ids = np.arange(len(answer.rows)) if answer.ids is None else answer.ids
    first = 0
    for cluster, confidence in answer.pieces:
        yield {"id": ids[first : first + len(cluster)], "cluster": cluster, "confidence": confidence}
        clusters.append(cluster)
        first += len(cluster)
