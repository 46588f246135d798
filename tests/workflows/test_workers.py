"""`workflows/train.py --workers 2`: real Ray Train workers; the run stopped, killed and resumed."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from processes import RAY, history, lines, until

from trainers import hsan

pytestmark = pytest.mark.slow

DATA = "planted:nodes=300,clusters=4,separation=1.5,mixing=0.4"
COMMON = ["hsan", "--dataset", DATA, "--preset", "none", "--embedding-dim", "32", "--threads", "1", "--no-report",
          "--no-explain", "--epochs", "60", "--update-every", "4", "--name", "run"]  # fmt: skip


def command(out: Path, *more: str) -> list[str]:
    return [*COMMON, "--out", str(out), *more]


@pytest.fixture(scope="module")
def undisturbed(nursery, tmp_path_factory):
    """A run of two workers that nobody touches, and what it printed."""
    out = tmp_path_factory.mktemp("undisturbed")
    ended = nursery.run(command(out, "--workers", "2"), imports=RAY)
    assert ended.code == 0, ended.err
    return out / "run", ended.out


def test_two_workers_say_what_they_send_and_find_what_one_process_finds(nursery, undisturbed, tmp_path):
    folder, out = undisturbed
    assert "on 2 workers of 1 thread, each sends " in out
    result = json.loads((folder / "result.json").read_text())
    records = [json.loads(line) for line in (folder / "seed-0" / "history.jsonl").read_text().splitlines()]
    from ops.data.load import load

    settings = hsan.Settings.model_validate({k: v["value"] for k, v in result["settings"].items()})
    assert {r["sys/sent_bytes"] for r in records} == {hsan.exchanged(settings, load(DATA)[0], 2)}
    assert not (folder / "seed-0" / "ray").exists()
    assert nursery.run(command(tmp_path, "--workers", "0")).code == 0
    alone = json.loads((tmp_path / "run" / "result.json").read_text())
    losses = [np.array([r["train/loss"] for r in history(f / "seed-0")[:4]]) for f in (folder, tmp_path / "run")]
    assert np.allclose(*losses, rtol=1e-5)
    assert result["last"]["acc"]["mean"] == pytest.approx(alone["last"]["acc"]["mean"], abs=0.05)
    assert result["cpu_seconds"] > 0


def test_a_stop_and_a_killed_driver_change_no_bit(nursery, undisturbed, tmp_path):
    """A killed worker: `test_users_faults`."""
    seen, argv = tmp_path / "run" / "seed-0" / "history.jsonl", command(tmp_path, "--workers", "2")

    def further() -> None:
        at = lines(seen)
        until(lambda: lines(seen) > at + 3 or nursery.ended())

    pid = nursery.start(argv, imports=RAY)
    further()
    os.kill(pid, signal.SIGTERM)
    ended = nursery.wait()
    assert ended.code == 130, ended.err
    assert "resume with: python" in ended.err
    pid = nursery.start(argv)
    further()
    os.kill(pid, signal.SIGKILL)
    assert nursery.kill().code == -signal.SIGKILL
    ended = nursery.run(argv)
    assert ended.code == 0, ended.err
    assert "seed 0: resumed after epoch" in ended.out
    folder, other = tmp_path / "run", undisturbed[0]
    assert len(json.loads((folder / "result.json").read_text())["resumed_from"]["0"]) == 2, "it began anew"
    assert history(folder / "seed-0") == history(other / "seed-0")
    assert pq.read_table(folder / "assignments.parquet").equals(pq.read_table(other / "assignments.parquet"))
    model = "model/model.safetensors"
    assert (folder / model).read_bytes() == (other / model).read_bytes()


def test_what_a_worker_raises_ends_the_run_with_its_own_code(nursery, tmp_path):
    ended = nursery.run(command(tmp_path, "--workers", "1", "--temperature", "0.01", "--lr", "1"), imports=RAY)
    assert ended.code == 5, ended.err
    assert "lower --lr or raise --temperature" in ended.err
    assert "Traceback" not in ended.err
