"""Tracking against real MLflow: SQLite files and servers that die, writers that are killed, drivers that vanish."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import ops
from ops.errors import ServiceError, SettingsError
from ops.run import tracker as driver
from ops.run.journal import FILENAME, Journal, read
from ops.run.tracking import Tracker, check_uri, default_uri, fit, mask, sync, waiting

PROJECT = str(Path(ops.__file__).parents[1])
STUDY = "hsan-toy-1a2b3c4d"


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait for a condition of the world; fail loudly rather than hang."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.05)


class Study:
    """A study with one seed, written as a trainer writes it."""

    def __init__(self, out: Path) -> None:
        self.root = out / STUDY
        self.seed = self.root / "seed-0"
        self.study_journal = Journal(self.root, STUDY)
        self.seed_journal = Journal(self.seed, f"{STUDY}/seed-0")
        self.epoch = 0

    def start(self) -> Study:
        self.study_journal.start(STUDY, None, {"temperature": 0.5}, {"tessera.kind": "study"})
        many = {f"p{i}": i for i in range(130)}
        self.seed_journal.start("seed-0", STUDY, {**many, "empty": "", "long": "x" * 7000}, {"tessera.kind": "seed"})
        return self

    def epochs(self, count: int, pause: float = 0.0) -> Study:
        for _ in range(count):
            values = {f"train/m{i}": self.epoch * 0.1 + i for i in range(12)}
            self.seed_journal.metrics(values, self.epoch)
            self.epoch += 1
            time.sleep(pause)
        return self

    def model(self) -> Study:
        (self.root / "model").mkdir(exist_ok=True)
        save_file({"centres": np.eye(3, dtype=np.float32)}, self.root / "model" / "model.safetensors")
        (self.root / "model" / "settings.json").write_text('{"method": "toy"}')
        self.study_journal.model("model", "tessera-toy")
        return self

    def end(self) -> Study:
        (self.root / "report.html").write_text("<p>report")
        self.study_journal.artifact(Path("report.html"))
        self.seed_journal.end("FINISHED")
        self.study_journal.end("FINISHED")
        self.seed_journal.close()
        self.study_journal.close()
        return self

    def recorded(self) -> list[tuple[str, int, int]]:
        """(key, step, time) of every metric in the journals."""
        records = [*read(self.root / FILENAME), *read(self.seed / FILENAME)]
        return sorted((r["key"], r["step"], r["time"]) for r in records if r["op"] == "metric")


def rows(db: Path, query: str) -> list[tuple[Any, ...]]:
    """What stands in MLflow's database, read without MLflow."""
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def check_whole(db: Path, study: Study) -> None:
    """Everything is there once: metrics with their times, two runs, parent and child, statuses, parameters."""
    logged = rows(db, "select key, step, timestamp from metrics order by key, step, timestamp")
    assert logged == study.recorded()
    runs = dict(rows(db, "select name, run_uuid from runs"))
    assert sorted(rows(db, "select name, status from runs")) == [(STUDY, "FINISHED"), ("seed-0", "FINISHED")]
    assert rows(db, "select run_uuid, value from tags where key = 'mlflow.parentRunId'") == [
        (runs["seed-0"], runs[STUDY])
    ]
    kinds = dict(rows(db, "select run_uuid, value from tags where key = 'tessera.kind'"))
    assert kinds == {runs["seed-0"]: "seed", runs[STUDY]: "study"}
    params = dict(rows(db, f"select key, value from params where run_uuid = '{runs['seed-0']}'"))
    assert len(params) == 132
    assert (params["p129"], params["empty"], len(params["long"])) == ("129", "", 6000)
    assert params["long"].endswith("[cut, 7000 characters]")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as MLflow makes it; made once, since its migrations take seconds."""
    out = tmp_path_factory.mktemp("template")
    said: list[str] = []
    tracker = Tracker(out / "run", default_uri(out), say=said.append)
    tracker.start()
    assert tracker.close(120).records == 0
    assert said == []
    # The experiment knows its place on disk, so each test makes its own.
    connection = sqlite3.connect(out / "mlflow.db")
    connection.execute("delete from experiments where name = 'tessera'")
    connection.commit()
    connection.close()
    return out / "mlflow.db"


@pytest.fixture
def out(tmp_path: Path, empty_database: Path) -> Path:
    """An output folder with a database, as a user's second run finds it."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


class MlflowServer:
    """A real `mlflow server` on a real SQLite file, on this host only."""

    def __init__(self, folder: Path) -> None:
        self.db = folder / "mlflow.db"
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ["--backend-store-uri", f"sqlite:///{self.db}", "--artifacts-destination", str(self.folder / "files")]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1", *where],
            cwd=self.folder,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self.answers, 120)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """As a power cut would: the group holds the server and its worker, both started here."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(out: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(out)
    yield server
    server.kill()


LOAD = """
import sys, warnings
import numpy as np, pandas as pd
import trainers
trainers.__path__.append(sys.argv[1])
import mlflow.pyfunc
model = mlflow.pyfunc.load_model("models:/tessera-toy@last")
x = pd.DataFrame(2 * np.eye(3)[[2, 0, 1]], index=["c", "a", "b"])
print(model.predict(x).reset_index().to_json(orient="values"))
try:
    model.predict(x * np.nan)
except Exception as error:
    print(type(error).__name__, error)
"""
TOY = """
def predict(tensors, settings, x, edge_index):
    assert settings["method"] == "toy" and edge_index is None and x.dtype == "float32"
    z = x @ tensors["centres"].numpy().T
    return z.argmax(1), z.max(1)
"""


def load_and_predict(uri: str, folder: Path) -> list[str]:
    """Load the registered model in a fresh process, as a user would."""
    (folder / "extra").mkdir()
    (folder / "extra" / "toy.py").write_text(TOY)
    env = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": PROJECT, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", LOAD, str(folder / "extra")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_server_killed_at_the_start_and_in_mid_run_loses_and_doubles_nothing(server: MlflowServer, out: Path) -> None:
    said: list[str] = []
    study = Study(out).start()
    tracker = Tracker(study.root, server.uri, say=said.append)
    began = time.monotonic()
    tracker.start()
    study.epochs(20)
    assert time.monotonic() - began < 1, "training does not wait for a server"
    until(lambda: said)
    assert len(said) == 1
    assert f"MLflow at {server.uri} cannot be reached (connection refused); training goes on" in said[0]
    server.start()
    until(lambda: rows(server.db, "select count(*) from metrics")[0][0] >= 240)
    assert "is back" in said[1]
    study.epochs(60, pause=0.02)
    server.kill()  # in mid-run, whatever it was doing
    study.epochs(60, pause=0.02)
    assert tracker._process is not None
    os.kill(tracker._process.pid, signal.SIGKILL)  # and the writer with it
    study.epochs(20).model()
    server.start()
    study.epochs(20).end()
    left = tracker.close(120)
    assert (left.records, left.reason) == (0, "")
    check_whole(server.db, study)
    assert rows(server.db, "select name, version from model_versions") == [("tessera-toy", 1)]
    assert len(list((out / "files").rglob("report.html"))) == 1

    # Without the cursors all is sent again, through the same server: MLflow ends with the same rows.
    (study.root / driver.CURSORS).unlink()
    assert sync(study.root, server.uri, timeout=120).records == 0
    check_whole(server.db, study)
    assert rows(server.db, "select name, version from model_versions") == [("tessera-toy", 1)]
    assert rows(server.db, "select count(*) from logged_models") == [(1,)]
    predictions, refusal = load_and_predict(server.uri, out)
    assert predictions == '[["c",2,2.0],["a",0,2.0],["b",1,2.0]]'
    assert "NaN" in refusal


@pytest.mark.slow
def test_a_writer_killed_again_and_again_loses_and_doubles_nothing(out: Path) -> None:
    said: list[str] = []
    study = Study(out).start()
    tracker = Tracker(study.root, default_uri(out), say=said.append)
    tracker.start()
    for kill in range(2):
        before = rows(out / "mlflow.db", "select count(*) from metrics")[0][0]
        study.epochs(100)
        # The first rows of a backlog are in, the cursor may or may not have moved.
        until(lambda before=before: rows(out / "mlflow.db", "select count(*) from metrics")[0][0] > before)
        time.sleep(0.01 * kill)
        assert tracker._process is not None
        os.kill(tracker._process.pid, signal.SIGKILL)
    study.model()
    until(lambda: rows(out / "mlflow.db", "select count(*) from logged_models") == [(1,)])
    os.kill(tracker._process.pid, signal.SIGKILL)  # between the steps of registering a model
    study.end()
    assert tracker.close(120).records == 0
    assert len([line for line in said if "is started again" in line]) == 3
    assert rows(out / "mlflow.db", "select name, status_message from logged_models") == [("tessera-toy", None)]
    check_whole(out / "mlflow.db", study)
    assert rows(out / "mlflow.db", "select name, version from model_versions") == [("tessera-toy", 1)]


DRIVER = """
import sys, time
from pathlib import Path
from ops.run.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), sys.argv[2])
tracker.start()
print(tracker._process.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie that init has not collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_writer_whose_driver_is_killed_sends_what_there_is_and_ends(out: Path) -> None:
    study = Study(out).start().epochs(30).end()
    command = [sys.executable, "-c", DRIVER, str(study.root), default_uri(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PROJECT})
    with process:
        assert process.stdout is not None
        writer = int(process.stdout.readline())
        process.kill()
    until(lambda: not alive(writer))
    assert waiting(study.root, default_uri(out)) == 0
    check_whole(out / "mlflow.db", study)


@pytest.mark.slow
def test_what_waits_is_sent_once_by_the_next_run_and_a_lost_database_is_filled_again(out: Path) -> None:
    uri = default_uri(out)
    study = Study(out).start().epochs(5)
    study.seed_journal.metrics({"nan": float("nan"), "inf": float("inf"), "no*name": 1.0}, 7)
    study.end()
    expected = [row for row in study.recorded() if row[0] != "no*name"]
    assert waiting(study.root, uri) == 5 * 12 + 3 + 5
    assert sync(study.root, uri, timeout=120).records == 0
    query = "select key, step, timestamp from metrics order by key, step, timestamp"
    assert rows(out / "mlflow.db", query) == expected, "the name that MLflow refuses does not hold up the others"
    assert rows(out / "mlflow.db", "select is_nan, value > 1e308 from metrics where step = 7 order by key") == [
        (0, 1),
        (1, 0),
    ]
    began = time.monotonic()
    assert sync(study.root, uri).records == 0
    assert time.monotonic() - began < 0.5, "nothing waits, so MLflow is not even imported"

    (study.root / "report.html").write_text("<p>another")  # resumed, reported again: one run, running then ended
    with Journal(study.root, STUDY) as journal:
        journal.start(STUDY, None, {}, {})
        journal.artifact(Path("report.html"))
        journal.end("KILLED")
    assert sync(study.root, uri, timeout=120).records == 0
    assert [p.read_text() for p in (out / "mlartifacts").rglob("report.html")] == ["<p>another"]
    assert rows(out / "mlflow.db", f"select status from runs where name = '{STUDY}'") == [("KILLED",)]

    (out / "mlflow.db").unlink()
    assert waiting(study.root, uri) > 0
    assert sync(study.root, uri, timeout=120).records == 0
    assert rows(out / "mlflow.db", query) == expected


@pytest.mark.slow
def test_a_fresh_run_is_a_new_mlflow_run_also_under_a_writer_that_knew_the_old_one(out: Path) -> None:
    with Tracker(out, default_uri(out)):
        first = Study(out).start().epochs(2)
        until(lambda: rows(out / "mlflow.db", "select count(*) from metrics") == [(24,)])
        shutil.rmtree(first.root)
        second = Study(out).start().epochs(2).end()
    assert waiting(second.root, default_uri(out)) > 0, "the cursors lie in the tracker's root"
    assert waiting(out, default_uri(out)) == 0
    names = rows(out / "mlflow.db", "select name, status from runs order by name, status")
    assert names == [(STUDY, "FINISHED"), (STUDY, "RUNNING"), ("seed-0", "FINISHED"), ("seed-0", "RUNNING")]
    assert rows(out / "mlflow.db", "select count(*) from metrics") == [(48,)]


@pytest.mark.slow
def test_a_required_server_that_is_away_is_exit_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 3.0)
    server = MlflowServer(tmp_path)
    uri = server.uri.replace("http://", "http://me:geheim@")
    said: list[str] = []
    tracker = Tracker(tmp_path / "run", uri, require=True, say=said.append)
    with pytest.raises(ServiceError, match=r"cannot be reached .*--require-tracking") as error:
        tracker.start()
    assert error.value.code == 6
    assert tracker._process is not None
    assert tracker._process.poll() is not None, "no writer is left behind"
    everything = [str(error.value), *said, *(p.read_text() for p in (tmp_path / "run").rglob("*") if p.is_file())]
    assert "geheim" not in "".join(everything)


@pytest.mark.slow
def test_closing_does_not_wait_long_for_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "GRACE", 2.0)
    study = Study(tmp_path).start().epochs(3).end()
    said: list[str] = []
    tracker = Tracker(study.root, MlflowServer(tmp_path).uri, say=said.append)
    tracker.start()
    until(lambda: said)
    began = time.monotonic()
    left = tracker.close(60)
    assert (left.records, left.reason) == (36 + 5, "connection refused")
    assert time.monotonic() - began < 3 * driver.GRACE
    assert len(said) == 1


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host/x", "sqlite:///", "sqlite:///:memory:", "http:host", ""]
)
def test_a_uri_of_no_known_kind_is_refused_before_work(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sqlite:////absolute"):
        Tracker(tmp_path / "run", uri)
    assert not (tmp_path / "run").exists()


def test_a_database_that_cannot_be_written_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        check_uri(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(SettingsError, match="cannot be written"):
        check_uri(f"sqlite:///{tmp_path}")


def test_the_default_uri_and_the_line_that_opens_the_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = default_uri(tmp_path / "a b")
    assert uri == f"sqlite:///{tmp_path}/a b/mlflow.db"
    assert (
        Tracker.ui_command(uri) == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b/mlflow.db'"
        " --host 127.0.0.1 --port 5000"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@mlflow.example:5000")
    assert Tracker.ui_command(default_uri(tmp_path)) == "https://***@mlflow.example:5000"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:p@ss@host:1/x", "http://***@host:1/x"),
        ("request to https://token@host failed", "request to https://***@host failed"),
        ("postgresql+psycopg://u:p@h/db?sslmode=require", "postgresql+psycopg://***@h/db?sslmode=require"),
        ("postgresql://h/db?user=u&password=p&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_a_long_value_says_that_it_was_cut() -> None:
    assert fit("x" * 6000) == "x" * 6000
    assert fit("x" * 6001).endswith("x ... [cut, 6001 characters]")
    assert len(fit("x" * 6001)) == 6000
