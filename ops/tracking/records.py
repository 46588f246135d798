"""What a folder's record consists of and how each part is sent; every call may be made twice without harm."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ops.atomic_io import read_json
from ops.storage.status import HISTORY, STATUS
from ops.tracking.store import Refused

LIMIT = 6000  # characters of a parameter; a tag may have 8,000
PARAMS, METRICS = 100, 1000  # what MLflow takes in one call
CLOCK, EACH = "sys/time", "sys/epoch_s"  # an epoch's time in seconds since 1970; a metric that every epoch has
FILES = ("report.html", "figures", "assignments.parquet", "trials.json", "result.json")
UPLOADS = (*FILES, "model")
WRAPPER, ALIAS = Path(__file__).parents[1] / "inference" / "mlflow_pyfunc.py", "last"
REQUIREMENTS = ["mlflow", "numpy", "pandas", "safetensors", "torch"]
ROOT, ID, KEY, SENT = "tessera.root", "tessera.id", "tessera.run", "tessera.sent"  # tags of a run
FIELDS = {"id": str, "name": str, "params": dict, "tags": dict, "state": str, "started": int, "ended": int | None}
Status = dict[str, Any]


@dataclass
class Remote:
    """A run as MLflow has it: `sent` has the digest of each part, `step` the last epoch (None: not asked yet)."""

    run_id: str = ""
    experiment_id: str = ""
    deleted: bool = False
    sent: dict[str, str] = field(default_factory=dict)
    step: int | None = None


def runs_of(client: Any, experiment_id: str, root_id: str) -> dict[str, Remote]:
    """The runs of a study or run, deleted ones too, by the id of their folder's status."""
    from mlflow.entities import ViewType

    remotes: dict[str, Remote] = {}
    token = None
    while token != "":
        page = client.search_runs([experiment_id], f"tags.`{ROOT}` = '{root_id}'", ViewType.ALL, 1000, page_token=token)
        for run in page:
            tags, deleted = run.data.tags, run.info.lifecycle_stage == "deleted"
            remotes[tags[ID]] = Remote(run.info.run_id, experiment_id, deleted, json.loads(tags.get(SENT, "{}")))
        token = page.token or ""
    return remotes


def folders(root: Path) -> Iterator[tuple[Path, Status]]:
    """The folders of a study or run that have a status, with it: the root, trials and seeds, parents first."""
    for level in ("", "*/", "*/*/"):
        for path in sorted(root.glob(level + STATUS)):
            status = read_json(path)
            sound = isinstance(status, dict) and all(isinstance(status.get(key), kind) for key, kind in FIELDS.items())
            if status and sound and not linked(path, root):
                yield path.parent, status


def linked(path: Path, root: Path) -> bool:
    """Whether `path`, something in it, or a folder between it and `root` is a symbolic link."""
    return any(each.resolve() != root.resolve() / each.relative_to(root) for each in (path, *path.rglob("*")))


def parts(folder: Path, status: Status) -> dict[str, str]:
    """The digest of each part of a folder's record, in the order in which they are sent; files once it has FINISHED."""
    values = {"settings": _digest(status["params"], status["tags"])}
    whole = status["state"] == "FINISHED" and not (folder / HISTORY).exists()  # a run or study: seeds send no files
    for name in (HISTORY, *(FILES if whole else ()), *(("model",) if whole and status.get("model") else ())):
        if (folder / name).is_file() or (folder / name).is_dir():
            values[name] = "link" if linked(folder / name, folder) else _digest(folder / name)
    if status["ended"] and status.get("metrics"):
        values["summary"] = _digest(status["metrics"])
    return values | {"state": _digest(status["state"], status["ended"])}


def send(client: Any, remote: Remote, part: str, folder: Path, status: Status) -> None:
    """Send one part. Raises Refused for what is not the folder's; whatever MLflow raises passes."""
    run, path = remote.run_id, folder / part
    if path.exists() and linked(path, folder):
        raise Refused(f"{path} is or holds a link: only a run's own files are sent")
    if part == "settings":
        _settings(client, run, status["params"], status["tags"])
    elif part == HISTORY:
        _epochs(client, remote, path, status["started"])
    elif part == "summary":  # what is new or changed (a further seed changes the means): MLflow shows the latest
        latest = client.get_run(run).data.metrics
        figures = {k: v for k, v in status["metrics"].items() if v is not None and latest.get(_name(k)) != v}
        client.log_batch(run, metrics=_metrics(figures, status["step"], status["ended"]))
    elif part == "state" and status["ended"] is None:
        client.update_run(run, status["state"])
    elif part == "state":
        client.set_terminated(run, status["state"], status["ended"])
    elif part == "model":
        _model(client, remote, path, status["model"])
    elif path.is_dir():
        client.log_artifacts(run, str(path), part)
    else:
        client.log_artifact(run, str(path))


def _settings(client: Any, run: str, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Log parameters, tags and, where the parameters name it, the data set as the run's input."""
    from mlflow.entities import Dataset, DatasetInput, Param, RunTag

    rows = [Param(key, fit(value)) for key, value in params.items()]
    for first in range(0, len(rows), PARAMS):
        client.log_batch(run, params=rows[first : first + PARAMS])
    client.log_batch(run, tags=[RunTag(key, fit(value)) for key, value in tags.items()])
    if {"data", "dataset"} <= params.keys():
        dataset = Dataset(params["dataset"][:500], params["data"][:36], "local", params["dataset"])
        client.log_inputs(run, datasets=[DatasetInput(dataset, [])])


def _epochs(client: Any, remote: Remote, history: Path, started: int) -> None:
    """Log the epochs behind the last one that MLflow has; those that a resumed training repeats keep their values.

    They go whole and in order, so that one metric tells which are there.
    """
    if remote.step is None:
        remote.step = max((metric.step for metric in client.get_metric_history(remote.run_id, EACH)), default=-2)
    lines = history.read_bytes().rpartition(b"\n")[0].splitlines()  # without one that is still being written
    records = [record for record in map(json.loads, lines) if record["epoch"] > remote.step]
    at_once = METRICS // max((len(record) for record in records), default=1)
    for first in range(0, len(records), at_once):
        metrics = []
        for record in records[first : first + at_once]:
            epoch, at = int(record.pop("epoch")), int(1000 * (record.pop(CLOCK, None) or started / 1000))
            metrics += _metrics(record, epoch, at)
        client.log_batch(remote.run_id, metrics=metrics)
        remote.step = epoch


def _metrics(values: Mapping[str, float | None], step: int, at: int) -> list[Any]:
    """MLflow's metrics; JSON has null for what is not finite."""
    from mlflow.entities import Metric

    return [Metric(_name(k), float("nan") if v is None else float(v), at, step) for k, v in values.items()]


def _name(key: str) -> str:
    """A metric's name with the characters that MLflow takes."""
    return re.sub(r"[^\w\-./: ]", "_", key)


def _model(client: Any, remote: Remote, folder: Path, name: str) -> None:
    """Log the folder as a pyfunc from code, register it and move the alias; each step looks first at what there is."""
    from mlflow.exceptions import MlflowException

    run, experiment, mark = remote.run_id, remote.experiment_id, {"tessera.digest": _digest(folder)}
    query = f"source_run_id = '{run}' AND tags.`tessera.digest` = '{mark['tessera.digest']}'"
    logged = client.search_logged_models([experiment], query)
    model = logged[0] if logged else client.create_logged_model(experiment, name, run, mark)
    if str(model.status) != "READY":
        _upload(client, run, folder, model)
    with suppress(MlflowException):  # there is one
        client.create_registered_model(name)
    source = f"models:/{model.model_id}"
    versions = [each for each in client.search_model_versions(f"name = '{name}'") if each.source == source]
    if not versions:
        with _default_uri(client.tracking_uri):
            more = {"await_creation_for": 30, "model_id": model.model_id}
            versions.append(client.create_model_version(name, source, run, **more))
    client.set_registered_model_alias(name, ALIAS, versions[0].version)


def _upload(client: Any, run: str, folder: Path, model: Any) -> None:
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    where = {"artifact_path": model.artifact_location, "model_uuid": model.model_id, "model_id": model.model_id}
    files = {"python_model": str(WRAPPER), "artifacts": {"model": str(folder)}}
    with tempfile.TemporaryDirectory() as scratch:
        # Requirements are given, or MLflow spends a minute on looking for them. Tessera itself is not on PyPI.
        described = Model(run_id=run, **where)
        mlflow.pyfunc.save_model(f"{scratch}/m", mlflow_model=described, pip_requirements=REQUIREMENTS, **files)
        client.log_model_artifacts(model.model_id, f"{scratch}/m")
    outputs = client.get_run(run).outputs
    if model.model_id not in [each.model_id for each in (outputs.model_outputs if outputs else [])]:
        client.log_outputs(run, [LoggedModelOutput(model.model_id, 0)])
    client.finalize_logged_model(model.model_id, "READY")


@contextmanager
def _default_uri(uri: str) -> Iterator[None]:
    """MLflow's registry in a database asks the environment where the runs are."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        os.environ |= {"MLFLOW_TRACKING_URI": before} if before else {}


def fit(value: str) -> str:
    """The value within MLflow's limit, saying so where it was cut."""
    note = f" ... [cut, {len(value)} characters]"
    return value if len(value) <= LIMIT else value[: LIMIT - len(note)] + note


def _digest(*values: Any) -> str:
    """SHA-256 of a file, of a folder's names and contents, or of plain values."""
    if not isinstance(values[0], Path):
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    digest, path = hashlib.sha256(), values[0]
    for file in sorted(each for each in (path, *path.rglob("*")) if each.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
