"""Runs and searches with `--out s3://` against a real server: killed, moved to another machine, doubled, cut off."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import TINY, Shell
from processes import RAY, Nursery, history, stopped, until
from s3_world import BUCKET, S3

from ops.data.io.builder import Raw
from ops.data.io.npz import write_npz
from ops.data.synthetic.planted_partition import planted_graph
from ops.storage import lease, object_store, run_dir
from ops.storage.run_dir import MARK_FILE
from ops.tuning.remote_trials import Trials
from workflows import compare, report

pytestmark = pytest.mark.slow

SHAPE = ["--preset", "none", "--embedding-dim", "16", "--threads", "1", "--no-report", "--update-every", "3"]


@pytest.fixture
def data(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in the bucket, read through a cache of the test's own."""
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    graph, labels = planted_graph(200, 4, separation=1.5, mixing=0.4)
    write_npz(tmp_path / "hard.npz", Raw("hard", "hard", graph.x, graph.edge_index, labels=labels))
    s3.put("data/hard.npz", (tmp_path / "hard.npz").read_bytes())
    return f"s3://{BUCKET}/data/hard.npz"


@pytest.fixture
def shell(
    s3: S3, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:  # fmt: skip
    (tmp_path / "shell").mkdir()
    return Shell(capsys, monkeypatch, tmp_path / "shell")


# A push ends with a note of what is in the bucket: the fourth is written when the first checkpoints are there.
AFTER_PUSHES: dict[str, Any] = {"event": "os.rename", "part": MARK_FILE, "nth": 4}


def command(data: str, out: str, name: str, scratch: Path, epochs: int, *more: str) -> list[str]:
    where = ["--dataset", data, "--out", out, "--name", name, "--scratch", str(scratch), "--epochs", str(epochs)]
    return ["hsan", *where, *SHAPE, *more]


def checkpoints(s3: S3, run: str) -> list[str]:
    return [k for k in s3.keys(f"{run}/") if k.endswith("checksums.json")]


def fetched(s3: S3, run: str, folder: Path) -> Path:
    for key in s3.keys(f"{run}/"):
        path = folder / key.removeprefix(f"{run}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get(key))
    return folder


def test_a_killed_run_goes_on_on_another_machine_and_ends_as_undisturbed(
    s3: S3, nursery: Nursery, data: str, tmp_path: Path
) -> None:
    quiet = nursery.run(command(data, str(tmp_path), "quiet", tmp_path / "unused", 31))
    assert quiet.code == 0, quiet.err
    out, scratch = f"s3://{BUCKET}/out", tmp_path / "scratch"
    held: list[str] = []
    for _ in range(2):
        killed = nursery.run(command(data, out, "moved", scratch, 31), **AFTER_PUSHES)
        assert killed.code == -signal.SIGKILL, killed.err
        assert checkpoints(s3, "out/moved")
        assert checkpoints(s3, "out/moved") != held, "the second kill is where the first was"
        held = checkpoints(s3, "out/moved")
        shutil.rmtree(scratch)
    assert "out/moved/result.json" not in s3.keys("out/moved/")
    ended = nursery.run(command(data, out, "moved", scratch, 31))
    assert ended.code == 0, ended.err
    assert "held this run" in ended.out
    assert "seed 0: resumed after epoch " in ended.out
    assert f"results in {out}/moved by way of {scratch}/{BUCKET}/out/moved" in ended.out
    assert f"sqlite:///{scratch}/{BUCKET}/out/mlflow.db" in ended.out
    moved = fetched(s3, "out/moved", tmp_path / "fetched")
    assert pq.read_table(moved / "assignments.parquet").equals(
        pq.read_table(tmp_path / "quiet" / "assignments.parquet")
    )
    for model in ("model", "seed-0/model"):
        files = [(p / model / "model.safetensors").read_bytes() for p in (moved, tmp_path / "quiet")]
        assert files[0] == files[1]
    assert history(moved / "seed-0") == history(tmp_path / "quiet" / "seed-0")
    result = json.loads((moved / "result.json").read_text())
    assert len(result["resumed_from"]["0"]) == 2
    assert result["paths"]["folder"] == f"{out}/moved"
    assert checkpoints(s3, "out/moved") == []
    assert not [k for k in s3.keys("out/moved/") if k.endswith(lease.LEASE_FILE)]


def test_a_second_start_says_who_is_at_work_and_an_interrupt_sends_all(
    s3: S3, nursery: Nursery, shell: Shell, tmp_path: Path
) -> None:
    argv = ["planted:nodes=60,clusters=3", f"s3://{BUCKET}/out", "twice"]
    pid = nursery.start(command(*argv, tmp_path / "one", 100_000))
    until(lambda: checkpoints(s3, "out/twice"))
    ended = shell(" ".join(command(*argv, tmp_path / "other", 100_000)))
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert ended.errors[0].startswith(f"error: s3://{BUCKET}/out/twice: process {pid} on ")
    assert ended.errors[0].endswith("wait for it, end it, or give another --name")
    os.kill(pid, signal.SIGTERM)
    stopped = nursery.wait()
    assert stopped.code == 130
    epoch = int(stopped.err.split("stopped after epoch ")[1].split()[0])
    assert f"out/twice/seed-0/checkpoints/epoch-{epoch:08d}/checksums.json" in checkpoints(s3, "out/twice")
    assert len(checkpoints(s3, "out/twice")) == 2
    assert not [k for k in s3.keys("out/twice/") if k.endswith(lease.LEASE_FILE)]
    other = shell(" ".join(command("planted:nodes=60,clusters=3", argv[1], "twice", tmp_path / "other", 7)))
    assert (other.code, other.errors[0].split(":")[0]) == (2, "error")
    assert f"s3://{BUCKET}/out/twice: is another run: epochs (100000 there, 7 now) differ" in other.errors[0]


def test_storage_that_goes_away_stops_no_training_and_the_same_command_sends_all(
    s3: S3, nursery: Nursery, tmp_path: Path
) -> None:
    argv = command("planted:nodes=60,clusters=3", f"s3://{BUCKET}/out", "cut", tmp_path / "scratch", 150)
    pid = nursery.start(argv, **AFTER_PUSHES, sent=signal.SIGSTOP)
    until(lambda: stopped(pid))
    assert checkpoints(s3, "out/cut")
    s3.stop()
    os.kill(pid, signal.SIGCONT)
    try:
        ended = nursery.wait()
    finally:
        s3.start()
    assert ended.code == 6, ended
    assert ended.err.count("training goes on, files are kept in") == 1
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].endswith(f"everything is kept in {tmp_path}/scratch/{BUCKET}/out/cut, the same command sends it")
    assert "out/cut/result.json" not in s3.keys("out/cut/")
    again = nursery.run(argv)
    assert again.code == 0, again.err
    assert "finished on" in again.out
    assert {"out/cut/result.json", "out/cut/assignments.parquet"} <= set(s3.keys("out/cut/"))
    assert checkpoints(s3, "out/cut") == []
    fresh = nursery.run([*argv, "--fresh"])
    assert fresh.code == 0, fresh.err
    assert "finished on" not in fresh.out


def test_storage_that_cannot_be_asked_is_one_line_before_any_work(
    s3: S3, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{TINY} --scratch {tmp_path / 'scratch'} --name x"
    ended = shell(f"{line} --out s3://nowhere/out")
    assert (ended.code, len(ended.errors)) == (6, 1)
    assert "there is no bucket nowhere (endpoint 127.0.0.1:" in ended.errors[0]
    gone = f"hsan --dataset {tmp_path}/none.npz --out s3://nowhere/out"
    assert shell(gone).code == 6, "the bucket is asked before the data"
    with monkeypatch.context() as without:  # as in a Pod whose Secret is missing
        without.delenv("AWS_ACCESS_KEY_ID")
        without.delenv("AWS_SECRET_ACCESS_KEY")
        ended = shell(f"{line} --out s3://{BUCKET}/out")
        assert (ended.code, len(ended.errors)) == (6, 1)
        assert "no credentials are set (endpoint" in ended.errors[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for more in (f"--out s3://{BUCKET}/out", f"--out out --dataset s3://{BUCKET}/data.npz"):
        ended = shell(f"{line} {more}")
        assert (ended.code, len(ended.errors)) == (6, 1)
        assert (
            "storage cannot be reached (endpoint 127.0.0.1:9); start it or correct AWS_ENDPOINT_URL" in ended.errors[0]
        )
        assert "geheim" not in ended.err + ended.out
        assert "epoch" not in ended.err
    assert shell(f"{line} --out s3://{BUCKET}//out").code == 2
    assert shell(f"{line} --out gs://{BUCKET}/out").code == 2
    monkeypatch.setattr(run_dir.tempfile, "gettempdir", lambda: "/proc")
    ended = shell(f"{TINY} --out s3://{BUCKET}/out")
    assert (ended.code, len(ended.errors)) == (2, 1)
    assert "--scratch /proc/tessera-" in ended.errors[0]


def test_a_search_ends_in_the_bucket_and_is_read_from_there(
    s3: S3, nursery: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scratch = f"s3://{BUCKET}/out", tmp_path / "scratch"
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--epochs", "4", "--update-every", "2", "--threads", "1",
            "--search", "lr", "--trials", "2", "--concurrent", "1", "--seeds", "1", "--embedding-dim", "8",
            "--name", "study", "--out", out, "--scratch", str(scratch)]  # fmt: skip

    def run() -> str:
        ended = nursery.run(argv, program="tune_hsan", imports=RAY, folder=tmp_path)
        assert ended.code == 0, ended
        return ended.out

    said = run()
    assert f"report: {out}/study/report.html" in said
    trials = json.loads(s3.get("out/study/trials.json"))
    keys = s3.keys("out/study/")
    assert len(trials["trials"]) == 2
    for trial in trials["trials"]:
        assert trial["status"] == "finished"
        assert json.loads(s3.get(f"out/study/{trial['trial']}/trial.json"))["metrics"] == trial["metrics"]
    assert {f"out/study/{name}" for name in ("report.html", "best/result.json", "best/assignments.parquet")} <= set(
        keys
    )
    assert any(k.startswith("out/study/ray/experiment_state") for k in keys)
    assert not [k for k in keys if k.endswith(lease.LEASE_FILE) or "checkpoints" in k]
    shutil.rmtree(scratch)
    assert "finished on" in run(), "another machine knows it"
    # what the driver copies of trials that ran elsewhere
    study, there = tmp_path / "driver", object_store.parse(f"{out}/study")
    study.mkdir()
    followed = Trials(study, there)
    followed.pull(records=True)
    assert {p.name for p in study.rglob("*") if p.is_file()} == {"history.jsonl", "status.json", run_dir.LOCK_FILE}
    followed.pull()
    assert len(list(study.glob("trial-*/trial.json"))) == 2
    local = next(study.glob("trial-*"))  # as if it had run here: what is here is not touched any more
    mark = s3.get(f"out/study/{local.name}/{run_dir.MARK_FILE}").decode()
    (local / run_dir.MARK_FILE).write_text(json.dumps({"id": mark}))
    (local / "trial.json").write_text("newer")
    Trials(study, there).pull()
    assert (local / "trial.json").read_text() == "newer"
    report.main([f"{out}/study"])
    assert capsys.readouterr().out.strip() == f"{out}/study/report.html"
    compare.main([f"{out}/study", f"{out}/study/best", "--out", str(tmp_path / "compare.html")])
    acc = json.loads(s3.get("out/study/best/result.json"))["last"]["acc"]["mean"]
    assert capsys.readouterr().out.count(f"{100 * acc:.1f}") >= 2
