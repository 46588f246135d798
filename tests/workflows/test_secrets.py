"""What a run shows to others: secrets of its environment and flags in nothing that it leaves or prints, and no open
port but on loopback addresses, from its start to its end."""

import ipaddress
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import open_ports
from processes import MARK, RAY, Ended, Nursery, marked
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


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Ray's sessions with their logs; a short path, for sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def marked_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, str]]:
    """Commands whose processes, the first included, carry a mark."""
    mark = uuid.uuid4().hex
    nursery = Nursery(tmp_path_factory.mktemp("nursery"), **{MARK: mark})
    yield nursery, mark
    nursery.close()


class Runner:
    """Runs commands with planted secrets in their environment, and looks at what they start while they run."""

    def __init__(self, nursery: Nursery, mark: str, folder: Path, ray_folder: Path) -> None:
        self.nursery, self.mark, self.ray_folder = nursery, mark, ray_folder
        self.folder = folder / "w"
        self.folder.mkdir()

    def __call__(self, program: str, *arguments: str, listeners: tuple[str, ...] = (), **variables: str) -> Ended:
        """`listeners`: processes whose open ports have to be seen, else the test would pass where nothing runs."""
        given = KEYS | {"RAY_TMPDIR": str(self.ray_folder), MARK: self.mark} | variables
        imports = RAY if listeners else ()
        self.nursery.start([*arguments], program=program, variables=given, folder=self.folder, imports=imports)
        ports, commands = set[tuple[str, str]](), set[str]()
        while not self.nursery.ended():
            ports |= open_ports(self.mark)
            commands |= set(marked(self.mark).values())
            time.sleep(0.2)
        ended = self.nursery.wait()
        (self.folder / "log").write_text(ended.out + ended.err)
        assert [each for each in commands if PLANTED in each] == []
        assert {(title, where) for title, where in ports if not ipaddress.ip_address(where).is_loopback} == set()
        assert all(any(word in title for title, _ in ports) for word in listeners), ports
        return ended


@pytest.fixture
def run(marked_nursery, tmp_path, ray_folder) -> Runner:
    return Runner(*marked_nursery, tmp_path, ray_folder)


def contents(*folders: Path) -> dict[str, bytes]:
    """Every file below these folders."""
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def assert_nothing(written: dict[str, bytes], *more: str, least: int = 4) -> None:
    """No file (of which there are `least`), and no name of one, holds a planted secret, or one of `more`."""
    assert len(written) >= least, "the test has looked nowhere"
    for word in (PLANTED, *more):
        assert [name for name, content in written.items() if word in name or word.encode() in content] == []


def logs(ray_folder: Path) -> list[Path]:
    return list(ray_folder.glob("**/logs/*runtime_env*"))


def test_a_search_whose_trials_need_the_keys(run, tmp_path, ray_folder, s3):
    """Trials, and the workers that they start, write to the bucket with the keys that they inherit."""
    from s3_world import KEY, SECRET

    argv = [*GRAPH, *SHORT, "--trials", "2", "--concurrent", "1", "--seeds", "1", "--no-prune", "--no-report",
            "--workers", "1", "--tracking-uri", QUOTED, "--out", f"s3://{BUCKET}/secret",
            "--scratch", str(tmp_path / "scratch"), "--name", "study"]  # fmt: skip
    empty = {name: "" for name in KEYS if name.startswith("AWS")}  # the server knows no session's token
    ended = run("tune_hsan", *argv, listeners=("TrainWorker", "raylet"), **(empty | s3.environment))
    assert ended.code == 0, ended
    said = ended.out + ended.err
    assert "records in MLflow at http://***@127.0.0.1:1" in said or "MLflow at http://***@127.0.0.1:1 cannot be" in said
    assert len([key for key in s3.keys("secret/study/trial-") if key.endswith("trial.json")]) == 2
    assert logs(ray_folder)
    assert_nothing(contents(tmp_path, ray_folder) | {key: s3.get(key) for key in s3.keys("secret/")}, KEY, SECRET)


def test_two_workers_and_parts_served_by_actors(run, tmp_path, ray_folder):
    data = ["--dataset", "planted:users=150,notes=90,clusters=3", "--parts", "2", "--workers", "2"]
    ended = run("train", "twhin", *data, *SHORT, f"--tracking-uri={PASSWD}", listeners=("TrainWorker", "PartService"))
    assert ended.code == 0, ended
    assert "MLflow at mysql+pymysql://127.0.0.1:1/db?***" in ended.out + ended.err
    assert_nothing(contents(tmp_path, ray_folder))


def test_tasks_of_a_partition(run, tmp_path, ray_folder):
    generate(Planted(users=600, notes=400, clusters=4), tmp_path / "g", 4)
    given = ["--graph", str(tmp_path / "g"), "--parts", "2", "--fennel", "waves", "--tasks", "2", "--out", "o"]
    ended = run("partition_graph", *given, listeners=("raylet",), MLFLOW_TRACKING_URI=SIGNED)
    assert ended.code == 0, ended
    assert logs(ray_folder)
    assert_nothing(contents(tmp_path, ray_folder))


@pytest.mark.parametrize("uri", [QUOTED, PASSWD, ODBC, SIGNED])
def test_a_model_and_a_server_that_cannot_be_reached(run, tmp_path, uri):
    ended = run("predict", "models:/x@y", "--data", "digits", "--out", "p", "--tracking-uri", uri)
    assert ended.code in (2, 3, 6), ended
    if uri == QUOTED:
        assert run("train", "hsan", *GRAPH, *SHORT, "--tracking-url", uri).code == 2  # no such flag
    ended = run("train", "hsan", *GRAPH, *SHORT, "--require-tracking", f"--tracking-uri={uri}")
    assert ended.code == 6, ended
    assert_nothing(contents(tmp_path), least=3)  # nothing has begun: the output, the run's folder, its lock
