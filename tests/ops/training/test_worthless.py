"""Input or a result that is no clustering at all: the verdict says so, `--stop-on-collapse` ends with exit 5."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from small_run import GRAPH, N, experiment

from ops.api import Result, State
from ops.errors import DivergedError
from ops.reporting.tables import result_rows
from ops.results.schema import SeedResult
from ops.results.statistics import faults, shrunken
from ops.training.trainer import run_experiment
from trainers import METHODS
from trainers.before_collapse import BeforeCollapse
from trainers.shared import Evaluation, is_due, run_epochs

pytestmark = pytest.mark.usefixtures("untracked")


def in_one_cluster(settings, data, run):
    """A method whose last epoch puts all rows into one cluster."""
    result = METHODS["hsan"].train(settings, data, run)
    return replace(result, assignment=np.zeros(N, np.int64))


COLLAPSING = replace(METHODS["hsan"], train=in_one_cluster)
WORTHLESS = [
    ({"x": np.zeros_like(GRAPH.x)}, "all rows have the same features"),
    ({"x": np.full_like(GRAPH.x, 3.5)}, "all rows have the same features"),
    ({"method": COLLAPSING}, "all rows are in one cluster of 2"),
]


class Halves:
    """A trainer of one weight, the epoch: two clusters of equal size, which are one from epoch 3 on."""

    def __init__(self):
        self.weight = torch.zeros(1)

    def epoch(self, epoch):
        self.weight.fill_(epoch)
        return {"train/loss": 1.0}

    def clusters(self):
        return np.arange(N) % 2 if self.weight < 3 else np.zeros(N, np.int64)

    def evaluate(self, epoch):
        return Evaluation(self.clusters()) if is_due(epoch, 2, 4) else None

    def state(self, epoch):
        return State(epoch, {})

    def result(self):
        rows = np.full((N, 4), float(self.weight), np.float32)
        return Result(self.clusters(), np.ones(N, np.float32), rows, {"weight": self.weight.clone()})


def collapsing_at_the_end(settings, data, run):
    trainer = Halves()
    return run_epochs(BeforeCollapse(trainer, {"weight": trainer.weight}, settings.k, run), run, settings.epochs)


def test_the_result_is_that_of_the_last_epoch_before_a_collapse_and_says_so(tmp_path, capsys) -> None:
    method = replace(METHODS["hsan"], train=collapsing_at_the_end)
    asked = experiment(tmp_path, method=method, stop_on_collapse=True)
    _, result = run_experiment(asked, tmp_path)  # it is no result of one cluster, at which this would stop
    words = "a cluster has shrunk to 0 rows (the mean is 20) since epoch 2: the result is that of epoch 2"
    assert json.loads((tmp_path / "a/result.json").read_text())["taken"] == {"0": words}
    assert f"warning: seed 0: {words}" in capsys.readouterr().err
    assert (result.last.epochs, result.last.means["size_min"]) == ([2], N / 2)
    assert result_rows(result)[0].note == "the last epoch, or the last before a collapse (epoch 2): the result"
    assert load_file(tmp_path / "a/model/model.safetensors")["weight"] == 2
    assert pq.read_table(tmp_path / "a/assignments.parquet")["cluster"].to_pylist() == [0, 1] * (N // 2)
    relabelled = replace(asked, labels=1 - asked.labels)  # scores are computed anew, of the same epoch
    assert run_experiment(relabelled, tmp_path)[1].last.epochs == [2]


@pytest.mark.parametrize(("changes", "words"), WORTHLESS)
def test_the_verdict_says_so_first(tmp_path, capsys, changes, words):
    _, result = run_experiment(experiment(tmp_path, **changes), tmp_path)
    assert result.verdict.startswith(words)
    assert "warning: " in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "words"), WORTHLESS[1:])
def test_a_user_who_asked_to_stop_gets_exit_5(tmp_path, changes, words):
    with pytest.raises(DivergedError, match=r"same features|in one cluster of 2") as stopped:
        run_experiment(experiment(tmp_path, stop_on_collapse=True, **changes), tmp_path)
    assert stopped.value.code == 5
    assert not (tmp_path / "a/result.json").exists()


@pytest.mark.parametrize(("sizes", "expected"), [
    ([[5, 5]], []),
    ([[10]], ["all rows are in one cluster of 3: this is no clustering"]),
    ([[10], [5, 5], [0, 10]], ["all rows are in one cluster of 3 (seeds 0, 2): this is no clustering"]),
    ([[98, 2]], ["98.0% of the rows are in one cluster of 3: this is no clustering"]),
])  # fmt: skip
def test_faults_name_the_seeds(sizes, expected):
    assert faults([SeedResult(seed=i, sizes=each) for i, each in enumerate(sizes)], 3) == expected


@pytest.mark.parametrize(("smallest", "words"), [
    ([50, 40, 2], "a cluster has shrunk to 2 rows (the mean is 100) since epoch 1: --epochs 2 ends before that"),
    ([50, 2, 40], ""),
    ([2, 2, 2], ""),  # of this data, not of the training
])  # fmt: skip
def test_a_cluster_that_shrinks_in_training_is_told(smallest, words):
    history = [{"epoch": e, "cluster/size_min": n, "cluster/size_max": 300} for e, n in enumerate(smallest)]
    assert shrunken(history, 400, 4) == words
