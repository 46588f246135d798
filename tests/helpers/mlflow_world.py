"""Real MLflow for the tests: a run as a training records it, a server that can be killed, a look into the database."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from processes import Nursery, until
from safetensors.numpy import save_file

from ops.atomic_io import read_json
from ops.storage.status import HISTORY, STATUS, begin, end

STUDY = "hsan-toy-1a2b3c4d"
NAMES = [f"train/m{i}" for i in range(11)]


class Study:
    """A run with one seed, recorded as a training records it."""

    def __init__(self, out: Path) -> None:
        self.root = out / STUDY
        self.seed = self.root / "seed-0"
        self.epoch = 0

    def start(self) -> Study:
        self.seed.mkdir(parents=True, exist_ok=True)
        begin(self.root, STUDY, {"temperature": 0.5, "dataset": "toy", "data": "0123abcd"}, {"tessera.kind": "study"})
        many = {f"p{i}": i for i in range(130)}
        begin(self.seed, "seed-0", {**many, "empty": "", "long": "x" * 7000}, {"tessera.kind": "seed"})
        return self

    def epochs(self, count: int, pause: float = 0.0) -> Study:
        """Twelve metrics an epoch; of its time only the seconds differ between two recordings."""
        for _ in range(count):
            values = {name: self.epoch * 0.1 + i for i, name in enumerate(NAMES)}
            record = {"epoch": self.epoch, **values, "sys/epoch_s": 0.5, "sys/time": 1_700_000_000 + self.epoch / 8}
            with (self.seed / HISTORY).open("a") as file:
                file.write(json.dumps(record) + "\n")
            self.epoch += 1
            time.sleep(pause)
        return self

    def model(self) -> Study:
        (self.root / "model").mkdir(exist_ok=True)
        save_file({"centres": np.eye(3, dtype=np.float32)}, self.root / "model" / "model.safetensors")
        (self.root / "model" / "settings.json").write_text('{"method": "toy"}')
        return self

    def end(self, **outcome: Any) -> Study:
        (self.root / "report.html").write_text("<p>report")
        end(self.seed, "FINISHED", metrics={"last/acc": 0.75, "last/nmi": None}, step=self.epoch - 1)
        end(self.root, "FINISHED", **outcome)
        return self

    def recorded(self) -> list[tuple[str, int, int]]:
        """(key, step, time in ms) of every metric in the records."""
        lines = [json.loads(line) for line in (self.seed / HISTORY).read_text().splitlines()]
        all_of_them = [(k, r["epoch"], int(1000 * r["sys/time"])) for r in lines for k in (*NAMES, "sys/epoch_s")]
        for folder in (self.root, self.seed):
            status = read_json(folder / STATUS) or {}
            values = status.get("metrics", {}).items()
            all_of_them += [(k, status["step"], status["ended"]) for k, v in values if v is not None]
        return sorted(all_of_them)


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
        until(self.answers)

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


LOAD = """
import sys, warnings
import numpy as np, pandas as pd
from types import SimpleNamespace
import trainers
sys.path.insert(0, sys.argv[1])
import toy
from ops.config.settings import MethodSettings
class Settings(MethodSettings):
    n_clusters: int = 3
trainers.METHODS = {"toy": SimpleNamespace(kind="graph", predict=toy.predict, settings=Settings)}
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
    assert "method" not in settings and edge_index is None and x.dtype == "float32"
    z = x @ tensors["centres"].numpy().T
    return z.argmax(1), z.max(1)
"""


def load_and_predict(nursery: Nursery, uri: str, folder: Path) -> list[str]:
    """Load the registered model in another process, as a user would."""
    (folder / "extra").mkdir()
    (folder / "extra" / "toy.py").write_text(TOY)
    variables = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    ended = nursery.run([str(folder / "extra")], code=LOAD, variables=variables)
    assert ended.code == 0, ended.err
    return ended.out.splitlines()
