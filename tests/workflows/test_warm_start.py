"""`train.py --warm-start RUN` on a graph that has grown: ids stay, a killed run ends to the bit, mistakes are told."""

import json
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Shell
from grown_data import ALL, ALL_ROWS, FLAGS, GRAPH, NAMES, OLD, OLD_ROWS, edges_among, write_folder

from workflows import predict

pytestmark = pytest.mark.slow
MORE = ["--no-report", *FLAGS.split()]


@pytest.fixture(scope="module")
def run(nursery, tmp_path_factory):
    """Runs commands in a folder of this module."""
    return partial(nursery.run, folder=tmp_path_factory.mktemp("warm"))


@pytest.fixture(scope="module")
def world(run):
    """old/ and all/ (in another order), runs/a trained on old/ with the PCA that a warm start reuses."""
    folder = run.keywords["folder"]
    write_folder(folder / "old", OLD_ROWS, edges_among(OLD_ROWS))
    write_folder(folder / "all", ALL_ROWS[::-1], GRAPH.edge_index)
    command = ["hsan", "--dataset", "old", "--out", "runs", "--name", "a", "--pca-dim", "6", "--beta", "2", *MORE]
    ended = run(command)
    assert ended.code == 0, ended.err
    return folder


def warm(name: str, *more: str) -> list[str]:
    return ["hsan", "--dataset", "all", "--out", "runs", "--name", name, "--warm-start", "runs/a", "--epochs", "8",
            "--update-every", "3", "--threads", "1", "--no-report", *more]  # fmt: skip


def clusters(run: Path) -> pd.Series:
    return pd.read_parquet(run / "assignments.parquet").set_index("id").cluster


def test_ids_stay_a_kill_changes_nothing_and_predict_agrees(run, world, capsys, monkeypatch, tmp_path):
    ended = run(warm("b"))
    assert ended.code == 0, ended.err
    assert f"warm start from runs/a: {OLD} known nodes (matched by id), {ALL - OLD} new" in ended.out
    assert "of the shared nodes kept their cluster" in ended.out
    before, after = clusters(world / "runs/a"), clusters(world / "runs/b")
    share = (after[before.index] == before).mean()
    assert share > 0.9
    result = json.loads((world / "runs/b/result.json").read_text())
    assert result["warm"] == {"run": "runs/a", "known": OLD, "new": ALL - OLD, "gone": 0, "kept": [share]}
    # the run's settings are the start; flags win
    assert result["settings"]["beta"] == {"value": 2.0, "source": "warm start runs/a"}
    assert result["settings"]["epochs"] == {"value": 8, "source": "flag"}
    # killed in the middle and started again
    killed = run(warm("c"), event="open", part="checkpoints/.epoch-00000006", nth=1)
    assert killed.code == -signal.SIGKILL
    assert run(warm("c")).code == 0
    files = [(world / "runs" / n / "model/model.safetensors").read_bytes() for n in ("b", "c")]
    assert files[0] == files[1]
    pd.testing.assert_series_equal(clusters(world / "runs/c"), after)
    shell = Shell(capsys, monkeypatch, tmp_path)
    told = shell(f"{world}/runs/b --data {world}/all --out p.parquet --json", predict.main)
    assert json.loads(told.out)["changed"] == 0


def test_another_model_is_another_run_and_mistakes_end_in_one_line(run, world):
    assert run(["hsan", "--dataset", "old", "--out", "runs", "--name", "d", *MORE]).code == 0
    assert run(warm("e")).code == 0
    other = ["runs/d" if word == "runs/a" else word for word in warm("e", "--pca-dim", "6", "--beta", "2")]
    ended = run(other)
    assert (ended.code, "--pca-dim 6: runs/d was trained with 0" in ended.err) == (2, True)
    ended = run(["hsan", *other[1:-4], "--pca-dim", "0", "--beta", "2"])
    assert (ended.code, "is another run" in ended.err, "warm" in ended.err) == (2, True, True)
    write_folder(world / "renamed", ALL_ROWS, GRAPH.edge_index, [*NAMES[1:], NAMES[0]])
    np.save(write_folder(world / "nameless", ALL_ROWS[:0]) / "features.npy", GRAPH.x)
    (world / "nameless/features.csv").unlink()
    np.save(world / "nameless/edges.npy", GRAPH.edge_index)
    for words, code, message in (
        (["--dataset", "renamed"], 3, "column 0 is 'f1'"),
        (["--dataset", "nameless"], 3, "has no ids"),
        (["--dataset", "planted:nodes=90,clusters=3"], 3, "64 features"),
        (["--warm-start", "runs/nothing"], 3, "no such folder"),
        (["--embedding-dim", "9"], 2, "was trained with 8"),
    ):
        ended = run(warm("f", *words))
        assert ended.code == code
        assert message in ended.err
        assert len([line for line in ended.err.splitlines() if line.startswith("error: ")]) == 1
