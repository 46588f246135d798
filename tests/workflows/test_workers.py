"""`workflows/train.py --workers 2`: real Ray Train workers; one killed, the whole run stopped, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from processes import TRAIN, end_group, environment, history, lines, until

from trainers import hsan

pytestmark = pytest.mark.slow

DATA = "planted:nodes=700,clusters=4,separation=1.5,mixing=0.4"
COMMON = ["hsan", "--dataset", DATA, "--preset", "none", "--embedding-dim", "128", "--threads", "1", "--no-report",
          "--epochs", "45", "--update-every", "4"]  # fmt: skip


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(TRAIN), *COMMON, "--out", str(out), "--name", "run", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), cwd=out, text=True, start_new_session=True, **pipes)  # type: ignore[call-overload,no-any-return]


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=240)
    finally:
        end_group(process)
    assert process.returncode == code, err
    return out, err


def train_workers(driver: int) -> list[int]:
    """Pids of the Ray Train workers below the process `driver`."""
    parents, titles = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid = int(stat.parent.name)
            parents[pid] = int(stat.read_text().rpartition(")")[2].split()[1])
            titles[pid] = (stat.parent / "cmdline").read_text()
        except OSError:
            continue

    def below(pid: int) -> bool:
        while pid in parents:
            if pid == driver:
                return True
            pid = parents[pid]
        return False

    return [pid for pid, title in titles.items() if title.startswith("ray::") and "TrainWorker" in title and below(pid)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two workers that nobody touches, and what it printed."""
    out = tmp_path_factory.mktemp("undisturbed")
    return out / "run", finish(start(out, "--workers", "2"))[0]


def assert_same(one: Path, other: Path) -> None:
    assert history(one / "seed-0") == history(other / "seed-0")
    assert pq.read_table(one / "assignments.parquet").equals(pq.read_table(other / "assignments.parquet"))
    model = "model/model.safetensors"
    assert (one / model).read_bytes() == (other / model).read_bytes()


def test_two_workers_say_what_they_send_and_find_what_one_process_finds(undisturbed, tmp_path):
    folder, out = undisturbed
    assert "on 2 workers of 1 thread, each sends " in out
    result = json.loads((folder / "result.json").read_text())
    sent = {
        r["sys/sent_bytes"] for r in map(json.loads, (folder / "seed-0" / "history.jsonl").read_text().splitlines())
    }
    from ops.data.load import load

    settings = hsan.Settings.model_validate({k: v["value"] for k, v in result["settings"].items()})
    assert sent == {hsan.exchanged(settings, load(DATA)[0], 2)}
    assert not (folder / "seed-0" / "ray").exists()
    finish(start(tmp_path, "--workers", "0"))
    alone = json.loads((tmp_path / "run" / "result.json").read_text())
    losses = [np.array([r["train/loss"] for r in history(f / "seed-0")[:4]]) for f in (folder, tmp_path / "run")]
    assert np.allclose(*losses, rtol=1e-5)
    assert result["last"]["acc"]["mean"] == pytest.approx(alone["last"]["acc"]["mean"], abs=0.05)
    assert result["cpu_seconds"] > 0


def test_a_killed_worker_is_replaced_and_the_result_is_that_of_an_undisturbed_run(undisturbed, tmp_path):
    process = start(tmp_path, "--workers", "2")
    try:
        until(lambda: lines(tmp_path / "run" / "seed-0" / "history.jsonl") > 6)
        workers = train_workers(process.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
    finally:
        _, err = finish(process)
    assert "a worker was lost; 2 workers start again from the checkpoint" in err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["resumed_from"]["0"], "it began anew"
    assert_same(tmp_path / "run", undisturbed[0])


def test_a_stopped_run_and_a_killed_driver_go_on_with_the_same_command(undisturbed, tmp_path):
    process = start(tmp_path, "--workers", "2")
    until(lambda: lines(tmp_path / "run" / "seed-0" / "history.jsonl") > 6)
    process.send_signal(signal.SIGTERM)
    _, err = finish(process, 130)
    assert "resume with: python" in err
    process = start(tmp_path, "--workers", "2")
    at = lines(tmp_path / "run" / "seed-0" / "history.jsonl")
    until(lambda: lines(tmp_path / "run" / "seed-0" / "history.jsonl") > at + 4)
    process.kill()
    finish(process, -signal.SIGKILL)
    out, _ = finish(start(tmp_path, "--workers", "2"))
    assert "seed 0: resumed after epoch" in out
    assert_same(tmp_path / "run", undisturbed[0])


def test_what_a_worker_raises_ends_the_run_with_its_own_code(tmp_path):
    _, err = finish(start(tmp_path, "--workers", "2", "--temperature", "0.01", "--lr", "1"), 5)
    assert "lower --lr or raise --temperature" in err
    assert "Traceback" not in err
