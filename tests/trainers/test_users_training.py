"""HGT and TwHIN: planted groups are found, workers change nothing, a resumed run ends as an undisturbed one."""

import copy
from functools import cache

import numpy as np
import pytest
from gloo import run_in_processes
from sklearn.metrics import normalized_mutual_info_score as nmi
from users_small import METHODS, Worker, many, parts_in, planted, settings_of, trained

from ops.clustering.owners import Owners
from ops.distributed.process_group import ProcessGroup
from ops.errors import DivergedError, SettingsError

CASES = [
    ("hgt", {}),
    ("hgt", {"loss": "softmax"}),
    ("hgt", {"hardness": 0.5, "neg_num": 4, "som_weight": 0.01, "cluster": "som", "som_rows": 3, "som_columns": 4}),
    ("twhin", {}),
    ("twhin", {"cluster": "som", "som_rows": 3, "som_columns": 4}),
    ("hgt", {"batch": 500}),  # the last step has fewer batches than there are workers
    ("twhin", {"batch": 500}),
]
GOLDEN = {  # the losses of the first two epochs, float32 on CPU
    "hgt": [0.6537117, 0.4409241],
    "twhin": [1.3514417, 1.1054663],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    settings_of = tmp_path_factory.mktemp("users")
    parts_in(settings_of)
    return settings_of


@pytest.fixture(scope="module")
def alone(folder):
    """What one process computes of a case, and its run; trained once."""

    @cache
    def compute(case):
        run = Worker()
        return *trained(0, 1, CASES[case][0], str(folder), CASES[case][1], run), run

    return compute


FIRST = {"hgt": 0, "twhin": 3}  # the cases without words


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hgt", "twhin"])
def test_planted_groups_are_found(folder, method):
    run = Worker()
    result = METHODS[method].train(settings_of(method, epochs=12), parts_in(folder), run)
    order = np.argsort(np.arange(160) % 3, kind="stable")
    assert nmi(planted()[1][order], result.assignment) > 0.6
    assert run.history[-1]["train/loss"] < run.history[0]["train/loss"]
    assert set(run.assignments) == {0, 2, 4, 6, 8, 10, 11}
    assert np.array_equal(run.assignments[11], result.assignment)
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


@pytest.mark.parametrize("method", ["hgt", "twhin"])
def test_golden_losses(alone, method):
    assert np.allclose(alone(FIRST[method])[0][:2], GOLDEN[method], rtol=1e-4)


@pytest.mark.slow
def test_three_workers_compute_what_one_does(folder, alone):
    calls = [(method, str(folder), words) for method, words in CASES]
    offsets = parts_in(folder).manifest.nodes["user"].offsets
    for rank, computed in enumerate(run_in_processes(3, many, calls)):
        rows = Owners(offsets, ProcessGroup(rank, 3)).shard.numbers()
        for case, other in enumerate(computed):
            one, where = alone(case), f"{CASES[case]}, rank {rank}"
            assert np.allclose(one[0], other[0], rtol=1e-9), where
            for result in (1, 2, 3):  # clusters, confidence and embedding: each rank has its own users'
                assert np.array_equal(one[result][rows], other[result]), where
            for name in other[4]:
                assert np.array_equal(one[4][name], other[4][name]), where


@pytest.mark.parametrize("case", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2)), 3, 4])
def test_a_resumed_training_ends_bit_identical(folder, alone, case):
    undisturbed, (method, words) = alone(case), CASES[case]
    resumed = Worker(start=copy.deepcopy(undisturbed[-1].states[0]))
    result = METHODS[method].train(settings_of(method, **words), parts_in(folder), resumed)
    assert [r["train/loss"] for r in resumed.history] == undisturbed[0][1:]
    assert np.array_equal(result.assignment, undisturbed[1])
    assert np.array_equal(result.embedding, undisturbed[3])


@pytest.mark.parametrize("method", ["hgt", "twhin"])
def test_drawing_ahead_in_threads_changes_no_bit(folder, alone, method):
    ahead, whole = Worker(), alone(FIRST[method])
    losses = trained(0, 1, method, str(folder), {"prefetch": 3, "epochs": 1}, ahead)[0]
    assert losses == whole[0][:1]
    states = [run.states[0].shared for run in (ahead, whole[-1])]
    assert all(np.array_equal(*(np.asarray(state[name]) for state in states)) for name in states[1])


def test_more_workers_than_batches_in_a_step_is_one_line(folder):
    with pytest.raises(SettingsError, match="--workers 5: a step has --step-batches 4 to share; raise it"):
        METHODS["hgt"].train(settings_of("hgt"), parts_in(folder), Worker(0, 5))


@pytest.mark.parametrize(("method", "name"), [("hgt", "model.layer1.out.user.bias"), ("twhin", "shift")])
def test_a_loss_that_is_not_finite_ends_the_training(folder, alone, method, name):
    start = copy.deepcopy(alone(FIRST[method])[-1].states[0])
    start.shared[name].fill_(float("inf"))
    with pytest.raises(DivergedError, match="lower --lr"):
        METHODS[method].train(settings_of(method), parts_in(folder), Worker(start=start))
