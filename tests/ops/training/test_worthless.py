"""Input or a result that is no clustering at all: the verdict says so, `--stop-on-collapse` ends with exit 5."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from small import Scripted
from small_run import GRAPH, LABELS, N, experiment

from ops.errors import DivergedError
from ops.evaluation.labelled import scores
from ops.evaluation.unlabelled import structure_indices
from ops.reporting.tables import result_rows
from ops.results.schema import SeedResult
from ops.results.statistics import faults, worsened
from ops.training.trainer import run_experiment
from trainers import METHODS
from trainers.last_sound import train_to_last_sound

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


HALVES, ONE = np.arange(N) % 2, np.zeros(N, np.int64)
FALLEN = "since epoch 2 the modularity has fallen to {:.3f} (the highest was {:.3f}): the result is that of epoch 2"


@pytest.mark.parametrize(("early", "late", "words"), [
    (HALVES, ONE, "since epoch 2 a cluster has shrunk to 0 rows (the mean is 20): the result is that of epoch 2"),
    (LABELS, HALVES, FALLEN.format(*(structure_indices(GRAPH.edge_index, c)["modularity"] for c in (HALVES, LABELS)))),
])  # fmt: skip
def test_the_result_is_that_of_the_last_sound_evaluation_and_says_so(tmp_path, capsys, early, late, words) -> None:
    def train(settings, data, run):
        trainer = Scripted([early, early, early, late])
        return train_to_last_sound(trainer, {"weight": trainer.weight}, settings, data, run)

    method = replace(METHODS["hsan"], train=train)
    asked = experiment(tmp_path, method=method, stop_on_collapse=True)
    _, result = run_experiment(asked, tmp_path)  # it is no result of one cluster, at which this would stop
    assert json.loads((tmp_path / "a/result.json").read_text())["taken"] == {"0": words}
    assert f"warning: seed 0: {words}" in capsys.readouterr().err
    assert result.last.epochs == [2]
    assert result.last.means["acc"] == scores(LABELS, early)["acc"]
    assert result_rows(result)[0].note == "the last epoch, or the last sound evaluation (epoch 2): the result"
    assert load_file(tmp_path / "a/model/model.safetensors")["weight"] == 2
    assert pq.read_table(tmp_path / "a/assignments.parquet")["cluster"].to_pylist() == early.tolist()
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


SHRUNK = "a cluster has shrunk to 2 rows (the mean is 100)"


@pytest.mark.parametrize(("smallest", "modularity", "words"), [
    ([50, 40, 2], [0.5, 0.5, 0.5], f"since epoch 1 {SHRUNK}: --epochs 2 ends before that"),
    ([50, 2, 40], [0.5, 0.5, 0.5], ""),
    ([2, 2, 2], [0.5, 0.5, 0.5], ""),  # of this data, not of the training
    ([50, 50, 50], [0.5, 0.6, 0.575],
     "since epoch 1 the modularity has fallen to 0.575 (the highest was 0.600): --epochs 2 ends before that"),
    ([50, 50, 50], [0.6, 0.585, 0.57],
     "since epoch 1 the modularity has fallen to 0.570 (the highest was 0.600): --epochs 2 ends before that"),
    ([50, 50, 2], [0.6, 0.55, 0.55],
     f"since epoch 0 {SHRUNK} and the modularity has fallen to 0.550 (the highest was 0.600): --epochs 1 ends before "
     "that"),
    ([50, 50, 50], [0.5, 0.6, 0.585], ""),  # within 0.02
    ([50, 50, 50], [0.2, 0.25, 0.1], ""),  # a graph without communities
    ([50, 2, 50], [0.5, 0.9, 0.5], ""),  # the highest is that of sound evaluations
])  # fmt: skip
def test_clusters_that_become_worse_in_training_are_told(smallest, modularity, words):
    history = [
        {"epoch": e, "cluster/size_min": n, "cluster/size_max": 300, "cluster/modularity": m}
        for e, (n, m) in enumerate(zip(smallest, modularity, strict=True))
    ]
    assert worsened(history, 400, 4) == words
    without = [{k: v for k, v in record.items() if k != "cluster/modularity"} for record in history]
    assert ("modularity" in worsened(without, 400, 4)) is False  # of images
