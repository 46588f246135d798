"""Features out of the data frames that MLflow hands over.

Axes: n rows, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.data.io.validate import check_features
from ops.errors import DataError
from ops.results.model_store import StoredModel, as_trained

if TYPE_CHECKING:
    import pandas as pd


def feature_frame(frame: pd.DataFrame, model: StoredModel) -> NDArray[np.float32]:
    """The features [n, F] of a frame, with columns in the order of training. Raises DataError for anything else."""
    try:
        x = frame.to_numpy(dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"predict: a feature is not a number ({error}); give numeric columns only") from None
    names = [c for c in frame.columns if isinstance(c, str)]
    x = check_features(x, feature_names=names if len(names) == x.shape[1] else None, origin="predict")
    return as_trained(x, names if len(names) == x.shape[1] else None, model, "predict")
