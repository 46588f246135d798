"""Users on partitions while things die: a shard's actor, a worker; the run ends as if nothing had."""

import json
import os
import signal
from pathlib import Path

import pytest
from planted_secrets import PASSWD, Runner, assert_nothing, contents, ray_sessions
from processes import RAY, below, lines, same_results, until, workers_below

pytestmark = pytest.mark.slow

DATA = "planted:users=300,notes=200,clusters=4,mixing=0.2,mean_edges=20"
HGT = ["hgt", "--dataset", DATA, "--epochs", "20", "--update-every", "4", "--parts", "2", "--workers", "2",
       "--threads", "1", "--hidden", "16", "--heads", "2", "--fan-out", "4,4", "--batch", "128", "--step-batches", "2",
       "--no-report", "--no-explain", "--name", "run"]  # fmt: skip


def as_undisturbed(one: Path, other: Path) -> None:
    same_results(one, other)
    for result in (json.loads((f / "result.json").read_text()) for f in (one, other)):
        assert "hgt + k-means" in [row["name"] for row in result["recall"]["rows"]]


@pytest.fixture(scope="module")
def watched(nursery, tmp_path_factory):
    """A run that nobody touches, with planted secrets: its folder, how it ended, Ray's sessions with their logs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with ray_sessions() as sessions:
        run = Runner(nursery, folder, sessions)
        argv = [*HGT, "--out", str(folder), f"--tracking-uri={PASSWD}"]
        ended = run("train", *argv, listeners=("TrainWorker", "PartService"))
        assert ended.code == 0, ended
        yield folder, ended, sessions


@pytest.fixture
def undisturbed(watched):
    return watched[0] / "run"


def test_two_workers_and_parts_served_by_actors_show_no_secret_and_no_port(watched):
    """The open ports are looked at while it runs."""
    folder, ended, sessions = watched
    assert "MLflow at mysql+pymysql://127.0.0.1:1/db?***" in ended.out + ended.err
    assert_nothing(contents(folder, sessions))


def test_a_killed_actor_and_a_killed_worker_change_nothing(nursery, undisturbed, tmp_path):
    seen = tmp_path / "run" / "seed-0" / "history.jsonl"
    pid = nursery.start([*HGT, "--out", str(tmp_path)], imports=RAY)
    until(lambda: lines(seen) > 3 or nursery.ended())
    actors = workers_below(pid, "PartService")
    assert len(actors) == 2
    idle = [title for title in below(pid).values() if "DatasetManager" in title or "GroupCleaner" in title]
    assert idle == [], "processes of Ray Train that have nothing to do"
    os.kill(actors[1], signal.SIGKILL)
    at = lines(seen)
    until(lambda: lines(seen) > at + 3 or nursery.ended())
    again = workers_below(pid, "PartService")
    assert len(again) == 2, "the part is served again"
    assert actors[1] not in again
    os.kill(workers_below(pid)[1], signal.SIGKILL)
    ended = nursery.wait()
    assert ended.code == 0, ended.err
    assert "a worker was lost; 2 workers start again from the checkpoint" in ended.err
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from"]["0"]
    as_undisturbed(tmp_path / "run", undisturbed)
