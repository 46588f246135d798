"""Models from MLflow's registry."""

import re
import warnings
from pathlib import Path

from ops.config.tracking_uri import check_uri, default_uri, sqlite_file
from ops.errors import DataError, ServiceError, SettingsError
from ops.masking import shown
from ops.results.finished_run import TrainedNodes, open_finished
from ops.results.model_store import StoredModel, read_model
from ops.tracking.store import gist, quiet_mlflow

UNKNOWN = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")  # MLflow's words for a model that it does not have


def open_any(address: str, tracking_uri: str | None) -> tuple[StoredModel, TrainedNodes | None]:
    """The model of a finished run, or models:/NAME@ALIAS, and the rows it was trained on where they can be told.

    Raises as `open_finished` and `download_model` do, and SettingsError for a malformed models:...
    """
    if not address.startswith("models:"):
        return open_finished(address)
    if not re.fullmatch(r"models:/[^/@]+(@[^/@]+|/[^/@]+)?", address):
        raise SettingsError(f"{address}: give models:/NAME@ALIAS or models:/NAME/VERSION")
    return read_model(download_model(address, tracking_uri)), None


def download_model(uri: str, tracking_uri: str | None) -> Path:
    """The `model/` folder behind models:/NAME@ALIAS, models:/NAME/VERSION or models:/ID, brought to this machine.

    Raises DataError where there is no such model or it is not one of ours, ServiceError where MLflow is away.
    """
    address = check_uri(tracking_uri or default_uri(Path("runs")))
    file = sqlite_file(address)
    if file is not None and not file.exists():  # MLflow would create an empty one
        raise DataError(f"{uri}: there is no MLflow database {file}; give --tracking-uri or MLFLOW_TRACKING_URI")
    quiet_mlflow()
    import mlflow

    try:
        with warnings.catch_warnings(action="ignore"):
            mlflow.set_tracking_uri(address)
            mlflow.set_registry_uri(address)
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except Exception as error:
        if isinstance(error, FileNotFoundError | ValueError) or getattr(error, "error_code", "") in UNKNOWN:
            reason = f"{shown(address)} has no such model ({gist(error)})"
            raise DataError(f"{uri}: {reason}; give models:/NAME@ALIAS") from None
        raise ServiceError(f"{uri}: MLflow at {shown(address)} cannot be reached ({gist(error)})") from None
    models = sorted(folder.glob("artifacts/*/model.safetensors"))
    if not models:
        raise DataError(f"{uri}: is no model of this program (no model.safetensors in it)")
    return models[0].parent
