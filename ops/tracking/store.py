"""MLflow: its connection, the parts of a folder's record, and how each is sent; every call may be made twice.

MLflow keeps with every run what tells the content of each part that it was sent: all is sent once, whoever was killed.
"""

import hashlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ops.atomic_io import digest, locked
from ops.config.tracking_uri import sqlite_file
from ops.errors import DataError, ServiceError
from ops.masking import mask, shown
from ops.storage.status import HISTORY, STATUS, Status, linked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request that is repeated blindly could create a run twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # instead of 120 s
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
GISTS = ("connection refused", "timed out", "name or service not known", "database is locked")  # of long messages
BY_LABELS = "eval/"
SETTINGS = "settings"  # the first part of a record
CLOCK, EACH = "sys/time", "sys/epoch_s"  # an epoch's time in seconds since 1970; a metric that every epoch has
FILES = ("report.html", "figures", "assignments.parquet", "assignments", "trials.json", "result.json", "model")
WRAPPER = Path(__file__).parents[1] / "inference" / "mlflow_pyfunc.py"
REQUIREMENTS = ["mlflow", "numpy", "pandas", "safetensors", "torch"]  # MLflow would spend a minute on looking for them
SENT, DIGEST = "tessera.sent", "tessera.digest"  # tags of a run and of a model


def gist(error: Exception) -> str:
    """What an error of MLflow, its database or its artifact store says, in 200 characters and without secrets."""
    text = " ".join(mask(str(error)).split())[:200] or type(error).__name__
    return next((each for each in GISTS if each in str(error).lower()), text)


def quiet_mlflow() -> None:
    """Set how MLflow behaves in this process: short answers, no telemetry, no progress bars, no notices."""
    os.environ.update(ENVIRONMENT)
    import mlflow  # noqa: F401

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="mlflow|sqlalchemy|alembic")


def connect(uri: str) -> tuple["MlflowClient", str]:
    """A client and the experiment's id; creates what is missing. Raises ServiceError, also where it is deleted."""
    quiet_mlflow()
    from mlflow import MlflowClient

    file, where = sqlite_file(uri), f"MLflow at {shown(uri)}"
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "tessera"
    try:
        if file is not None:  # migrations spoil a file for good when two run them, or one is killed in them
            with locked(file.with_name(file.name + ".lock")):
                if not file.exists() or not file.stat().st_size:
                    part = file.with_name(file.name + ".part")
                    part.unlink(missing_ok=True)
                    MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
                    part.replace(file)
        client = MlflowClient(uri, uri)
        if client.get_experiment_by_name(name) is None:
            with suppress(Exception):  # another process has created it in between
                client.create_experiment(name, (file.parent / "mlartifacts").as_uri() if file else None)
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None, "it has just been created"
    except Exception as error:
        raise ServiceError(f"{where} cannot be reached ({gist(error)})") from None
    if experiment.lifecycle_stage == "deleted":
        restore = f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        remedy = f"restore it with {restore}, or give another in MLFLOW_EXPERIMENT_NAME"
        raise ServiceError(f"{where}: experiment {name!r} is deleted: {remedy}")
    return client, str(experiment.experiment_id)


def sent(run: "Run | None") -> dict[str, str]:
    """The mark of each part of a folder's record that its MLflow run was sent; `run` is None where there is none."""
    return dict(json.loads(run.data.tags.get(SENT, "{}"))) if run else {}


def stats(path: Path) -> list[os.stat_result]:
    """The sizes and times of a file, or of each of a folder's files."""
    return [each.stat() for each in (path, *path.rglob("*")) if each.is_file()]


def parts(folder: Path, status: Status) -> dict[str, str]:
    """A mark of each part of a folder's record, in the order of sending; of files by their times, once FINISHED."""
    settings, state = (
        hashlib.sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()
        for each in ([status["params"], status["tags"]], status)
    )
    marks = {SETTINGS: settings}
    whole = status["state"] == "FINISHED" and not (folder / HISTORY).exists()  # a run or study: seeds send no files
    for path in (folder / name for name in (HISTORY, *(FILES if whole else ()))):
        files = stats(path)
        if files and (path.name != "model" or status.get("model")):
            total, newest = sum(each.st_size for each in files), max(each.st_mtime_ns for each in files)
            marks[path.name] = f"{len(files)} files, {total} bytes, {newest}"
    return marks | {STATUS: state}


def send_part(client: "MlflowClient", run: "Run", part: str, folder: Path, status: Status) -> None:
    """Send one part. Raises DataError for what is not the folder's; whatever MLflow raises passes."""
    quiet_mlflow()  # perhaps in a process of its own
    run_id, path = run.info.run_id, folder / part
    if linked(path, folder):
        raise DataError("it is or holds a link: only a run's own files are sent")
    if part == SETTINGS:
        _settings(client, run_id, status)
    elif part == STATUS:
        _status(client, run_id, status)
    elif part == HISTORY:
        _epochs(client, run_id, path, status["started"])
    elif part == "model":
        _model(client, run, path, status["model"])
    elif path.is_dir():
        client.log_artifacts(run_id, str(path), part)
    else:
        client.log_artifact(run_id, str(path))


def _settings(client: "MlflowClient", run_id: str, status: Status) -> None:
    """Log parameters (MLflow cuts long ones), tags and the data set as the run's input."""
    from mlflow.entities import Dataset, DatasetInput, Param, RunTag
    from mlflow.exceptions import MlflowException

    params, tags = status["params"], [RunTag(key, value) for key, value in status["tags"].items()]
    client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()], tags=tags)
    if {"data", "dataset"} <= params.keys():
        inputs = [DatasetInput(Dataset(params["dataset"][:500], params["data"][:36], "local", params["dataset"]), [])]
        try:
            client.log_inputs(run_id, datasets=inputs)
        except MlflowException as error:  # another run has written the same data set at the same moment
            if "unique" not in str(error).lower():
                raise
            client.log_inputs(run_id, datasets=inputs)


def _status(client: "MlflowClient", run_id: str, status: Status) -> None:
    """Log the final metrics and the state."""
    if status["ended"] is None:
        client.update_run(run_id, status["state"])
        return
    latest = client.get_run(run_id).data.metrics  # a further seed changes the means: only what is new or changed
    figures = {k: v for k, v in status.get("metrics", {}).items() if v is not None and latest.get(k) != v}
    client.log_batch(run_id, metrics=_metrics(figures, status.get("step", 0), status["ended"]))
    client.set_terminated(run_id, status["state"], status["ended"])


def _epochs(client: "MlflowClient", run_id: str, history: Path, started: int) -> None:
    """Log the epochs behind the last one that MLflow has; those that a resumed training repeats keep their values.

    They go in order and each ends with EACH, so that this metric tells which epochs MLflow has whole.
    """
    last = max((metric.step for metric in client.get_metric_history(run_id, EACH)), default=-2)
    lines = history.read_bytes().rpartition(b"\n")[0].splitlines()  # without one that is still being written
    every = [json.loads(line) for line in lines]
    records = [record for record in every if record["epoch"] > last]
    scored = [each for each in every if each["epoch"] <= last and any(key.startswith(BY_LABELS) for key in each)]
    if scored and any(each["epoch"] == last for each in every):  # the labels may have been corrected since
        scores = [{k: v for k, v in r.items() if k == "epoch" or k.startswith(BY_LABELS)} for r in scored]
        latest = client.get_run(run_id).data.metrics
        if any(latest.get(key) != value is not None for key, value in scores[-1].items() if key != "epoch"):
            records = [{**each, CLOCK: time.time()} for each in scores] + records
    metrics: list[Metric] = []
    for record in records:
        epoch, seconds = int(record.pop("epoch") or 0), record.pop(CLOCK, None) or started / 1000
        metrics += _metrics(dict(sorted(record.items(), key=lambda item: item[0] == EACH)), epoch, int(1000 * seconds))
    client.log_batch(run_id, metrics=metrics)


def _metrics(values: dict[str, float | None], step: int, at: int) -> list["Metric"]:
    """MLflow's metrics, with the characters that it takes in names; JSON has null for what is not finite."""
    from mlflow.entities import Metric

    return [
        Metric(re.sub(r"[^\w\-./: ]", "_", key), float("nan" if value is None else value), at, step)
        for key, value in values.items()
    ]


def _model(client: "MlflowClient", run: "Run", folder: Path, name: str) -> None:
    """Log the folder as a pyfunc from code, register it, move the aliases; each step looks first at what there is."""
    run_id, places, mark = run.info.run_id, [run.info.experiment_id], digest(folder)
    logged = client.search_logged_models(places, f"source_run_id = '{run_id}' AND tags.`{DIGEST}` = '{mark}'")
    model = logged[0] if logged else client.create_logged_model(places[0], name, run_id, {DIGEST: mark})
    if str(model.status) != "READY":
        _upload(client, run_id, folder, model)
    with suppress(Exception):  # there is one
        client.create_registered_model(name)
    source = model.artifact_location
    sources = (source, f"models:/{model.model_id}")  # the second of versions that were made before
    versions = [each for each in client.search_model_versions(f"name = '{name}'") if each.source in sources]
    version = versions[0] if versions else client.create_model_version(name, source, run_id, model_id=model.model_id)
    for alias in ("newest", "last"):
        client.set_registered_model_alias(name, alias, version.version)


def _upload(client: "MlflowClient", run_id: str, folder: Path, model: "LoggedModel") -> None:
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    # of the output only: MLflow refuses whole numbers where a signature of the input says decimal ones
    signature = ModelSignature(outputs=Schema([ColSpec("long", "cluster"), ColSpec("float", "confidence")]))
    described = Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id)
    files = {"python_model": str(WRAPPER), "artifacts": {"model": str(folder)}, "pip_requirements": REQUIREMENTS}
    with tempfile.TemporaryDirectory() as scratch:
        mlflow.pyfunc.save_model(f"{scratch}/m", mlflow_model=described, signature=signature, **files)
        client.log_model_artifacts(model.model_id, f"{scratch}/m")
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [each.model_id for each in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    client.finalize_logged_model(model.model_id, "READY")
