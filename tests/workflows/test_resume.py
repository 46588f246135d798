"""`workflows/train.py` killed at any moment and started again ends as if nothing had happened. Real processes only."""

import json
import os
import re
import shlex
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Shell
from processes import history, lines, recorded, rows, tree, until

from ops.storage.status import STATUS

pytestmark = pytest.mark.slow

DATA = "planted:nodes=200,clusters=4,separation=1.5,mixing=0.4"  # hard enough for clusters to change while training
EPOCHS, EVERY = 11, 3
COMMON = ["hsan", "--dataset", DATA, "--preset", "none", "--embedding-dim", "16", "--threads", "1", "--no-report"]


def command(out: Path, *more: str) -> list[str]:
    return [*COMMON, "--out", str(out), "--epochs", str(EPOCHS), "--update-every", str(EVERY), *more]


@pytest.fixture(scope="module")
def quiet_out(tmp_path_factory):
    """Where the undisturbed runs are."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Where the disturbed runs are, with one MLflow database for all."""
    return tmp_path_factory.mktemp("disturbed")


def same_run(one: Path, other: Path) -> None:
    """All that a user keeps of two runs is equal, to the bit."""
    tables = [pq.read_table(p / "assignments.parquet") for p in (one, other)]
    assert tables[0].column_names == ["seed", "id", "cluster", "confidence"]
    assert tables[0].equals(tables[1])
    results = [json.loads((p / "result.json").read_text()) for p in (one, other)]
    for key in ("seeds", "last", "selected", "oracle", "baselines", "stability", "model_seed", "warnings", "settings"):
        assert results[0][key] == results[1][key], key
    for model in ["model", *(f"seed-{s}/model" for s in results[0]["seeds"])]:
        files = [(p / model / "model.safetensors").read_bytes() for p in (one, other)]
        assert files[0] == files[1], model
    for seed in results[0]["seeds"]:
        assert history(one / f"seed-{seed}") == history(other / f"seed-{seed}")


def in_mlflow(folder: Path, extended: bool = False) -> None:
    """The run in MLflow: nested, FINISHED, every record there, none twice but an `extended` run's changed figures."""
    runs = tree(folder.parent / "mlflow.db")
    seeds = sorted(p.name for p in folder.glob("seed-*"))
    keys = [folder.name, *(f"{folder.name}/{seed}" for seed in seeds)]
    for key, path in zip(keys, [folder, *(folder / s for s in seeds)], strict=True):
        run = runs[key]
        assert run["parent"] == (None if key == folder.name else folder.name)
        assert run["status"] == "FINISHED", key
        assert recorded(path) == set(run["metrics"])
        if not (extended and path == folder):
            assert set(run["metrics"].values()) == {1}, f"{key}: a metric stands twice"
    assert sum(key.startswith(f"{folder.name}/") for key in runs) == len(seeds)


# A kill just before the first change to a file whose event and path hold the text.
MOMENTS = {
    "while the first checkpoint is written": ("os.rename", "checkpoints/epoch-00000000"),
    "while a later one is written": ("open", "checkpoints/.epoch-00000006"),
    "while an old one is removed": ("os.rmdir", "checkpoints/epoch-00000000"),
    "while a seed's results are written": ("os.rename", "seed-0/result.json"),
    "behind a seed's results": ("os.rmdir", "seed-0/checkpoints/epoch-00000010"),
    "between the seeds": ("os.mkdir", "seed-1"),
    "while the run's results are written": ("os.rename", "assignments.parquet"),
    "while the last file is written": ("os.rename", "killed/result.json"),
    "behind the results, while they are recorded for MLflow": ("read", "killed/assignments.parquet"),
}


# Somewhere before some moments too, so few changes on that they do not lead beyond.
ANYWHERE = {0: 5, 2: 3, 3: 7, 6: 5}


def test_a_killed_run_ends_as_an_undisturbed_one(nursery, quiet_out, out, tmp_path):
    """Every mode's bits after any epoch: `trainers/test_every_method.py`."""
    diary = tmp_path / "diary"
    assert nursery.run(command(quiet_out, "--name", "killed", "--seeds", "2"), diary=diary).code == 0
    changes = diary.read_text().splitlines()
    again = command(out, "--name", "killed", "--seeds", "2")
    folder = out / "killed"
    for number, (moment, (event, part)) in enumerate(MOMENTS.items()):
        assert any(line.startswith(event) and part in line for line in changes), f"never happens: {moment}"
        if number in ANYWHERE:
            ended = nursery.run(again, nth=ANYWHERE[number])
            assert ended.code == -signal.SIGKILL, f"before {moment}: {ended}"
        ended = nursery.run(again, event=event, part=part, nth=1)
        assert ended.code == -signal.SIGKILL, f"{moment}: {ended}"
    ended = nursery.run(again)
    assert ended.code == 0, ended.err
    same_run(folder, quiet_out / "killed")
    result = json.loads((folder / "result.json").read_text())
    assert result["resumed_from"]["0"], "no seed went on from a checkpoint"
    assert all(e % EVERY == 0 or e == EPOCHS - 1 for seed in result["resumed_from"].values() for e in seed)
    for seed in (0, 1):
        assert [r["epoch"] for r in history(folder / f"seed-{seed}")] == list(range(EPOCHS))
    assert not list(folder.rglob("*.tmp")), "a temporary file is left"
    assert not list(folder.rglob("checkpoints"))
    in_mlflow(folder)


def test_a_run_killed_by_the_clock_while_it_starts_ends_as_an_undisturbed_one(nursery, quiet_out, out):
    undisturbed = nursery.run(command(quiet_out, "--name", "killed", "--seeds", "2"))  # finished, if the test above ran
    assert undisturbed.code == 0, undisturbed.err
    again = command(out, "--name", "early", "--seeds", "2")
    for pause in (0.0, 0.02, 0.2):
        pid = nursery.start(again)
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        assert nursery.wait().code == -signal.SIGKILL
    assert nursery.run(again).code == 0
    same_run(out / "early", quiet_out / "killed")
    in_mlflow(out / "early")


LONG = ["--epochs", "60", "--update-every", "50"]  # a stop falls between the updates


def told(err: str) -> tuple[int, list[str]]:
    """The epoch a stopped command names, and the arguments of the command that it says to resume with."""
    epoch = re.search(r"stopped after epoch (\d+) of seed 0; the checkpoint is kept", err)
    assert epoch, err
    line = err.splitlines()[-1]
    assert line.startswith("resume with: python "), err
    return int(epoch[1]), shlex.split(line)[4:]


def stopped_at(folder: Path, epoch: int) -> None:
    """The folder has a checkpoint of that very epoch, and nothing later."""
    assert history(folder / "seed-0")[-1]["epoch"] == epoch
    assert sorted(p.name for p in (folder / "seed-0" / "checkpoints").iterdir())[-1] == f"epoch-{epoch:08d}"
    states = [json.loads((p / STATUS).read_text())["state"] for p in (folder, folder / "seed-0")]
    assert states == ["KILLED", "KILLED"]


def test_sigterm_checkpoints_the_epoch_and_a_second_start_is_refused(nursery, quiet_out, tmp_path, capsys, monkeypatch):
    own = tmp_path / "a folder's runs"  # the command to resume with must survive a shell
    argv = command(own, *LONG, "--name", "long", "--fresh")
    pid = nursery.start(argv)
    until(lambda: lines(own / "long" / "seed-0" / "history.jsonl") >= 4 or nursery.ended())
    os.kill(pid, signal.SIGSTOP)
    second = Shell(capsys, monkeypatch, tmp_path)(shlex.join(command(own, *LONG, "--name", "long")))
    assert second.code == 2
    assert f"process {pid} is at work on this run" in second.err
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    ended = nursery.wait()
    assert ended.code == 130
    epoch, again = told(ended.err)
    stopped_at(own / "long", epoch)
    assert 3 <= epoch < 59
    assert "--fresh" not in again
    ended = nursery.run(again)
    assert ended.code == 0, ended.err
    assert f"seed 0: resumed after epoch {epoch}" in ended.out
    assert json.loads((own / "long" / "result.json").read_text())["resumed_from"] == {"0": [epoch]}
    assert nursery.run(command(quiet_out, *LONG, "--name", "long")).code == 0
    same_run(own / "long", quiet_out / "long")
    in_mlflow(own / "long")


def test_ctrl_c_stops_after_the_epoch_the_second_at_once_and_other_threads_are_warned_of(nursery, out):
    argv = command(out, *LONG, "--name", "ctrl-c")
    path = out / "ctrl-c" / "seed-0" / "history.jsonl"
    pid = nursery.start(argv)
    until(lambda: lines(path) >= 4)
    os.kill(pid, signal.SIGINT)
    ended = nursery.wait()
    assert ended.code == 130
    epoch, again = told(ended.err)
    stopped_at(out / "ctrl-c", epoch)

    pid = nursery.start(again)
    until(lambda: lines(path) >= epoch + 4)
    os.kill(pid, signal.SIGSTOP)  # both arrive before the next report, one of each kind so that neither is lost
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    ended = nursery.wait()
    assert ended.code == 130
    assert "interrupted" in ended.err.splitlines()
    assert ended.err.splitlines()[-1] == "resume with: " + shlex.join(["python", "workflows/train.py", *again])
    assert not (out / "ctrl-c" / "seed-0" / "result.json").exists()

    ended = nursery.run([*again, "--threads", "2"])
    assert ended.code == 0
    assert f"seed 0: resumed after epoch {epoch}" in ended.out
    assert "warning: seed 0 began with 1 threads and goes on with 2" in ended.err


@pytest.mark.parametrize("part", ["early", "seed-0/result.json", "assignments.parquet"])
def test_sigterm_outside_the_epochs_is_an_interrupt_too(nursery, out, part):
    """Before the run's folder is made, while a seed's or the run's results are written."""
    name = "early-" + part.partition("/")[0]
    argv = command(out, "--name", name)
    ended = nursery.run(argv, part=part, nth=1, sent=signal.SIGTERM)
    assert ended.code == 130, ended
    assert "resume with: " in ended.err
    assert nursery.run(argv).code == 0
    in_mlflow(out / name)


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes())
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_finished_runs_are_shown_extended_refused_and_done_again(nursery, tmp_path):
    folder = tmp_path / "one"
    argv = command(tmp_path, "--name", "one", "--seeds", "2")
    assert nursery.run(argv).code == 0
    seeds = [files_of(folder / f"seed-{s}") for s in (0, 1)]
    first = files_of(folder)

    ended = nursery.run(argv)
    assert ended.code == 0
    stored = json.loads((folder / "result.json").read_text())
    assert f"finished on {stored['finished']} with seeds" in ended.out
    assert {k: v for k, v in files_of(folder).items() if k != ".lock"} == {
        k: v for k, v in first.items() if k != ".lock"
    }

    ended = nursery.run(command(tmp_path, "--name", "one", "--seeds", "3"))
    assert ended.code == 0
    assert [files_of(folder / f"seed-{s}") for s in (0, 1)] == seeds
    result = json.loads((folder / "result.json").read_text())
    assert result["seeds"] == [0, 1, 2]
    assert len(result["last"]["acc"]["values"]) == 3
    assert result["last"]["acc"]["values"][:2] == stored["last"]["acc"]["values"]
    assert sorted(set(pq.read_table(folder / "assignments.parquet")["seed"].to_pylist())) == [0, 1, 2]
    in_mlflow(folder, extended=True)
    shown = "SELECT value FROM latest_metrics JOIN runs USING (run_uuid) WHERE name = 'one' AND key = 'last/acc'"
    assert rows(tmp_path / "mlflow.db", shown) == [(pytest.approx(result["last"]["acc"]["mean"], abs=1e-12),)]
    assert result["last"]["acc"]["mean"] != stored["last"]["acc"]["mean"], "else this shows nothing"
    tag = "SELECT value FROM tags JOIN runs USING (run_uuid) WHERE name = 'one' AND key = 'seeds'"
    assert rows(tmp_path / "mlflow.db", tag) == [("3",)]

    ended = nursery.run(command(tmp_path, "--name", "one", "--temperature", "0.5"))
    assert ended.code == 2
    assert "temperature (1.0 there, 0.5 now) differ; give another --name, or --fresh" in ended.err
    assert len(ended.err.splitlines()) == 1

    ended = nursery.run([*argv, "--fresh"])
    assert ended.code == 0
    assert "resumed" not in ended.out
    renewed = json.loads((folder / "result.json").read_text())
    assert renewed["resumed_from"] == {"0": [], "1": []}
    assert renewed["last"] == stored["last"]
    assert not (folder / "seed-2").exists()
    assert all(files_of(folder / f"seed-{s}")["history.jsonl"][0] > seeds[s]["history.jsonl"][0] for s in (0, 1))
