"""The connection to MLflow, and its errors sorted into two kinds."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ops.atomic_io import locked
from ops.config.tracking_uri import sqlite_file
from ops.masking import mask, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request that is repeated blindly could create a run twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # instead of 120 s
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
GISTS = ("connection refused", "timed out", "name or service not known", "database is locked")  # of long messages
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


class Away(Exception):
    """MLflow takes nothing now; everything is sent later."""


class Refused(Exception):
    """MLflow does not take this record, others it does; this one is sent again later."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what MLflow (called `where`), its database or its artifact store raises into Away or Refused."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (Away, Refused):
        raise
    except Exception as error:
        text = " ".join(mask(str(error)).split())
        reason = next((gist for gist in GISTS if gist in text.lower()), text[:200] or type(error).__name__)
        damaged = isinstance(error, FileNotFoundError | KeyError | TypeError | ValueError)  # a record of ours
        if damaged or (isinstance(error, MlflowException) and error.error_code in REFUSALS):
            raise Refused(reason) from None
        raise Away(f"{where} cannot be reached ({reason})") from None


def quiet_mlflow() -> None:
    """Set how MLflow behaves in this process: short answers, no telemetry, no progress bars, no notices."""
    os.environ.update(ENVIRONMENT)
    import mlflow  # noqa: F401

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow|sqlalchemy|alembic")


def connect(uri: str, experiment: str) -> tuple["MlflowClient", str]:
    """A client and the experiment's id; creates what is missing. Raises Away, also where the experiment is deleted."""
    quiet_mlflow()
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    file, where = sqlite_file(uri), f"MLflow at {shown(uri)}"
    with translated(where):
        if file is not None:  # migrations spoil a file for good when two run them, or one is killed in them
            with locked(file.with_name(file.name + ".lock")):
                if not file.exists() or not file.stat().st_size:
                    part = file.with_name(file.name + ".part")
                    part.unlink(missing_ok=True)
                    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
                    part.replace(file)
        client = MlflowClient(uri, uri)
        if client.get_experiment_by_name(experiment) is None:
            with suppress(MlflowException):  # another process has created it in between
                client.create_experiment(experiment, (file.parent / "mlartifacts").as_uri() if file else None)
        existing = client.get_experiment_by_name(experiment)
        assert existing is not None, "it has just been created"
        if existing.lifecycle_stage == "deleted":
            restore = f"`mlflow experiments restore --experiment-id {existing.experiment_id}`"
            other = "or give another in MLFLOW_EXPERIMENT_NAME"
            raise Away(f"{where}: experiment {experiment!r} is deleted: restore it with {restore}, {other}")
    return client, str(existing.experiment_id)
