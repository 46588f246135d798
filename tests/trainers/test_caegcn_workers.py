"""W workers compute what one process computes: attention, structure loss, a step, pre-training, a whole training."""

import caegcn_workers
import numpy as np
import pytest
from caegcn_small import SDCN, made, small_graph
from gloo import run_in_processes

from ops.distributed.process_group import ProcessGroup
from ops.evaluation.labelled import scores
from trainers import caegcn

pytestmark = pytest.mark.slow
VARIANTS = [
    {},
    {"structure_from": "last", "attention_at": "all", "depth": "full", "pos_weight": "balanced", "residual": False},
    SDCN,
    {"parts": 5, "blocks": 2},
]


def doubles(*shape):
    return np.random.default_rng(5).standard_normal(shape)


DRAWN = np.random.default_rng(1).random((45, 45)) < 0.1
LINKED = (DRAWN | DRAWN.T).astype(np.float32)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What one process and what each of two found, call by call; every call pre-trains anew."""

    starts = tmp_path_factory.mktemp("starts")

    def calls(world):
        cache = lambda i: str(tmp_path_factory.mktemp(f"cache-{world}-{i}"))  # noqa: E731
        return [
            *(("first_gradients", (words, cache(i), str(starts / f"{i}"))) for i, words in enumerate(VARIANTS)),
            *(("trained", (words, cache(10 + i))) for i, words in enumerate(VARIANTS)),
            *(("pretrained", (cache(20 + i), at)) for i, at in enumerate((None, -9))),
            *(("structure_of_doubles", (doubles(45, 3), LINKED, w)) for w in (1.0, 6.5)),
            *(("attended", (doubles(3, n, 6), 2)) for n in (1, 2, 13)),
        ]

    one = [getattr(caegcn_workers, name)(0, 1, *arguments) for name, arguments in calls(1)]
    many = run_in_processes(2, caegcn_workers.many, calls(2))
    return calls(1), one, many


def of(calls, name):
    return [i for i, call in enumerate(calls) if call[0] == name]


def close(a, b, bar):
    assert np.abs(a - b).max() <= bar * max(np.abs(b).max(), 1e-12)


def test_loss_and_gradients_of_a_step_equal_those_of_one_process(both):
    calls, one, many = both
    for i in of(calls, "first_gradients"):
        for rank in range(2):
            metrics = {k: v for k, v in many[rank][i][0].items() if k != "sys/sent_bytes"}
            # a divergence near 0 is a difference of float32 logarithms near 1: it is held to the loss as a whole
            assert metrics == pytest.approx(one[i][0], rel=1e-5, abs=1e-5 * one[i][0]["train/loss"])
            for name, gradient in many[rank][i][1].items():
                close(gradient, one[i][1][name], 1e-5)


def test_all_workers_take_the_epoch_that_the_first_has_kept_after_an_interruption_too(both):
    calls, one, many = both
    whole, resumed = of(calls, "pretrained")
    kept = one[whole][0][-1]["train/kept_pretraining"]
    assert kept < 39
    for i in (whole, resumed):
        assert many[0][i][0] == many[0][whole][0]
        assert many[0][i][0][-1]["train/kept_pretraining"] == kept
        for name, parameter in many[0][whole][1].items():
            assert np.array_equal(many[0][i][1][name], parameter)
            assert np.array_equal(many[1][i][1][name], parameter)
            close(parameter, one[i][1][name], 1e-2)  # Adam has enlarged the rounding over dozens of epochs


def test_in_float64_the_shares_sum_to_the_whole(both):
    calls, one, many = both
    for i in of(calls, "structure_of_doubles"):
        assert [many[rank][i][0] for rank in range(2)] == pytest.approx([one[i][0]] * 2, rel=1e-12)
        close(many[0][i][1] + many[1][i][1], one[i][1], 1e-12)


def test_attention_and_its_gradients_come_home(both):
    calls, one, many = both
    for i in of(calls, "attended"):
        n = calls[i][1][0].shape[1]
        for rank in range(2):
            own = ProcessGroup(rank, 2).shard(n)
            found, gradients = many[rank][i]
            assert np.allclose(found, one[i][0][own], atol=1e-12)
            for ours, theirs in zip(gradients, one[i][1], strict=True):
                assert np.allclose(ours, theirs[own], rtol=1e-10, atol=1e-10)


def test_both_end_with_the_same_bits_and_one_process_finds_the_same_clusters(both):
    calls, one, many = both
    for i in of(calls, "trained"):
        history, assignments, last, embedding = many[0][i]
        assert np.array_equal(many[1][i][2], last)
        assert np.array_equal(many[1][i][3], embedding)
        assert [r["epoch"] for r in history] == [r["epoch"] for r in one[i][0]]
        before = [r["train/loss_pretraining"] for r in history if r["epoch"] < 0]
        assert before == pytest.approx([r["train/loss_pretraining"] for r in one[i][0] if r["epoch"] < 0], rel=1e-5)
        assert assignments.keys() == one[i][1].keys()
        assert scores(one[i][2], last)["acc"] > 0.9
        close(embedding, one[i][3], 1e-2)


def test_what_a_step_sends_is_what_the_plan_says(both):
    calls, _, many = both
    data, _ = small_graph()
    for i in of(calls, "first_gradients")[:3]:
        planned = caegcn.exchanged(made(**calls[i][1][0]), data, 2)
        assert {many[rank][i][0]["sys/sent_bytes"] for rank in range(2)} == {float(planned)}
