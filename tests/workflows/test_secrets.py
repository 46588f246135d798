"""What a run shows to others: secrets of its environment and flags in nothing that it leaves or prints, and no open
port but on loopback addresses, from its start to its end."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from ports import open_ports
from processes import PROJECT, environment
from s3_world import BUCKET

from ops.data.synthetic.stream import generate
from ops.data.synthetic.user_item import Planted

pytestmark = pytest.mark.slow

PLANTED = "Vt3rraten"  # a part of every planted secret
KEYS = {
    name: f"{PLANTED}-{name}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
                 "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
}  # fmt: skip
QUOTED = f"http://me:it's {PLANTED}@127.0.0.1:1"
PASSWD = f"mysql+pymysql://127.0.0.1:1/db?user=me&passwd={PLANTED}"
ODBC = f"mssql+pyodbc:///?odbc_connect=DRIVER={{ODBC Driver 18}};SERVER=127.0.0.1,1;UID=me;PWD=a {PLANTED}"
SIGNED = f"https://127.0.0.1:1/store?sv=2024&sig={PLANTED}%3D"
SHORT = ["--threads", "1", "--epochs", "4", "--embedding-dim", "8", "--no-explain"]
GRAPH = ["--dataset", "planted:nodes=300,clusters=3"]
SEARCH = [*GRAPH, *SHORT, "--trials", "2", "--concurrent", "1", "--seeds", "1", "--no-prune", "--no-report"]


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's sessions with their logs; a short path, for sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def watched(process: subprocess.Popen[bytes], mark: str) -> tuple[set[tuple[str, str]], set[bytes]]:
    """(title and address of open ports, command lines of what it starts) until a process ends."""
    ports, commands = set[tuple[str, str]](), set[bytes]()
    assert isinstance(process.args, list)
    limit, its_own = time.monotonic() + 900, b"".join(os.fsencode(word) + b"\0" for word in process.args)
    while process.poll() is None and time.monotonic() < limit:
        ports |= open_ports(mark)
        for other in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if int(other.name) != os.getpid() and mark.encode() in (other / "environ").read_bytes():
                    commands.add((other / "cmdline").read_bytes())
        time.sleep(0.2)
    return ports, commands - {its_own}  # a child has its parent's until it is another program


def run(
    folder: Path, ray_folder: Path, program: str, *arguments: str, listener: str = "", **variables: str
) -> tuple[int, str]:
    """Exit code and output of a workflow; command lines and ports of what it starts are seen while it runs.

    `listener`: a process whose open port has to be seen, else the test would pass where nothing runs.
    """
    mark = uuid.uuid4().hex
    given = environment() | KEYS | {"RAY_TMPDIR": str(ray_folder), "TESSERA_TEST_MARK": mark} | variables
    command = [sys.executable, str(PROJECT / "workflows" / program), *arguments]
    (folder / "w").mkdir(exist_ok=True)
    with (folder / "w" / "log").open("a") as log:
        process = subprocess.Popen(command, env=given, cwd=folder / "w", stdout=log, stderr=log)
        try:
            shown = watched(process, mark)
        finally:
            process.terminate()
            code = process.wait(60)
    ports, commands = shown
    assert [each for each in commands if PLANTED.encode() in each] == []
    assert {(title, where) for title, where in ports if not ipaddress.ip_address(where).is_loopback} == set()
    assert any(listener in title for title, _ in ports) or not listener, ports
    return code, (folder / "w" / "log").read_text()


def assert_nothing(*folders: Path, least: int = 4) -> None:
    """No file of these folders (`least` that many), and no name of one, holds a planted secret."""
    looked = 0
    for path in (path for folder in folders for path in folder.rglob("*")):
        assert PLANTED not in str(path)
        if path.is_file():
            looked += 1
            assert PLANTED.encode() not in path.read_bytes(), path
    assert looked >= least, "the test has looked nowhere"


def logs(ray_folder: Path) -> list[Path]:
    return list(ray_folder.glob("**/logs/*runtime_env*"))


def test_a_search(tmp_path, ray_folder):
    code, told = run(tmp_path, ray_folder, "tune_hsan.py", *SEARCH, "--workers", "1", "--tracking-uri", QUOTED,
                     listener="TrainWorker")  # fmt: skip
    assert code == 0, told
    assert "records in MLflow at http://***@127.0.0.1:1" in told or "MLflow at http://***@127.0.0.1:1 cannot be" in told
    assert logs(ray_folder)
    assert_nothing(tmp_path, ray_folder)


def test_a_search_whose_trials_need_the_keys(tmp_path, ray_folder, s3):
    """Trials write to the bucket with the keys that they inherit."""
    from s3_world import KEY, SECRET

    given = ["--out", f"s3://{BUCKET}/secret", "--scratch", str(tmp_path / "scratch"), "--name", "study"]
    empty = {name: "" for name in KEYS if name not in s3.environment}  # the server knows no session's token
    code, told = run(tmp_path, ray_folder, "tune_hsan.py", *SEARCH, *given, listener="raylet", **empty,
                     **s3.environment)  # fmt: skip
    assert code == 0, told
    trials = [key for key in s3.keys("secret/study/trial-") if key.endswith("trial.json")]
    assert len(trials) == 2
    files = [path for folder in (tmp_path, ray_folder) for path in folder.rglob("*") if path.is_file()]
    written = {str(path): path.read_bytes() for path in files} | {key: s3.get(key) for key in s3.keys("secret/")}
    for word in (KEY.encode(), SECRET.encode()):
        assert [name for name, content in written.items() if word in content] == []


def test_workers_and_a_flag(tmp_path, ray_folder):
    code, told = run(
        tmp_path, ray_folder, "train.py", "hsan", *GRAPH, *SHORT, "--workers", "2", "--tracking-uri", PASSWD,
        listener="TrainWorker",
    )  # fmt: skip
    assert code == 0, told
    assert "MLflow at mysql+pymysql://127.0.0.1:1/db?***" in told
    assert_nothing(tmp_path, ray_folder)


def test_parts_served_by_actors(tmp_path, ray_folder):
    data = ["--dataset", "planted:users=150,notes=90,clusters=3", "--parts", "2", "--workers", "1"]
    code, told = run(tmp_path, ray_folder, "train.py", "twhin", *data, *SHORT, f"--tracking-uri={ODBC}",
                     listener="PartService")  # fmt: skip
    assert code == 0, told
    assert_nothing(tmp_path, ray_folder)


def test_tasks_of_a_partition(tmp_path, ray_folder):
    generate(Planted(users=600, notes=400, clusters=4), tmp_path / "g", 4)
    given = ["--graph", str(tmp_path / "g"), "--parts", "2", "--fennel", "waves", "--tasks", "2", "--out", "o"]
    code, told = run(tmp_path, ray_folder, "partition_graph.py", *given, listener="raylet",
                     MLFLOW_TRACKING_URI=SIGNED)  # fmt: skip
    assert code == 0, told
    assert logs(ray_folder)
    assert_nothing(tmp_path, ray_folder)


@pytest.mark.parametrize("uri", [QUOTED, PASSWD, ODBC, SIGNED])
def test_a_model_and_a_server_that_cannot_be_reached(tmp_path, ray_folder, uri):
    code, told = run(
        tmp_path, ray_folder, "predict.py", "models:/x@y", "--data", "digits", "--out", "p", "--tracking-uri", uri
    )
    assert code in (2, 3, 6), told
    more = ["--require-tracking", "--tracking-uri", uri, "--tracking-url", uri]
    if uri == QUOTED:
        code, told = run(tmp_path, ray_folder, "train.py", "hsan", *GRAPH, *SHORT, *more)
        assert code == 2, told  # no such flag
    code, told = run(tmp_path, ray_folder, "train.py", "hsan", *GRAPH, *SHORT, *more[:3])
    assert code == 6, told
    assert_nothing(tmp_path, least=3)  # nothing has begun: the output, the run's folder, its lock
