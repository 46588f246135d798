"""One seed over several workers, without Ray: one run and one checkpoint of all ranks, what the driver hears of it."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import run_in_processes

from ops.api import State
from ops.clustering.owners import Owners
from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import LaunchSettings
from ops.distributed.resources import Workers
from ops.errors import DivergedError, Interrupted, ResourceError
from ops.evaluation.labelled import evaluator
from ops.training import ray_train, seed_run
from ops.training.checkpoint import WorkerCheckpoints, drop, load_latest
from ops.training.experiment import Hooks, Judges, Worker, build_experiment
from ops.training.rank_zero import Follower, reporter
from ops.training.seed_run import SeedRun
from trainers import hsan

pytestmark = pytest.mark.slow

CLUSTERS = np.repeat([0, 1], 5)


def judges():
    return Judges(
        lambda clusters, embeddings: {"size_max": 5.0, "score": 0.5}, evaluator(CLUSTERS), 2, Owners.alone(10)
    )


def state_of(rank, epoch):
    """Each rank has a part of its own, and something that only rank 0's counts of."""
    return State(epoch, {"w": torch.full((3,), float(rank))}, {rank: {"t": torch.full((2,), 10 * rank + epoch)}})


def trained(rank, world, folder, last, checkpoints=True):
    """What a worker's run ends with when rank 0 is asked to stop after epoch `last`."""
    import ray.train

    def upload(metrics, checkpoint, checkpoint_dir_name):  # as Ray Train does with every rank's files
        dist.barrier()
        shutil.copytree(checkpoint.path, Path(folder) / "checkpoints" / checkpoint_dir_name, dirs_exist_ok=True)

    ray.train.report = upload
    seed_run.CHECKPOINT_SECONDS = 0
    kept = WorkerCheckpoints(Path(folder) / "checkpoints", rank, world, by_part=True) if checkpoints else None
    run = SeedRun(
        Path(folder), 0, 9, judges() if rank == 0 else None, Console(quiet=True),
        Hooks(stop=lambda: run.history[-1]["epoch"] == last), Worker(rank, world, checkpoints=kept),
    )  # fmt: skip
    start = -1 if run.start is None else run.start.epoch
    try:
        for epoch in range(start + 1, 9):
            run.report(epoch, {"train/loss": 1.0 / (epoch + 1)}, CLUSTERS, lambda now=epoch: state_of(rank, now))
    except Interrupted as error:
        return start, str(error), sorted(run.start.parts) if run.start else []
    return start, "", sorted(run.start.parts) if run.start else []


def test_ranks_share_one_run_and_one_checkpoint(tmp_path):
    """Rank 0 decides and keeps the records; every rank writes its part; all stop together and go on together."""
    ends = run_in_processes(2, trained, str(tmp_path), 4)
    assert [end[:2] for end in ends] == [(-1, "stopped after epoch 4 of seed 0; the checkpoint is kept")] * 2
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-00000003", "epoch-00000004"]
    files = sorted(p.name for p in (tmp_path / "checkpoints" / names[-1]).iterdir())
    assert files == [
        "checksums.json", "part-00000.safetensors", "part-00001.safetensors", "shared.json", "shared.safetensors",
    ]  # fmt: skip
    state = load_latest(tmp_path / "checkpoints")
    assert state.shared["w"].tolist() == [0.0] * 3, "rank 0's"
    assert {part: arrays["t"].tolist() for part, arrays in state.parts.items()} == {0: [4, 4], 1: [14, 14]}
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 5
    (tmp_path / "checkpoints" / names[-1] / "part-00001.safetensors").write_bytes(b"")  # rank 0 does not read it
    with pytest.warns(UserWarning, match="epoch-00000004 is damaged"):
        assert load_latest(tmp_path / "checkpoints").epoch == 3
    ends = run_in_processes(2, trained, str(tmp_path), 6)
    assert [(end[0], end[2]) for end in ends] == [(3, [0]), (3, [1])], "both from the one before, each its own part"
    with SeedRun(tmp_path, 0, 9, judges(), Console(quiet=True), Hooks(), Worker()) as run:  # another number of workers
        assert (run.start.epoch, sorted(run.start.parts), run.resumed_from) == (6, [0, 1], [3, 6])
    assert [r["epoch"] for r in run.history] == list(range(7))
    drop(tmp_path / "checkpoints")
    assert not (tmp_path / "checkpoints").exists()


def test_the_driver_hears_what_rank_0_says_and_asks_it_to_stop(tmp_path):
    (tmp_path / "stop").touch()
    (tmp_path / "workers-1.jsonl").write_text('{"kind": "say", "text": "of an earlier start"}\n')
    follower = Follower(tmp_path, None)
    assert list(follower.events()) == []
    with reporter(tmp_path, None) as first:
        first.say("resumed")
        first.progress("epoch 1", milestone=True)
        assert [e["kind"] for e in follower.events()] == ["say", "progress"]
        first.record({"epoch": 1, "train/loss": float("nan")})
        first.saved()
        assert not first.stop()
        record, saved = follower.events()
        assert np.isnan(record["record"]["train/loss"])
        assert saved == {"kind": "saved"}
        follower.ask_stop()
        assert first.stop()
        with next(tmp_path.glob("workers-*")).open("a") as file:
            file.write('{"kind": "wa')
        assert list(follower.events()) == [], "half a line is no line"
    with reporter(tmp_path, None) as second:
        second.warn("again")
    assert list(follower.events(last=True)) == [{"kind": "lost"}, {"kind": "warn", "text": "again"}]
    follower.clear()
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_on_s3_the_driver_copies_what_rank_0_sends(s3, tmp_path):
    from s3_world import BUCKET

    from ops.storage.location import parse

    place = parse(f"s3://{BUCKET}/run/seed-0")
    s3.put("run/seed-0/resumed.json", b"[3]")
    s3.put("run/seed-0/stop", b"")
    s3.put("run/seed-0/checkpoints/epoch-00000003/shared.json", b"{}")
    follower = Follower(tmp_path, place, skip=(ray_train.PARTS,))
    with reporter(tmp_path, place) as rank_0:
        assert rank_0.folder != tmp_path
        assert (rank_0.folder / "resumed.json").read_text() == "[3]"
        (rank_0.folder / "result.json").write_text("{}")
        (rank_0.folder / "more").mkdir()
        (rank_0.folder / "more" / "part-00000.npz").touch()
        rank_0.saved()
    assert list(follower.events(last=True)) == [{"kind": "saved"}]
    assert not (tmp_path / "more").exists(), "what ranks own stays where they have sent it"
    assert (tmp_path / "result.json").read_text() == "{}"
    assert not (tmp_path / "checkpoints").exists()
    follower.ask_stop()
    assert "run/seed-0/stop" in s3.keys("run/")
    follower.clear()
    assert sorted(s3.keys("run/")) == [
        "run/seed-0/checkpoints/epoch-00000003/shared.json", "run/seed-0/more/part-00000.npz", "run/seed-0/result.json",
        "run/seed-0/resumed.json",
    ]  # fmt: skip


def test_labels_go_to_rank_0_only_and_passwords_to_nobody(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr("ray.train.torch.TorchTrainer", lambda loop, **named: given.update(named))
    monkeypatch.setattr("ray.put", lambda value: value)
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--tracking-uri", "http://me:geheim@127.0.0.1:1"]
    request = resolve(argv, hsan.METHOD, LaunchSettings, tmp_path, "")
    experiment = build_experiment(hsan.METHOD, request, Console(quiet=True))
    snapshot = tmp_path / "checkpoints" / ray_train.SNAPSHOT
    snapshot.parent.mkdir()
    snapshot.touch()
    ray_train._trainer(experiment, Workers(2, 1), 0, tmp_path, None)
    config = given["train_loop_config"]
    assert config["judged"][0].tolist() == experiment.labels.tolist()
    seen_by_all = config["experiment"]
    assert (seen_by_all.labels, seen_by_all.hidden) == (None, None)
    assert "geheim" not in repr(seen_by_all)
    assert (given["run_config"].storage_path, given["run_config"].name) == (str(tmp_path), "checkpoints")
    assert not snapshot.exists(), "Ray Train would go on with an earlier start's checkpoints"


@pytest.mark.parametrize(("ended", "error", "words"), [
    ("stopped after epoch 3", Interrupted, "stopped after epoch 3"),
    (SimpleNamespace(controller_failure=DivergedError("lower --lr")), DivergedError, "lower --lr"),
    (RuntimeError("first\nlast line\n"), ResourceError, "the workers ended without a result: last line"),
    (None, ResourceError, "no word from Ray"),
    (RuntimeError(), ResourceError, "no word from Ray"),  # an error without words
    (RuntimeError("5 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1, "
                  "ID: 3e7) was 22.49GB used / 23.54GB limit (0.955230)\nOOM kill reason: ...\nRefer to the docs"),
     ResourceError, r"as its machine has hardly any memory left \(22.49GB used / 23.54GB limit, other programs"),
])  # fmt: skip
def test_how_a_training_ends(ended, error, words):
    with pytest.raises(error, match=words):
        ray_train._outcome(ended)


def test_an_error_of_the_user_ends_the_run_and_others_are_tried_again():
    ending = ray_train._ending()
    ending.after_exception(None, {0: RuntimeError("a bug"), 1: OSError("lost")})
    with pytest.raises(DivergedError, match="lower --lr"):
        ending.after_exception(
            None, {0: RuntimeError("lost"), 1: SimpleNamespace(_base_exc=DivergedError("lower --lr"))}
        )
