"""Input or a result that is no clustering at all: the verdict says so, `--stop-on-collapse` ends with exit 5."""

from dataclasses import replace

import numpy as np
import pytest
from small_run import GRAPH, N, experiment

from ops.errors import DivergedError
from ops.results.schema import SeedResult
from ops.results.statistics import faults, shrunken
from ops.training.trainer import run_experiment
from trainers import METHODS

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


@pytest.mark.parametrize(("changes", "words"), WORTHLESS)
def test_the_verdict_says_so_first(tmp_path, capsys, changes, words):
    _, result = run_experiment(experiment(tmp_path, **changes), tmp_path)
    assert result.verdict.startswith(words)
    assert "warning: " in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "words"), WORTHLESS)
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
