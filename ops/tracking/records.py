"""The parts of a folder's record and how each is sent to MLflow; every call may be made twice without harm.

MLflow keeps with every run the digests of the parts that it was sent: all is sent once, whoever was killed in between.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ops.atomic_io import digest
from ops.storage.status import HISTORY, Status, linked
from ops.tracking.store import Refused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Run

EpochMetrics = dict[str, float | None]  # an epoch's metrics; JSON has null for what is not finite

LIMIT = 6000  # characters of a parameter; a tag may have 8,000
PARAMS, METRICS = 100, 1000  # what MLflow takes in one call
BY_LABELS = "eval/"
CLOCK, EACH = "sys/time", "sys/epoch_s"  # an epoch's time in seconds since 1970; a metric that every epoch has
FILES = ("report.html", "figures", "assignments.parquet", "assignments", "trials.json", "result.json")
UPLOADS = (*FILES, "model")
LARGE = 8 * 2**20  # bytes; a file or folder of more is neither read nor sent by the process of the run
WRAPPER, ALIASES = Path(__file__).parents[1] / "inference" / "mlflow_pyfunc.py", ("newest", "last")
REQUIREMENTS = ["mlflow", "numpy", "pandas", "safetensors", "torch"]  # MLflow would spend a minute on looking for them
SENT, DIGEST = "tessera.sent", "tessera.digest"  # tags of a run and of a model


def sent(run: "Run | None") -> dict[str, str]:
    """The digest of each part of a folder's record that its MLflow run was sent; `run` is None where there is none."""
    return dict(json.loads(run.data.tags.get(SENT, "{}"))) if run else {}


def parts(folder: Path, status: Status) -> dict[str, str]:
    """The digest of each part of a folder's record, in the order in which they are sent; files once it has FINISHED."""
    values = {"settings": _digest(status["params"], status["tags"])}
    whole = status["state"] == "FINISHED" and not (folder / HISTORY).exists()  # a run or study: seeds send no files
    for path in (folder / name for name in (HISTORY, *(UPLOADS if whole else ()))):
        if (path.is_file() or path.is_dir()) and (path.name != "model" or status.get("model")):
            values[path.name] = "link" if linked(path, folder) else _mark(path)
    if status["ended"] and status.get("metrics"):
        values["summary"] = _digest(status["metrics"])
    return values | {"state": _digest(status["state"], status["ended"])}


def large(path: Path) -> bool:
    """Whether a file, or all files of a folder together, are LARGE."""
    return sum(size for _, size, _ in _stats(path)) > LARGE


def _stats(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of a file, or of the files of a folder."""
    files = sorted(each for each in (path, *path.rglob("*")) if each.is_file())
    stats = ((each.relative_to(path).as_posix(), each.stat()) for each in files)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _mark(path: Path) -> str:
    """What tells the content of a file or folder: its digest, or names, sizes and times where it is large."""
    return _digest(_stats(path)) if large(path) else digest(path)


def send_part(client: "MlflowClient", run: "Run", part: str, folder: Path, status: Status) -> None:
    """Send one part. Raises Refused for what is not the folder's; whatever MLflow raises passes."""
    run_id, path = run.info.run_id, folder / part
    if path.exists() and linked(path, folder):
        raise Refused(f"{path} is or holds a link: only a run's own files are sent")
    if part == "settings":
        _settings(client, run_id, status["params"], status["tags"])
    elif part == HISTORY:
        _epochs(client, run_id, path, status["started"])
    elif part == "summary":  # what is new or changed (a further seed changes the means): MLflow shows the latest
        latest = client.get_run(run_id).data.metrics
        figures = {k: v for k, v in status["metrics"].items() if v is not None and latest.get(k) != v}
        client.log_batch(run_id, metrics=_metrics(figures, status["step"], status["ended"]))
    elif part == "state" and status["ended"] is None:
        client.update_run(run_id, status["state"])
    elif part == "state":
        client.set_terminated(run_id, status["state"], status["ended"])
    elif part == "model":
        _model(client, run, path, status["model"])
    elif path.is_dir():
        client.log_artifacts(run_id, str(path), part)
    else:
        client.log_artifact(run_id, str(path))


def _settings(client: "MlflowClient", run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Log parameters, tags and, where the parameters name it, the data set as the run's input."""
    from mlflow.entities import Dataset, DatasetInput, Param, RunTag
    from mlflow.exceptions import MlflowException

    rows = [Param(key, shortened(value)) for key, value in params.items()]
    for first in range(0, len(rows), PARAMS):
        client.log_batch(run, params=rows[first : first + PARAMS])
    client.log_batch(run, tags=[RunTag(key, shortened(value)) for key, value in tags.items()])
    if {"data", "dataset"} <= params.keys():
        dataset = Dataset(params["dataset"][:500], params["data"][:36], "local", params["dataset"])
        inputs = [DatasetInput(dataset, [])]
        try:
            client.log_inputs(run, datasets=inputs)
        except MlflowException as error:  # another run has written the same data set at the same moment
            if "unique" not in str(error).lower():
                raise
            client.log_inputs(run, datasets=inputs)


def _epochs(client: "MlflowClient", run_id: str, history: Path, started: int) -> None:
    """Log the epochs behind the last one that MLflow has; those that a resumed training repeats keep their values.

    They go whole and in order, so that one metric tells which are there.
    """
    last = max((metric.step for metric in client.get_metric_history(run_id, EACH)), default=-2)
    lines = history.read_bytes().rpartition(b"\n")[0].splitlines()  # without one that is still being written
    every = [json.loads(line) for line in lines]
    there = [record for record in every if record["epoch"] <= last]
    # a training that repeats epochs is not yet where MLflow's latest values are from
    records = _corrected(client, run_id, there) if there and there[-1]["epoch"] == last else []
    records += [record for record in every if record["epoch"] > last]
    at_once = METRICS // max((len(record) for record in records), default=1)
    for first in range(0, len(records), at_once):
        metrics = []
        for record in records[first : first + at_once]:
            epoch, at = int(record.pop("epoch") or 0), int(1000 * (record.pop(CLOCK, None) or started / 1000))
            metrics += _metrics(record, epoch, at)
        client.log_batch(run_id, metrics=metrics)


def _corrected(client: "MlflowClient", run_id: str, records: list[EpochMetrics]) -> list[EpochMetrics]:
    """The scores by labels of `records`, which MLflow has, if the labels have been corrected since: newer values."""
    scores = [{k: v for k, v in record.items() if k.startswith(BY_LABELS)} for record in records]
    newest: EpochMetrics = next((each for each in reversed(scores) if each), {})
    latest = client.get_run(run_id).data.metrics if newest else {}
    if all(value is None or latest.get(key) == value for key, value in newest.items()):
        return []
    return [{"epoch": r["epoch"], CLOCK: time.time(), **each} for r, each in zip(records, scores, strict=True) if each]


def _metrics(values: EpochMetrics, step: int, at: int) -> list["Metric"]:
    """MLflow's metrics, with the characters that it takes in names."""
    from mlflow.entities import Metric

    numbers = {
        re.sub(r"[^\w\-./: ]", "_", key): float("nan" if value is None else value) for key, value in values.items()
    }
    return [Metric(name, number, at, step) for name, number in numbers.items()]


def _model(client: "MlflowClient", run: "Run", folder: Path, name: str) -> None:
    """Log the folder as a pyfunc from code, register it, move the aliases; each step looks first at what there is."""
    from mlflow.exceptions import MlflowException

    run_id, experiment, mark = run.info.run_id, run.info.experiment_id, {DIGEST: digest(folder)}
    query = f"source_run_id = '{run_id}' AND tags.`{DIGEST}` = '{mark[DIGEST]}'"
    logged = client.search_logged_models([experiment], query)
    model = logged[0] if logged else client.create_logged_model(experiment, name, run_id, mark)
    if str(model.status) != "READY":
        _upload(client, run_id, folder, model)
    with suppress(MlflowException):  # there is one
        client.create_registered_model(name)
    source = f"models:/{model.model_id}"
    versions = [each for each in client.search_model_versions(f"name = '{name}'") if each.source == source]
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = client.tracking_uri  # where a registry in a database looks for the run
    try:
        version = (
            versions[0]
            if versions
            else client.create_model_version(name, source, run_id, await_creation_for=30, model_id=model.model_id)
        )
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        os.environ |= {"MLFLOW_TRACKING_URI": before} if before else {}
    for alias in ALIASES:
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


def shortened(value: str) -> str:
    """The value within MLflow's limit, saying so where it was cut."""
    note = f" ... [cut, {len(value)} characters]"
    return value if len(value) <= LIMIT else value[: LIMIT - len(note)] + note


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
