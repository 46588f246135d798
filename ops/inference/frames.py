"""Features out of the data frames that MLflow hands over.

Axes: n rows, F features.
"""

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.data.io.categories import Encoder
from ops.data.io.validate import check_features
from ops.errors import DataError
from ops.results.model_store import StoredModel, as_trained

if TYPE_CHECKING:
    import pandas as pd


def feature_frame(frame: "pd.DataFrame", model: StoredModel) -> NDArray[np.float32]:
    """The features [n, F] of a frame, with columns in the order of training, words as its categories.

    Warns of values that no category stands for. Raises DataError for anything else.
    """
    import pyarrow as pa

    frame = frame[[c for c in frame.columns if c not in model.encoding.ignored]]
    encoder = Encoder(model.encoding)
    try:
        parts = [encoder.block(pa.array(frame[c]), c) if c in encoder.categories
                 else frame[[c]].to_numpy(dtype=np.float32) for c in frame.columns]  # fmt: skip
    except (TypeError, ValueError) as error:
        raise DataError(f"predict: a feature is not a number ({error}); give numeric columns only") from None
    x = np.concatenate(parts, axis=1) if parts else np.empty((len(frame), 0), dtype=np.float32)
    for note in encoder.notes:
        warnings.warn(note, stacklevel=3)
    given = model.encoding.expanded([c for c in frame.columns if isinstance(c, str)])
    names = given if len(given) == x.shape[1] else None
    return as_trained(check_features(x, feature_names=names, origin="predict"), names, model, "predict")
