"""The pyfunc around a run's `model/` folder: MLflow runs this file ("model from code"), so nothing is pickled.

The folder holds `model.safetensors` (tensors only) and `settings.json`, whose key "method" names the trainer that
knows how to predict. Loading a model needs Tessera installed, but neither Ray nor a data set.
"""

import importlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.inference.frames import feature_frame
from ops.results.feature_scale import statistics_of
from ops.results.model_store import read_model

ARTIFACT = "model"  # the name under which MLflow keeps the copied folder


class ClusterModel(PythonModel):
    """Clusters new rows with the trained model of one run."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read tensors and settings and look the method up; DataError if the folder is not a run's model."""
        model = read_model(Path(context.artifacts[ARTIFACT]))
        self.method: AnyMethod = importlib.import_module("trainers").METHODS[model.method]
        self.model = model.checked(self.method)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, object] | None = None
    ) -> pd.DataFrame:
        """Features [n, F] -> rows [n] with `cluster` (int64) and `confidence` (float32), in the input's order.

        Columns stand as in training, in any order where they have the names they had there. Raises DataError for
        other columns and for values that are not finite numbers.

        A model of users (hgt, twhin) takes one row an edge: `user`, `note` (an id that the model knows; missing for a
        user without edges), `relation` (follow_note; optional where the model has one only), `weight` (not used), and
        the user's features as further columns in training's order, of which a user's first row counts. It gives
        one row a user, in the order of their first rows: `user`, `cluster`, `confidence`, `vector` (list of floats).
        The columns are called as the node types were; `src` and `dst` where both ends are of one type.

        A model of images (hadis) takes a column `image` of encoded images (bytes, or {bytes, path}), of any size; one
        of a frozen backbone takes its features.
        """
        if self.method.kind == "users":
            return self._users(model_input)
        rows: tuple[object, ...]
        if self.method.kind == "images":
            from ops.inference.images import images_from_frame

            images = images_from_frame(model_input, self.model)
            x, rows = images.features, (images,)
        else:
            x = feature_frame(model_input, self.model)
            rows = (x, None)
        self._warn(x)
        cluster, confidence = self.method.predict(self.model.tensors, self.model.settings, *rows)
        return pd.DataFrame({"cluster": cluster, "confidence": confidence}, index=model_input.index)

    def _warn(self, x: NDArray[np.float32] | None) -> None:
        """Warn where the features are of another scale than the training's."""
        for remark in [] if x is None else self.model.remarks(statistics_of(x)):
            warnings.warn(remark, stacklevel=3)

    def _users(self, frame: pd.DataFrame) -> pd.DataFrame:
        from ops.data.user_requests_frame import users_from_frame
        from ops.inference.users import vocabulary

        words = vocabulary(self.model, self.method, "the model")
        new = users_from_frame(frame, words)
        self._warn(new.rows.x)
        placed = self.method.predict(self.model.tensors, self.model.settings, new.rows)
        name = "src" if words.rows == words.others else words.rows
        columns = {name: new.ids, "cluster": placed.cluster, "confidence": placed.confidence}
        return pd.DataFrame(columns | {"vector": placed.vector.tolist()})


set_model(ClusterModel())
