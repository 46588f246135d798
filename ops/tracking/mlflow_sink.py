"""The one writer to MLflow: a process that reads journals and sends what they hold, in order, once.

    MLFLOW_TRACKING_URI=... python -m ops.tracking.mlflow_sink --root DIR --experiment NAME

`ops.tracking.tracker.Tracker` starts it and speaks to it over standard input ("SECONDS GRACE\\n": finish within so many
seconds, giving a server that is away GRACE of them; end of file: the driver is dead) and output (events, JSON lines).

Killed at any moment, it goes on where it was: a cursor per journal moves only after MLflow has the records, and
what is sent a second time changes nothing. Runs and models are looked up by their journal before they are made;
parameters, tags and files are overwritten by themselves; MLflow drops a metric row that it has to the last bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.atomic_io import locked
from ops.errors import DataError, ServiceError
from ops.masking import mask, shown
from ops.tracking.journal import Record, number
from ops.tracking.sender import Away, Gone, Refused, Writer
from ops.tracking.tracker import Pending, Tracker, check_uri, default_uri, sqlite_file, sync, waiting

__all__ = ["Pending", "Tracker", "check_uri", "default_uri", "mask", "sync", "waiting"]

PARAMS = 100  # what MLflow takes in one call
LIMIT = 6000  # characters of a parameter; a tag may have 8,000
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a request that is repeated blindly could make a run twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",  # instead of 120 s
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def translated(files: bool = False) -> Iterator[None]:
    """Turn whatever MLflow raises into Away, Refused or Gone; `files`: also rights and endpoints may lack for good."""
    from mlflow.exceptions import MlflowException

    never = {"INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS"}
    if files:
        never |= {"PERMISSION_DENIED", "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED"}
    try:
        yield
    except (Away, Refused, Gone):
        raise
    except MlflowException as error:
        reason = brief(error)
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise Gone(reason) from None
        raise (Refused if error.error_code in never else Away)(reason) from None
    except FileNotFoundError as error:
        raise Refused(f"{error.filename} is no longer there") from None
    except Exception as error:  # drivers of databases and stores raise what they like
        raise Away(brief(error)) from None


def brief(error: Exception) -> str:
    """The gist of an error in a line, without secrets."""
    text = " ".join(mask(str(error)).split())
    for known in ("Connection refused", "timed out", "Name or service not known", "database is locked"):
        if known.lower() in text.lower():
            return known.lower()
    return text[:200] or type(error).__name__


class Server:
    """The MLflow calls that the writer needs, each harmless when made twice; they raise Away, Refused or Gone."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment
        self.experiment_id = ""

    def connect(self) -> None:
        """Find or make the experiment; for SQLite its files go beside the database."""
        with translated():
            from mlflow import MlflowClient

            file = sqlite_file(self.uri)
            if file is not None:
                make_database(file)
            self.client = MlflowClient(self.uri)
            found = self.client.get_experiment_by_name(self.experiment)
            if found is not None:
                self.experiment_id = found.experiment_id
                return
            place = (file.parent / "mlartifacts").as_uri() if file else None
            try:
                self.experiment_id = self.client.create_experiment(self.experiment, artifact_location=place)
            except Exception:  # another writer may have made it in between
                found = self.client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
                self.experiment_id = found.experiment_id

    def run(self, journal: str, start: Record, parent: str | None) -> str:
        """The id of the journal's MLflow run, made unless it is there."""
        with translated():
            query = f"tags.`tessera.journal` = '{journal}'"
            found = self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time ASC"])
            if found:
                return str(found[0].info.run_id)
            tags = {**start["tags"], "tessera.journal": journal, "tessera.run": start["run"]}
            if parent is not None:
                tags["mlflow.parentRunId"] = parent
            tags = {key: fit(value) for key, value in tags.items()}
            made = self.client.create_run(self.experiment_id, start["time"], tags, start["name"])
            return str(made.info.run_id)

    def settings(self, run_id: str, params: dict[str, str], tags: dict[str, str]) -> None:
        """Log parameters and set tags."""
        from mlflow.entities import Param, RunTag

        with translated():
            rows = [Param(key, fit(value)) for key, value in params.items()]
            for first in range(0, len(rows), PARAMS):
                self.client.log_batch(run_id, params=rows[first : first + PARAMS])
            if tags:
                self.client.log_batch(run_id, tags=[RunTag(key, fit(value)) for key, value in tags.items()])

    def metrics(self, run_id: str, records: list[Record]) -> None:
        """Log at most BATCH metrics; of a refused batch the good ones are logged one by one, then Refused is raised."""
        from mlflow.entities import Metric

        rows = [Metric(r["key"], number(r["value"]), r["time"], r["step"]) for r in records]
        try:
            with translated():
                self.client.log_batch(run_id, metrics=rows)
        except Refused:
            with translated():
                deleted = self.client.get_run(run_id).info.lifecycle_stage == "deleted"
            if deleted or len(rows) == 1:
                raise
            refusals = []
            for record in records:
                try:
                    self.metrics(run_id, [record])
                except Refused as error:
                    refusals.append(str(error))
            if refusals:
                raise Refused(f"{len(refusals)} metrics; {refusals[0]}") from None

    def artifact(self, run_id: str, path: Path, target: str) -> None:
        """Upload a file or a folder's content."""
        with translated(files=True):
            if path.is_dir():
                self.client.log_artifacts(run_id, str(path), target or path.name)
            else:
                self.client.log_artifact(run_id, str(path), target or None)

    def status(self, run_id: str, status: str, when: int) -> None:
        """Set a run's status, and the time of its end unless it runs."""
        with translated():
            if status == "RUNNING":
                self.client.update_run(run_id, status)
            else:
                self.client.set_terminated(run_id, status, when)

    def model(self, run_id: str, folder: Path, record: Record) -> None:
        """Log the folder as a pyfunc from code, register it and move the alias; every step looks before it acts."""
        with translated(files=True):
            mark = {"tessera.digest": record["digest"]}
            query = f"source_run_id = '{run_id}' AND tags.`tessera.digest` = '{record['digest']}'"
            found = self.client.search_logged_models([self.experiment_id], query)
            model = found[0] if found else None
            if model is None:
                model = self.client.create_logged_model(self.experiment_id, record["name"], run_id, mark)
            if str(model.status) != "READY":
                self._upload(run_id, folder, model)
            query = f"name = '{record['name']}' AND tags.`tessera.digest` = '{record['digest']}'"
            versions = [v for v in self.client.search_model_versions(query) if v.run_id == run_id]
            version = versions[0].version if versions else self._register(run_id, model, record["name"], mark)
            self.client.set_registered_model_alias(record["name"], record["alias"], version)

    def _upload(self, run_id: str, folder: Path, model: Any) -> None:
        import mlflow.pyfunc
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        if not (folder / "model.safetensors").is_file():
            raise Refused(f"{folder / 'model.safetensors'} is no longer there")
        where = {"artifact_path": model.artifact_location, "model_uuid": model.model_id, "model_id": model.model_id}
        with tempfile.TemporaryDirectory() as scratch:
            place = str(Path(scratch) / "model")
            mlflow.pyfunc.save_model(
                place,
                python_model=str(Path(__file__).parents[1] / "inference" / "mlflow_pyfunc.py"),
                artifacts={"model": str(folder)},
                # Given, or MLflow spends a minute on finding out. Tessera itself is not on PyPI.
                pip_requirements=["mlflow", "numpy", "pandas", "safetensors", "torch"],
                mlflow_model=Model(run_id=run_id, **where),
            )
            self.client.log_model_artifacts(model.model_id, place)
        outputs = self.client.get_run(run_id).outputs
        if model.model_id not in [o.model_id for o in (outputs.model_outputs if outputs else [])]:
            self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        self.client.finalize_logged_model(model.model_id, "READY")

    def _register(self, run_id: str, model: Any, name: str, mark: dict[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"models:/{model.model_id}"
        made = self.client.create_model_version(
            name, source, run_id, mark, await_creation_for=30, model_id=model.model_id
        )
        return str(made.version)


def download_model(uri: str, tracking_uri: str | None) -> Path:
    """The `model/` folder behind models:/NAME@ALIAS, models:/NAME/VERSION or models:/ID, brought to this machine.

    Raises DataError where there is no such model or it is not one of ours, ServiceError where MLflow is away.
    """
    store = check_uri(tracking_uri or default_uri(Path("runs")))
    file = sqlite_file(store)
    if file is not None and not file.exists():  # MLflow would make an empty one
        raise DataError(f"{uri}: there is no MLflow database {file}; give --tracking-uri or MLFLOW_TRACKING_URI")
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    try:
        with warnings.catch_warnings(action="ignore"), translated(files=True):
            import mlflow

            mlflow.set_tracking_uri(store)
            mlflow.set_registry_uri(store)
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (Gone, Refused) as error:
        raise DataError(f"{uri}: {shown(store)} has no such model ({error}); give models:/NAME@ALIAS") from None
    except Away as error:
        raise ServiceError(f"{uri}: MLflow at {shown(store)} cannot be reached ({error})") from None
    found = sorted(folder.glob("artifacts/*/model.safetensors"))
    if not found:
        raise DataError(f"{uri}: is no model of this program (no model.safetensors in it)")
    return found[0].parent


def make_database(file: Path) -> None:
    """Make MLflow's SQLite file where there is none: under a lock and another name, renamed when it is whole.

    MLflow's migrations spoil the file for good when two processes run them at once, or when one is killed in them.
    """
    from mlflow import MlflowClient

    with locked(file.with_name(file.name + ".lock")):
        if file.exists() and file.stat().st_size > 0:
            return
        part = file.with_name(file.name + ".part")
        part.unlink(missing_ok=True)
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        os.replace(part, file)


def fit(value: str) -> str:
    """The value within MLflow's limit, saying so where it was cut."""
    note = f" ... [cut, {len(value)} characters]"
    return value if len(value) <= LIMIT else value[: LIMIT - len(note)] + note


def main() -> int:
    """Run the writer until the driver says so or dies; its exit code is 0 unless something unforeseen happened."""
    parser = argparse.ArgumentParser(description="send journals to MLflow (started by a run, not by hand)")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--uri", default="", help="default: MLFLOW_TRACKING_URI")
    parser.add_argument("--experiment", default="tessera")
    options = parser.parse_args()
    uri = check_uri(options.uri or default_uri(options.root))
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    os.environ["MLFLOW_TRACKING_URI"] = uri  # the registry of a SQLite store asks for it behind our back
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    warnings.simplefilter("ignore")
    try:
        Writer(options.root, uri, Server(uri, options.experiment)).run()
    except Exception:
        sys.stderr.write(mask(traceback.format_exc()))
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # taking MLflow apart costs a second in which the driver would wait
