"""Runs with `--out s3://` against a real server: killed, moved to another machine, doubled, cut off; users in parts."""

import io
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from commands import TINY, Shell
from processes import history, stopped, until
from s3_world import BUCKET, S3

from ops.data.io.builder import Raw
from ops.data.io.npz import write_npz
from ops.data.synthetic.planted_partition import planted_graph
from ops.storage import lease, run_dir
from ops.storage.run_dir import MARK_FILE
from workflows import auto

pytestmark = pytest.mark.slow

SHAPE = ["--preset", "none", "--embedding-dim", "16", "--threads", "1", "--no-report", "--no-explain",
         "--update-every", "3"]  # fmt: skip


@pytest.fixture
def data(s3, tmp_path, monkeypatch):
    """A file in the bucket, read through a cache of the test's own."""
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    graph, labels = planted_graph(200, 4, separation=1.5, mixing=0.4)
    write_npz(tmp_path / "hard.npz", Raw("hard", "hard", graph.x, graph.edge_index, labels=labels))
    s3.put("data/hard.npz", (tmp_path / "hard.npz").read_bytes())
    return f"s3://{BUCKET}/data/hard.npz"


@pytest.fixture
def shell(s3, capsys, monkeypatch, tmp_path):
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


def test_a_killed_run_goes_on_on_another_machine_and_ends_as_undisturbed(s3, nursery, data, tmp_path):
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


def test_a_second_start_says_who_is_at_work_and_an_interrupt_sends_all(s3, nursery, shell, tmp_path):
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


def test_the_choice_of_a_method_is_in_the_bucket(s3, shell):
    data = f"--dataset planted:nodes=60,clusters=3 --out s3://{BUCKET}/out --name chosen --no-report --threads 1"
    ended = shell(data, main=auto.main, program="workflows/auto.py")
    assert ended.code == 0, ended
    assert "out/chosen/choice.json" in s3.keys("out/chosen/")


def test_storage_that_goes_away_stops_no_training_and_the_same_command_sends_all(s3, nursery, tmp_path):
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


def test_storage_that_cannot_be_asked_is_one_line_before_any_work(s3, shell, tmp_path, monkeypatch):
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


def test_parts_and_embeddings_of_users_are_in_the_bucket(nursery, s3, tmp_path):
    def run(program, *words):
        cache = {"TESSERA_CACHE": str(tmp_path / "cache")}
        ended = nursery.run([*words], program=program, folder=tmp_path, variables=cache)
        assert ended.code == 0, ended.err

    out = ["--out", f"s3://{BUCKET}/out", "--scratch", str(tmp_path / "scratch"), "--threads", "1", "--epochs", "2",
           "--no-report", "--no-explain"]  # fmt: skip
    run("generate_graph", "--users", "400", "--notes", "200", "--clusters", "4", "--out", str(tmp_path / "g"))
    run("partition_graph", "--graph", str(tmp_path / "g"), "--parts", "2", "--out", f"s3://{BUCKET}/parts")
    run("train", "hgt", "--dataset", f"s3://{BUCKET}/parts", "--n-clusters", "4", "--name", "parts", *out)
    run("train", "twhin", "--dataset", "planted:users=300,clusters=4", "--name", "planted", *out)
    of_parts = [f"parts/embeddings/part-0000{part}.parquet" for part in (0, 1)]
    for names, users in ((of_parts, 400), (["planted/embeddings.parquet"], 300)):
        tables = [pq.read_table(io.BytesIO(s3.get(f"out/{name}"))) for name in names]
        assert sum(table.num_rows for table in tables) == users
        assert tables[0].column_names == ["id", "vector", "cluster", "confidence"]
