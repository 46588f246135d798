"""What a run shows to others: secrets of its environment and flags in nothing that it leaves or prints, and no open
port but on loopback addresses, from its start to its end."""

import ipaddress
import json
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from ports import open_ports
from processes import MARK, RAY, Ended, Nursery, marked
from s3_world import BUCKET, KEY, SECRET

from ops.data.synthetic.stream import generate
from ops.data.synthetic.user_item import Planted
from ops.storage import lease, object_store, run_dir
from ops.tuning.remote_trials import Trials
from workflows import compare, report

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
def ray_folder():
    """Ray's sessions with their logs; a short path, for sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Runner:
    """Runs commands with planted secrets in their environment, and looks at what they start while they run."""

    def __init__(self, nursery: Nursery, folder: Path, ray_folder: Path) -> None:
        self.nursery, self.mark, self.ray_folder = nursery, nursery.mark, ray_folder
        self.folder = folder / "w"
        self.folder.mkdir()

    def __call__(self, program: str, *arguments: str, listeners: tuple[str, ...] = (), **variables: str) -> Ended:
        """`listeners`: processes whose open ports have to be seen, else the test would pass where nothing runs."""
        given = KEYS | {"RAY_TMPDIR": str(self.ray_folder), MARK: self.mark} | variables
        imports = RAY if listeners else ()
        self.nursery.start([*arguments], program=program, variables=given, folder=self.folder, imports=imports)
        ports, commands = set[tuple[str, str]](), set[str]()
        while not self.nursery.ended():
            started = marked(self.mark)
            ports |= open_ports(started)
            commands |= set(started.values())
            time.sleep(0.4)  # a look reads all of /proc
        ended = self.nursery.wait()
        (self.folder / "log").write_text(ended.out + ended.err)
        assert [each for each in commands if PLANTED in each] == []
        assert {(title, where) for title, where in ports if not ipaddress.ip_address(where).is_loopback} == set()
        assert all(any(word in title for title, _ in ports) for word in listeners), ports
        return ended


@pytest.fixture
def run(nursery, tmp_path, ray_folder):
    return Runner(nursery, tmp_path, ray_folder)


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


def test_a_search_whose_trials_need_the_keys_ends_in_the_bucket_and_is_read_from_there(
    run, tmp_path, ray_folder, s3, capsys
):
    """Trials, and the workers that they start, write to the bucket with the keys that they inherit."""
    out, scratch = f"s3://{BUCKET}/secret", tmp_path / "scratch"
    argv = [*GRAPH, *SHORT, "--trials", "2", "--concurrent", "1", "--seeds", "1", "--no-prune", "--workers", "1",
            "--search", "lr", "--tracking-uri", QUOTED, "--out", out, "--scratch", str(scratch),
            "--name", "study"]  # fmt: skip
    empty = {name: "" for name in KEYS if name.startswith("AWS")}  # the server knows no session's token
    ended = run("tune_hsan", *argv, listeners=("TrainWorker", "raylet"), **(empty | s3.environment))
    assert ended.code == 0, ended
    said = ended.out + ended.err
    assert "records in MLflow at http://***@127.0.0.1:1" in said or "MLflow at http://***@127.0.0.1:1 cannot be" in said
    assert f"report: {out}/study/report.html" in ended.out
    assert logs(ray_folder)
    keys = s3.keys("secret/study/")
    assert_nothing(contents(tmp_path, ray_folder) | {key: s3.get(key) for key in keys}, KEY, SECRET)
    trials = json.loads(s3.get("secret/study/trials.json"))["trials"]
    assert [trial["status"] for trial in trials] == ["finished"] * 2
    for trial in trials:
        assert json.loads(s3.get(f"secret/study/{trial['trial']}/trial.json"))["metrics"] == trial["metrics"]
    names = ("report.html", "best/result.json", "best/assignments.parquet")
    assert {f"secret/study/{name}" for name in names} <= set(keys)
    assert any(k.startswith("secret/study/ray/experiment_state") for k in keys)
    assert not [k for k in keys if k.endswith(lease.LEASE_FILE) or "checkpoints" in k]
    shutil.rmtree(scratch)
    again = run("tune_hsan", *argv, **(empty | s3.environment))
    assert "finished on" in again.out, "another machine knows it"
    # what the driver copies of trials that ran elsewhere
    study, there = tmp_path / "driver", object_store.parse(f"{out}/study")
    study.mkdir()
    followed = Trials(study, there)
    followed.pull(records=True)
    assert {p.name for p in study.rglob("*") if p.is_file()} == {"history.jsonl", "status.json", run_dir.LOCK_FILE}
    followed.pull()
    assert len(list(study.glob("trial-*/trial.json"))) == 2
    local = next(study.glob("trial-*"))  # as if it had run here: what is here is not touched any more
    mark = s3.get(f"secret/study/{local.name}/{run_dir.MARK_FILE}").decode()
    (local / run_dir.MARK_FILE).write_text(json.dumps({"id": mark}))
    (local / "trial.json").write_text("newer")
    Trials(study, there).pull()
    assert (local / "trial.json").read_text() == "newer"
    report.main([f"{out}/study"])
    assert capsys.readouterr().out.strip() == f"{out}/study/report.html"
    compare.main([f"{out}/study", f"{out}/study/best", "--out", str(tmp_path / "compare.html")])
    acc = json.loads(s3.get("secret/study/best/result.json"))["last"]["acc"]["mean"]
    assert capsys.readouterr().out.count(f"{100 * acc:.1f}") >= 2


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


@pytest.mark.parametrize("uri", [QUOTED, ODBC])  # PASSWD and SIGNED: above
def test_a_model_and_a_server_that_cannot_be_reached(run, tmp_path, uri):
    ended = run("predict", "models:/x@y", "--data", "digits", "--out", "p", "--tracking-uri", uri)
    assert ended.code in (2, 3, 6), ended
    if uri == QUOTED:
        assert run("train", "hsan", *GRAPH, *SHORT, "--tracking-url", uri).code == 2  # no such flag
    ended = run("train", "hsan", *GRAPH, *SHORT, "--require-tracking", f"--tracking-uri={uri}")
    assert ended.code == 6, ended
    assert_nothing(contents(tmp_path), least=3)  # nothing has begun: the output, the run's folder, its lock
