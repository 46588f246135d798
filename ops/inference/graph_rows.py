"""Rows of an attributed graph that a trained model places in clusters.

A feature table without edges comes and goes in pieces. Otherwise all rows and the nodes of the training that matter
make one graph, over which the method filters. Axes: n rows, F features.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.data.io.builder import Raw
from ops.data.io.categories import IN_NONE
from ops.data.io.ids import as_keys, check_ids
from ops.data.io.incremental import begins_with, grow, known_rows
from ops.data.io.tables import TableStream
from ops.data.io.validate import check_edges, check_features
from ops.data.load import read_rows, table_file
from ops.data.types.hetero import Ids
from ops.errors import DataError
from ops.inference.placement import PlacedColumns, Placement, Prediction
from ops.results.feature_scale import ColumnStatistics, statistics_of
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import as_trained


def place_rows(prediction: Prediction) -> Placement:
    """The rows of a feature table, or of a graph of new rows, of the training's, or of both. Raises DataError."""
    path = table_file(prediction.request.data)
    if path is not None:
        stream = TableStream(path, prediction.request.batch_rows, prediction.model.encoding)
        rows = _match_stream(stream, prediction)
        if (rows < 0).all():
            features = ColumnStatistics()
            pieces = _by_pieces(prediction, stream, features)
            return _placement(prediction, stream.ids, rows, "no edges", pieces, features, stream.notes)
    return _place_graph(prediction)


def _place_graph(prediction: Prediction) -> Placement:
    model, training = prediction.model, prediction.training
    ids = None if training is None else as_keys(np.arange(training.n) if training.ids is None else training.ids)
    raw = read_rows(prediction.request.data, ids, model.encoding)
    x = check_features(raw.x, feature_names=raw.feature_names, origin=raw.origin)
    x = as_trained(x, raw.feature_names, model, raw.origin)
    if model.encoding.made == "spectral" and (training is None or not np.array_equal(x, training.graph.x)):
        raise DataError(
            f"{raw.origin}: --make-features spectral are features of one graph, and this is not the training's; train "
            "anew, or take degree"
        )
    ids = None if raw.ids is None else check_ids(raw.ids, len(x), origin=raw.origin)
    if ids is not None and raw.edges is not None and not Path(prediction.request.data).is_dir():
        check_edges(raw.edges, len(x), origin=raw.origin)  # a file's are row numbers, a folder's are read by id
    rows = _match_all(x, ids, training)
    beside = training if training is not None and _needs_training(raw, rows, training) else None
    features, edges, weight = grow(raw, x, rows, beside.graph if beside else None)
    origins = {"their own edges": raw.edges is not None, "the training data's": beside is not None}
    linked = " and ".join(words for words, used in origins.items() if used) or "no edges"
    cluster, confidence = prediction.method.predict(model.tensors, model.settings, features, edges, weight)
    piece: PlacedColumns = {"cluster": cluster[: len(x)], "confidence": confidence[: len(x)]}
    return _placement(prediction, ids, rows, linked, iter([piece]), statistics_of(x), raw.notes)


def _placement(
    prediction: Prediction, ids: NDArray[np.generic] | None, rows: NDArray[np.int64], linked: str,
    pieces: Iterator[PlacedColumns], features: ColumnStatistics, notes: Sequence[str],
) -> Placement:  # fmt: skip
    """`linked` says in words over which edges the rows are filtered, `notes` what was met in the data."""
    n, n_matched, training = len(rows), int((rows >= 0).sum()), prediction.training
    of = f"known to {training.owner}" if training else "known (which ones are is told by --known DATASET only)"
    remarks = [f"{n:,} rows: {n_matched:,} {of}, {n - n_matched:,} new; filtered over {linked}"]
    remarks += [f"new rows are placed {prediction.method.new_rows}"] if n_matched < n else []
    remarks += [note for note in notes if IN_NONE in note]
    ids = np.arange(n) if ids is None else ids
    return Placement(ids, rows, "rows", remarks, pieces, lambda: ([], {"filtered_over": linked}), features)


def _by_pieces(prediction: Prediction, stream: TableStream, features: ColumnStatistics) -> Iterator[PlacedColumns]:
    model = prediction.model
    for piece in stream.pieces():
        x = as_trained(piece.x, piece.feature_names, model, prediction.request.data)
        features.add(x)
        cluster, confidence = prediction.method.predict(model.tensors, model.settings, x, None)
        yield {"cluster": cluster, "confidence": confidence}


def _needs_training(raw: Raw, rows: NDArray[np.int64], training: TrainedNodes) -> bool:
    """Whether the features and edges of the training are needed beside the new data's."""
    if raw.edges is None:
        return bool((rows >= 0).any())
    if len(np.unique(rows[rows >= 0])) == training.n:  # the grown graph as a whole: its edges are the ones that count
        return False
    outside = bool(raw.edges.size) and raw.ids is not None and bool((raw.edges >= len(rows)).any())
    return outside or bool((rows >= 0).any())


def _match_stream(stream: TableStream, prediction: Prediction) -> NDArray[np.int64]:
    """For each row of a table its row in training, by id, or by number where it repeats the training's features."""
    training = prediction.training
    if training is None or (stream.ids is None and stream.n_rows < training.n):
        return np.full(stream.n_rows, -1, dtype=np.int64)
    if stream.ids is not None:
        return known_rows(stream.ids, stream.n_rows, training.ids, training.n)
    x, prepared = training.graph.x, partial(as_trained, model=prediction.model, origin=prediction.request.data)
    pieces = (p for p in stream.pieces() if p.first < training.n)
    same = all(begins_with(prepared(p.x, p.feature_names), x, p.first) for p in pieces)
    return _first_rows(stream.n_rows, training.n if same else 0)


def _match_all(x: NDArray[np.float32], ids: Ids | None, training: TrainedNodes | None) -> NDArray[np.int64]:
    """`_match_stream` for features [n, F] in memory."""
    if training is not None and ids is not None:
        return known_rows(ids, len(x), training.ids, training.n)
    same = training is not None and len(x) >= training.n and begins_with(x, training.graph.x)
    return _first_rows(len(x), training.n if training and same else 0)


def _first_rows(n: int, n_training: int) -> NDArray[np.int64]:
    """The row numbers of the first `n_training` of n rows, -1 for the others."""
    return np.where(np.arange(n) < n_training, np.arange(n), -1)
