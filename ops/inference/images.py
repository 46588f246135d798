"""Clusters for images by a trained model, from any source that a training takes, or from a data frame.

Kind-specific part of `ops.inference.predict`. Axes: n images, S the side, F features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.data.images.decode import Encoded, decode_all
from ops.data.images.load import FROZEN, read_images
from ops.data.io.incremental import known_rows
from ops.data.io.validate import check_features
from ops.data.types.images import ImageSet
from ops.errors import DataError
from ops.inference.summary import refuse_graph_flags, summary
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel, in_order
from ops.storage.parquet import write_pieces

if TYPE_CHECKING:
    import pandas as pd


def predict_images(
    run: str,
    model: StoredModel,
    known: TrainedNodes | None,
    request: PredictSettings,
    method: AnyMethod,
    console: Console,
) -> dict[str, Any]:
    """Write id, cluster and confidence of every image of `request.data`; returns a summary.

    Raises SettingsError for flags of attributed graphs, DataError before anything is written.
    """
    refuse_graph_flags(request, method)
    began = time.monotonic()
    data = _read(model, request)
    rows = _matched(data, known)
    n, n_known = data.n_rows, int((rows >= 0).sum())
    console.say(f"{n:,} images: {n_known:,} known to {run}, {n - n_known:,} new")
    for note in data.notes:
        console.say(note)
    if n_known < n:
        console.say(f"new images: {method.new_rows}")
    clusters: list[NDArray[np.int64]] = []
    write_pieces(request.out, _pieces(data, model, method, request.batch_rows, clusters))
    return summary(run, model, request, rows, np.concatenate(clusters), known, "images", console, began)


def _read(model: StoredModel, request: PredictSettings) -> ImageSet:
    """The images at the size of the training's, or features as the frozen backbone's. Raises DataError."""
    pixels = model.about.get("pixels")
    frozen = str(model.settings.get("backbone", "")).startswith(FROZEN)
    backbone = f"{FROZEN}{request.data}" if frozen else ""
    size = None if frozen or pixels is None else int(pixels[0])
    data = read_images(request.data, size=size, backbone=backbone, skip_damaged=request.skip_damaged).data
    if frozen and data.n_features != model.about.get("n_features"):
        wanted = model.about.get("n_features")
        raise DataError(f"{request.data}: {data.n_features} features, the model was trained on {wanted}; give the same")
    return data


def _matched(data: ImageSet, known: TrainedNodes | None) -> NDArray[np.int64]:
    """Which image of the training each one is, -1 for none: by id, or all where the images are the same."""
    if known is not None and data.ids is not None and known.ids is not None:
        return known_rows(data.ids, data.n_rows, known.ids, known.n)
    same = known is not None and known.digest == data.digest()
    return np.arange(data.n_rows) if same else np.full(data.n_rows, -1)


def _pieces(
    data: ImageSet, model: StoredModel, method: AnyMethod, rows: int, clusters: list[NDArray[np.int64]]
) -> Iterator[dict[str, Any]]:
    """The columns of the output for `rows` images at a time; the clusters are kept in `clusters`."""
    ids = np.arange(data.n_rows) if data.ids is None else data.ids
    for first in range(0, data.n_rows, rows):
        at = slice(first, first + rows)
        piece = replace(
            data,
            pixels=None if data.pixels is None else data.pixels[at],
            features=None if data.features is None else data.features[at],
            ids=ids[at],
        )
        cluster, confidence = method.predict(model.tensors, model.settings, piece)
        clusters.append(cluster)
        yield {"id": ids[at], "cluster": cluster, "confidence": confidence}


def from_frame(frame: pd.DataFrame, model: StoredModel) -> ImageSet:
    """The images of a data frame: a column `image` of encoded images (bytes, or {bytes, path}), or features.

    Raises DataError for a frame without that column, for damaged images (naming the row), and for other features.
    """
    if str(model.settings.get("backbone", "")).startswith(FROZEN):
        try:
            x = frame.to_numpy(dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"predict: a feature is not a number ({error}); give numeric columns only") from None
        return ImageSet("frame", None, in_order(check_features(x, origin="predict"), None, model, "predict"))
    if "image" not in frame.columns:
        found = ", ".join(map(str, frame.columns[:5]))
        raise DataError(f"predict: needs a column image of encoded images (bytes, or {{bytes, path}}), found {found}")
    encoded: list[Encoded] = [each["bytes"] if isinstance(each, dict) else each for each in frame["image"]]
    pieces: list[NDArray[np.uint8]] = []
    size = int(model.about["pixels"][0])
    damaged = decode_all([encoded], size, pieces.append).damaged
    if damaged:
        row, why = min(damaged.items())
        raise DataError(f"predict: image of row {row}: {why} ({len(damaged)} damaged); leave it out")
    return ImageSet("frame", np.concatenate([np.empty((0, 3, size, size), np.uint8), *pieces]))
