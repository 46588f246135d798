"""Images that a trained model places in clusters, from any source that a training takes, or from a data frame.

Axes: n images, S the side, F features.
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.data.images.decode import Encoded, as_pixels, decode_all
from ops.data.images.features import FROZEN
from ops.data.images.load import read_images
from ops.data.io.incremental import known_rows
from ops.data.types.images import ImageSet
from ops.errors import DataError
from ops.inference.frames import feature_frame
from ops.inference.placement import PlacedColumns, Placement, Prediction
from ops.results.feature_scale import ColumnStatistics, statistics_of
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel

if TYPE_CHECKING:
    import pandas as pd


def place_images(prediction: Prediction) -> Placement:
    """The images of `request.data` at the size of the training's. Raises DataError, SettingsError for flags."""
    prediction.refuse_graph_flags()
    data = _read(prediction)
    rows = _match(data, prediction.training)
    n, n_matched = data.n_rows, int((rows >= 0).sum())
    remarks = [f"{n:,} images: {n_matched:,} known to {prediction.run}, {n - n_matched:,} new", *data.notes]
    remarks += [f"new images: {prediction.method.new_rows}"] if n_matched < n else []
    ids = np.arange(n) if data.ids is None else data.ids
    features = ColumnStatistics() if data.features is None else statistics_of(data.features)
    return Placement(ids, rows, "images", remarks, _by_pieces(data, prediction), features=features)


def _read(prediction: Prediction) -> ImageSet:
    """The images at the size and depth of the training's, or features as the frozen backbone's. Raises DataError."""
    model, request = prediction.model, prediction.request
    if _is_frozen(model):
        backbone = f"{FROZEN}{request.data}"
        data = read_images(request.data, backbone=backbone, skip_damaged=request.skip_damaged).data
        if data.n_features != (wanted := model.about.n_features):
            raise DataError(
                f"{request.data}: {data.n_features} features, the model was trained on {wanted}; give the same"
            )
        return data
    size, depth = _shape(model)
    return read_images(request.data, size=size, depth=depth, skip_damaged=request.skip_damaged).data


def _is_frozen(model: StoredModel) -> bool:
    return str(model.settings.get("backbone", "")).startswith(FROZEN)


def _shape(model: StoredModel) -> tuple[int, int | None]:
    """The side of the training's images, and the bits a channel where they had more than 8."""
    pixels = model.about.pixels
    assert pixels is not None, "every model of images that is not of features has it"
    return pixels[0], pixels[2] if len(pixels) > 2 else None


def _match(data: ImageSet, training: TrainedNodes | None) -> NDArray[np.int64]:
    """Which image of the training each one is, -1 for none: by id, or all where the images are the same."""
    if training is not None and data.ids is not None and training.ids is not None:
        return known_rows(data.ids, data.n_rows, training.ids, training.n)
    same = training is not None and training.digest == data.digest()
    return np.arange(data.n_rows) if same else np.full(data.n_rows, -1)


def _by_pieces(data: ImageSet, prediction: Prediction) -> Iterator[PlacedColumns]:
    rows, model = prediction.request.batch_rows, prediction.model
    for first in range(0, data.n_rows, rows):
        at = slice(first, first + rows)
        piece = replace(
            data,
            pixels=None if data.pixels is None else data.pixels[at],
            features=None if data.features is None else data.features[at],
            ids=None if data.ids is None else data.ids[at],
        )
        cluster, confidence = prediction.method.predict(model.tensors, model.settings, piece)
        yield {"cluster": cluster, "confidence": confidence}


def images_from_frame(frame: "pd.DataFrame", model: StoredModel) -> ImageSet:
    """The images of a data frame: a column `image` of encoded images (bytes, or {bytes, path}), or features.

    Raises DataError for a frame without that column, for damaged images (naming the row), and for other features.
    """
    if _is_frozen(model):
        return ImageSet("frame", None, feature_frame(frame, model))
    if "image" not in frame.columns:
        columns = ", ".join(map(str, frame.columns[:5]))
        raise DataError(f"predict: needs a column image of encoded images (bytes, or {{bytes, path}}), has {columns}")
    encoded: list[Encoded] = [each["bytes"] if isinstance(each, dict) else each for each in frame["image"]]
    size, depth = _shape(model)
    tally = decode_all(lambda: iter([encoded]), size, buffer := io.BytesIO(), depth)
    if tally.damaged:
        row, why = min(tally.damaged.items())
        raise DataError(f"predict: image of row {row}: {why} ({len(tally.damaged)} damaged); leave it out")
    return ImageSet("frame", as_pixels(buffer, size))
