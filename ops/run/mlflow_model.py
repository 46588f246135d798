"""The pyfunc around a run's `model/` folder: MLflow runs this file ("model from code"), so nothing is pickled.

The folder holds `model.safetensors` (tensors only) and `settings.json`, whose key "method" names the trainer that
knows how to predict. Loading a model needs Tessera installed, but neither Ray nor a data set.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from ops.errors import DataError

ARTIFACT = "model"  # the name under which MLflow keeps the copied folder


class ClusterModel(PythonModel):
    """Clusters new rows with the trained model of one run."""

    def load_context(self, context: Any) -> None:
        """Read tensors and settings and import `trainers.<method>`; DataError if the folder is not a run's model."""
        from safetensors.torch import load_file

        folder = Path(context.artifacts[ARTIFACT])
        stored: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        method = stored.get("method")
        self.settings = {k: v for k, v in stored.items() if k not in ("method", "dataset")}
        # The name becomes an import: only a plain word may pass, never a dotted path out of a file.
        if not isinstance(method, str) or not re.fullmatch(r"[a-z]+", method):
            raise DataError(f"{folder / 'settings.json'}: method is {method!r}; it must be one lower-case word")
        self.tensors = load_file(folder / "model.safetensors")
        self.module = importlib.import_module(f"trainers.{method}")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Features [n, F] -> rows [n] with `cluster` (int64) and `confidence` (float32), in the input's order.

        Raises DataError for values that are not finite numbers.
        """
        try:
            x = np.ascontiguousarray(model_input.to_numpy(), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"predict: a feature is not a number ({error}); give numeric columns only") from None
        if not np.isfinite(x).all():
            raise DataError("predict: the features hold NaN or infinite values; replace them first")
        cluster, confidence = self.module.predict(self.tensors, self.settings, x, None)
        return pd.DataFrame({"cluster": cluster, "confidence": confidence}, index=model_input.index)


set_model(ClusterModel())
