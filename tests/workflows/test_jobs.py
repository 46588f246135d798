"""Jobs on a real Ray cluster of two nodes with tokens on: submitted, refused, killed, stopped and submitted again."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from processes import PROJECT, lines
from ray_world import Cluster, needs_nodes
from s3_world import BUCKET

pytestmark = pytest.mark.slow

TINY = ["--dataset", "planted:nodes=200,clusters=3", "--embedding-dim", "8", "--threads", "1", "--no-report"]
SEARCH = ["python", "workflows/tune_hsan.py", *TINY, "--epochs", "4", "--update-every", "2", "--search", "lr"]
TRAIN = ["python", "workflows/train.py", "hsan", "--dataset", "planted:nodes=700,clusters=4", "--embedding-dim", "128",
         "--threads", "1", "--no-report", "--epochs", "50", "--update-every", "4", "--workers", "2"]  # fmt: skip


@pytest.fixture(scope="session")
def cluster(s3_server):
    """A head and a node of 2 CPUs each; both reach the S3 server."""
    needs_nodes()
    started = Cluster(2, 2, extra=s3_server.environment)
    yield started
    started.stop()


def test_a_search_is_spread_over_the_nodes_and_ends_in_the_bucket(cluster, s3):
    out = ["--out", f"s3://{BUCKET}/jobs", "--name", "study", "--scratch", str(cluster.own)]
    code, said = cluster.wait(cluster.submit(*SEARCH, *out, "--trials", "3", "--seeds", "0"))
    assert code == 0, said
    assert "3 trials at a time of 1 thread on the cluster" in said
    trials = json.loads(s3.get("jobs/study/trials.json"))["trials"]
    assert {t["status"] for t in trials} <= {"finished", "stopped"}
    assert len({t["trial"] for t in trials}) == 3
    here = list(cluster.own.rglob("trial-*/.mirror.json"))  # a trial that ran elsewhere has its image there
    assert 1 <= len(here) <= 2, "trials of both nodes"
    for trial in trials:
        assert f"jobs/study/{trial['trial']}/seed-0/history.jsonl" in s3.keys("jobs/")


@pytest.mark.cluster  # two minutes
def test_trials_build_their_workers(cluster, tmp_path):
    more = ["--trials", "2", "--seeds", "0", "--workers", "2", "--name", "study", "--out", str(tmp_path)]
    code, said = cluster.wait(cluster.submit(*SEARCH, *more))
    assert code == 0, said
    assert "1 trial at a time with 2 workers of 1 thread on the cluster" in said
    stored = json.loads((tmp_path / "study" / "trials.json").read_text())
    assert {t["status"] for t in stored["trials"]} <= {"finished", "stopped"}
    assert len(stored["trials"]) == 2
    assert {t["epochs"] for t in stored["trials"] if t["status"] == "finished"} == {4}
    records = (tmp_path / "study" / stored["best"] / "seed-0" / "history.jsonl").read_text().splitlines()
    assert ["sys/sent_bytes" in json.loads(r) for r in records] == [True] * 4, "workers have trained"


@pytest.mark.cluster  # two minutes
def test_workers_keep_their_run_in_the_bucket(cluster, s3):
    """No folder is seen by both nodes; a stop writes a checkpoint there, from which the same job goes on."""
    out = ["--out", f"s3://{BUCKET}/jobs", "--name", "run", "--scratch", str(cluster.own)]
    grace = ["--runtime-env-json", json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})]
    train = [*TRAIN]
    train[train.index("--epochs") + 1] = "300"  # a stop takes seconds
    job, limit = cluster.submit(*train, *out, options=("--working-dir", ".", *grace)), time.monotonic() + 900
    while "seed 0  epoch 0" not in cluster.logs(job):
        assert cluster.info(job)["status"] in ("PENDING", "RUNNING"), cluster.logs(job)
        assert time.monotonic() < limit, cluster.logs(job)
        time.sleep(0.1)
    assert cluster.call("stop", job).returncode == 0
    marker = [key for key in s3.keys("jobs/run/seed-0/checkpoints/") if key.endswith("checksums.json")]
    assert marker, cluster.logs(job)
    code, said = cluster.wait(cluster.submit(*train, *out))
    assert code == 0, said
    assert "seed 0: resumed after epoch " in said
    keys = {key for key in s3.keys("jobs/run/") if not key.endswith("/")}  # pyarrow leaves empty ones for folders
    assert {"jobs/run/result.json", "jobs/run/seed-0/result.json", "jobs/run/seed-0/model/model.safetensors"} <= keys
    assert len(s3.get("jobs/run/seed-0/history.jsonl").decode().splitlines()) == 300
    assert not [key for key in keys if "/checkpoints/" in key or "/workers-" in key or key.endswith("/stop")]


@pytest.mark.cluster  # two minutes
def test_rows_of_users_go_from_the_ranks_to_the_bucket(cluster, s3):
    out = ["--out", f"s3://{BUCKET}/jobs", "--name", "users", "--scratch", str(cluster.own / "users")]
    small = ["--embedding-dim", "8", "--epochs", "1", "--epoch-steps", "2", "--no-report"]
    code, said = cluster.wait(cluster.submit(
        "python", "workflows/train.py", "twhin", "--dataset", "planted:users=200,notes=100,clusters=3",
        "--n-clusters", "3", "--parts", "2", "--workers", "2", "--threads", "1", "--seeds", "2", *small, *out,
    ))  # fmt: skip
    assert code == 0, said
    keys = {key.removeprefix("jobs/users/") for key in s3.keys("jobs/users/")}
    for table in ("assignments", "embeddings"):
        parts = [f"{table}/part-0000{part}.parquet" for part in (0, 1)]
        tables = [pq.read_table(io.BytesIO(s3.get(f"jobs/users/{part}"))) for part in parts]
        assert sum(each.num_rows for each in tables) == (400 if table == "assignments" else 200)
    assert {f"seed-1/more/part-0000{part}.npz" for part in (0, 1)} <= keys
    here = {path.relative_to(cluster.own).as_posix() for path in (cluster.own / "users").rglob("jobs/users/**/part-*")}
    assert {name.rpartition("/")[0].rpartition("/")[2] for name in here} == {"assignments"}, "for the report and MLflow"


def test_wrong_settings_are_the_drivers_exit_code(cluster):
    """The two searches are one job, which a shell runs one after the other."""
    own, search = str(cluster.own / "out"), [*SEARCH, "--trials", "2"]
    both = f"{shlex.join(search)} || echo code $?; {shlex.join([*search, '--out', own])}"
    unseen = f"error: --out {own}: several nodes take part and 127.0.0.3 does not see"
    thrown_away = "error: --out runs: is in the job's copy of --working-dir, which is thrown away; give an "
    jobs = [(cluster.submit("sh", "-c", both), [thrown_away, unseen]), (cluster.submit(*TRAIN, "--out", own), [unseen])]
    for job, expected in jobs:
        code, said = cluster.wait(job)
        assert (code, cluster.info(job)["status"]) == (2, "FAILED"), said
        assert said.count("code 2") == len(expected) - 1, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        for error, words in zip(errors, expected, strict=True):
            assert error.startswith(words), said
        assert "Traceback" not in said


def test_nobody_comes_in_without_the_token(cluster, tmp_path):
    other = tmp_path / "token"
    other.write_text("0" * 64)
    done = cluster.call("submit", "--", "python", "-V", RAY_AUTH_TOKEN_PATH=str(other))
    assert done.returncode != 0
    assert "AuthenticationError" in done.stderr
    done = subprocess.run(
        [sys.executable, str(PROJECT / "workflows" / "train.py"), "hsan", *TINY, "--out", str(tmp_path)],
        env=cluster.environment | {"RAY_AUTH_TOKEN_PATH": str(other), "RAY_ADDRESS": cluster.gcs}, text=True,
        capture_output=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert f"error: RAY_ADDRESS={cluster.gcs}: no Ray cluster can be used there (" in done.stderr


@pytest.mark.cluster  # two minutes
def test_a_killed_and_a_stopped_job_go_on_when_submitted_again(cluster, tmp_path):
    command = [*TRAIN, "--name", "run", "--out", str(tmp_path)]
    history = tmp_path / "run" / "seed-0" / "history.jsonl"
    grace = ["--runtime-env-json", json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})]

    def begun(word: str) -> str:
        job, limit = cluster.submit(*command, options=("--working-dir", ".", *grace)), time.monotonic() + 900
        while word not in cluster.logs(job) or lines(history) <= 6:
            assert cluster.info(job)["status"] in ("PENDING", "RUNNING"), cluster.logs(job)
            assert time.monotonic() < limit, cluster.logs(job)
            time.sleep(0.1)
        return job

    killed = begun("seed 0  epoch 0")
    os.kill(cluster.driver(killed), signal.SIGKILL)
    cluster.wait(killed)
    assert cluster.info(killed)["status"] == "FAILED"

    stopped = begun("seed 0: resumed after epoch")
    assert cluster.call("stop", stopped).returncode == 0
    assert cluster.info(stopped)["status"] == "STOPPED"
    said = cluster.logs(stopped)
    assert "resume with: python workflows/train.py hsan" in said
    at_stop = lines(history) - 1

    code, said = cluster.wait(cluster.submit(*command))
    assert code == 0, said
    assert f"seed 0: resumed after epoch {at_stop}" in said, "a stop writes a checkpoint"
    assert "on 2 workers of 1 thread of the cluster" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["resumed_from"]["0"]) == 2
    assert lines(history) == 50
