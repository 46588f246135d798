"""W workers compute what one process computes: loss, gradients, statistics, clusters, traffic; a real gloo group."""

import numpy as np
import pytest
from gloo import run_in_processes
from hadis_small import STEPS, labelled, one_step, settings_of, small_data, whole
from small import many

from ops.evaluation.labelled import scores
from trainers import hadis

pytestmark = pytest.mark.slow
WORLD = 2
SYNCED = ["first", "prototypes", "uneven", "frozen"]
TRAININGS = [{}, {"batch_norm": "shuffled", "resample": True}]
CALLS = [
    *((one_step, (name,)) for name in STEPS),
    *((whole, (words,)) for words in TRAININGS),
    *((labelled, (how,)) for how in ("kmeans", "gmm")),
]


@pytest.fixture(scope="module")
def both():
    """What one process and what each of two found, by call."""
    return many(0, 1, CALLS), run_in_processes(WORLD, many, CALLS)


def place(function, *arguments):
    return CALLS.index((function, arguments))


def off(a, b):
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)


@pytest.mark.parametrize("name", SYNCED)
def test_with_sync_loss_gradients_and_statistics_of_a_step_equal_those_of_one_process(both, name):
    at = place(one_step, name)
    one, several = both[0][at], [each[at] for each in both[1]]
    largest = max(np.abs(g).max() for g in one[1].values())
    for shares, gradients, statistics in several:
        assert off(shares, one[0]) < 1e-5
        assert gradients.keys() == one[1].keys()
        for key, theirs in one[1].items():
            assert np.abs(gradients[key] - theirs).max() < 1e-5 * largest, key
        assert all(off(statistics[key], theirs) < 1e-5 for key, theirs in one[2].items())


@pytest.mark.parametrize("name", ["local", "shuffled"])
def test_without_sync_statistics_are_a_workers_own(both, name):
    at = place(one_step, name)
    one, several = both[0][at], [each[at] for each in both[1]]
    assert off(several[0][0], one[0]) > 1e-4
    for key, theirs in one[2].items():
        if key.endswith("running_mean"):
            assert off(several[0][2][key], several[1][2][key]) > 1e-4
            # equal shares: the workers' means have the whole batch's mean where nothing lies before them
            if key in ("online.encoder.1.running_mean", "target.encoder.1.running_mean"):
                assert off((several[0][2][key] + several[1][2][key]) / 2, theirs) < 1e-5
    same = off(several[0][2]["target.encoder.1.running_mean"], several[0][2]["online.encoder.1.running_mean"]) < 1e-6
    assert same == (name == "local")  # the shuffled target saw other images


@pytest.mark.parametrize("words", TRAININGS)
def test_every_worker_ends_with_the_same_bits_and_the_clusters_of_one_process(both, words):
    at = place(whole, words)
    one, (first, second) = both[0][at], [each[at] for each in both[1]]
    for a, b in zip(first[2:], second[2:], strict=True):
        assert np.array_equal(a, b)
    assert [r["train/loss"] for r in first[0]] == [r["train/loss"] for r in second[0]]
    assert list(first[1]) == list(one[1])
    if not words:
        assert [r["train/loss"] for r in first[0]] == pytest.approx([r["train/loss"] for r in one[0]], rel=1e-2)
        assert scores(one[2], first[2])["acc"] > 0.9


@pytest.mark.parametrize("how", ["kmeans", "gmm"])
def test_the_labels_of_all_rows_are_those_of_one_process(both, how):
    at = place(labelled, how)
    for each in both[1]:
        for ours, theirs in zip(each[at], both[0][at], strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("number", range(len(TRAININGS)))
def test_what_a_step_sends_is_what_the_plan_says(both, number):
    words = TRAININGS[number]
    at = place(whole, words)
    planned = hadis.exchanged(settings_of(**words), small_data(words), WORLD)
    result = [r["sys/sent_bytes"] for r in both[1][0][at][0]]
    assert set(result[1:]) == {float(planned)}  # after the warm-up
    assert 0 < result[0] < planned
