"""Users on partitions while things die: a shard's actor, a worker, a whole node; the run ends as if nothing had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import TRAIN, environment, history, lines, until
from ray_world import Cluster
from test_workers import finish, train_workers

pytestmark = pytest.mark.slow

DATA = "planted:users=400,notes=250,clusters=4,mixing=0.2,mean_edges=20"
HGT = ["hgt", "--dataset", DATA, "--epochs", "24", "--update-every", "4", "--parts", "3", "--workers", "2",
       "--threads", "1", "--hidden", "16", "--heads", "2", "--fan-out", "4,4", "--batch", "128", "--step-batches", "2",
       "--no-report", "--no-explain", "--name", "run"]  # fmt: skip


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(TRAIN), *HGT, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), cwd=out, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]


def below(root: int) -> dict[int, str]:
    """All processes below `root`, by pid, with their titles."""
    parents, titles = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            titles[pid] = (stat.parent / "cmdline").read_text().split("\0")[0]
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: titles[pid] for pid in found if pid in titles}


def shard_actors(root: int) -> list[int]:
    """The pids of the actors that serve parts."""
    return sorted(pid for pid, title in below(root).items() if title.startswith("ray::PartService"))


def same_results(one: Path, other: Path) -> None:
    """Everything a run leaves but for what a machine's speed decides."""
    assert history(one / "seed-0") == history(other / "seed-0")
    for file in ("assignments", "embeddings"):  # folders of parts
        assert pq.read_table(one / file).equals(pq.read_table(other / file))
    model = "model/model.safetensors"
    assert (one / model).read_bytes() == (other / model).read_bytes()
    for result in (json.loads((f / "result.json").read_text()) for f in (one, other)):
        assert result["recall"]["rows"][2]["name"] == "hgt + k-means"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    finish(start(out))
    return out / "run"


def test_a_killed_actor_and_a_killed_worker_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    seen = tmp_path / "run" / "seed-0" / "history.jsonl"
    try:
        until(lambda: lines(seen) > 3 or process.poll() is not None)
        actors = shard_actors(process.pid)
        assert len(actors) == 3
        os.kill(actors[1], signal.SIGKILL)
        at = lines(seen)
        until(lambda: lines(seen) > at + 3 or process.poll() is not None)
        again = shard_actors(process.pid)
        assert len(again) == 3, "the part is served again"
        assert actors[1] not in again
        os.kill(train_workers(process.pid)[1], signal.SIGKILL)
    finally:
        _, err = finish(process)
    assert "a worker was lost; 2 workers start again from the checkpoint" in err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from"]["0"]
    same_results(tmp_path / "run", undisturbed)


@pytest.fixture
def cluster(tmp_path: Path):
    """A head for the driver and two nodes for all that works."""
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if not sys.platform.startswith("linux") or probe.returncode:
        pytest.skip("other nodes need mount namespaces of their own, which only root may make")
    made = Cluster(1, 2, 2)
    yield made
    made.stop()


@pytest.mark.cluster
def test_a_node_that_dies_changes_nothing(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    job = cluster.submit("python", "workflows/train.py", *HGT, "--out", str(tmp_path))
    seen, limit = tmp_path / "run" / "seed-0" / "history.jsonl", time.monotonic() + 400
    while lines(seen) <= 3:
        assert cluster.info(job)["status"] in ("PENDING", "RUNNING"), cluster.logs(job)
        assert time.monotonic() < limit, cluster.logs(job)
        time.sleep(0.05)
    roots = [process.pid for process in cluster.processes[1:]]
    ours = "ray::PartService", "ray::RayTrainWorker"
    at_work = [[title for title in below(root).values() if title.startswith(ours)] for root in roots]
    node = max((0, 1), key=lambda i: len(at_work[i]))
    assert any("TrainWorker" in title for title in at_work[node]), at_work
    for pid in below(roots[node]):
        os.kill(pid, signal.SIGKILL)
    code, said = cluster.wait(job, 400)
    assert code == 0, said
    assert "a worker was lost; 2 workers start again from the checkpoint" in said
    same_results(tmp_path / "run", undisturbed)
