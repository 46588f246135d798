"""Figures over epochs and seeds, and the sentence that compares them."""

import math

import numpy as np
import pytest

from ops.results.schema import Interval, RecallLine, Scores
from ops.results.statistics import evaluated, figures_of, over_seeds, paired, recall_verdict, spread, verdict


def record(epoch, acc=None, **cluster):
    values = {
        "silhouette": 0.1,
        "davies_bouldin": 1.0,
        "modularity": 0.2,
        "conductance": 0.3,
        "size_max": 9.0,
    } | cluster
    scores = {"epoch": epoch} | {f"cluster/{k}": v for k, v in values.items()}
    return scores if acc is None else scores | {"eval/acc": acc}


def test_last_selected_and_oracle_are_three_things():
    history = [record(-1, 0.95), {"epoch": 0, "train/loss": 1.0}, record(1, 0.5), record(2, 0.7, modularity=0.6),
               record(3, 0.9, modularity=0.1), record(4, 0.8, silhouette=0.0)]  # fmt: skip
    figures = figures_of(history)
    assert [figures[k]["epoch"] for k in ("last", "selected", "oracle")] == [4, 2, -1]
    assert [r["epoch"] for r in evaluated(history)] == [1, 2, 3, 4]
    assert figures_of([record(1), record(2)])["oracle"] is None


def test_labels_do_not_move_what_is_selected():
    plain = [record(e, modularity=m) for e, m in enumerate((0.1, 0.5, 0.3))]
    labelled = [r | {"eval/acc": a} for r, a in zip(plain, (0.9, 0.1, 0.2), strict=True)]
    assert figures_of(plain)["selected"]["epoch"] == figures_of(labelled)["selected"]["epoch"] == 1


def test_spread_has_ddof_one_and_none_for_a_single_seed():
    assert spread([1.0, 3.0]).plain() == {"values": [1.0, 3.0], "mean": 2.0, "std": pytest.approx(math.sqrt(2))}
    assert spread([1.0]).std is None
    assert spread([None]).mean is None
    assert over_seeds([None, None]) is None
    each = [{"acc": 0.5, "silhouette": 0.1, "epoch": 3}, {"acc": 0.7, "silhouette": 0.1, "epoch": 9}]
    scores = over_seeds(each, chosen=True)
    assert (scores.epochs, scores.indices, list(scores.metrics)) == ([3, 9], ["silhouette"], ["acc", "silhouette"])
    assert over_seeds(each).indices == []


def over_scores(mean, std):
    return Scores.model_validate({"acc": {"values": [mean], "mean": mean, "std": std}})


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [((0.8, 0.01), (0.7, 0.02), "above"), ((0.7, 0.01), (0.8, 0.02), "below"),
     ((0.8, 0.1), (0.75, 0.01), "within a standard deviation of")],
)  # fmt: skip
def test_the_verdict_weighs_the_gap_by_the_spread(ours, theirs, words):
    last, worse, better = (over_scores(*pair) for pair in (ours, (0.1, 0.0), theirs))
    gap = 100 * (ours[0] - theirs[0])
    expected = f"last is {words} the strongest baseline (filter+kmeans) in ACC: {gap:+.1f}"
    assert verdict(last, {"kmeans": worse, "filter+kmeans": better}) == expected


def test_without_a_common_score_the_verdict_says_so():
    score = Scores.model_validate({"score": {"values": [0.4], "mean": 0.4}})
    sizes = Scores.model_validate({"size_min": {"values": [0.4], "mean": 0.4}})
    assert verdict(score, {"k-means on pixels": sizes}).startswith("without labels nothing compares last to k-means")
    assert verdict(score, {}).startswith("no baseline and no recall")


def test_the_paired_interval_is_that_of_differences_by_user():
    rng = np.random.default_rng(0)
    ours = rng.random((1, 200))
    theirs = ours + 0.1 + 0.05 * rng.normal(size=200)  # far apart as means go, close by user
    interval = paired(theirs, ours)
    each = (theirs - ours)[0]
    reach = 1.959964 * each.std(ddof=1) / np.sqrt(200)
    assert (interval.mean, interval.low, interval.high) == pytest.approx(
        (each.mean(), each.mean() - reach, each.mean() + reach)
    )
    draws = np.mean(rng.choice(each, (4000, 200)), axis=1)  # a bootstrap of users agrees
    assert np.quantile(draws, [0.025, 0.975]) == pytest.approx([interval.low, interval.high], abs=0.001)
    seeds = ours + np.array([[0.0], [0.02], [-0.02]])  # seeds that differ widen it, seeds alike do not narrow it
    assert paired(theirs, seeds).low < interval.low < interval.high < paired(theirs, seeds).high
    assert paired(theirs, np.repeat(ours, 3, 0)).low == pytest.approx(interval.low)


@pytest.mark.parametrize(("gain", "word"), [((0.02, 0.01, 0.03), "below"), ((-0.02, -0.03, -0.01), "above"),
                                            ((-0.02, -0.05, 0.01), "not told apart from")])  # fmt: skip
def test_the_verdict_of_recall_follows_the_interval(gain, word):
    ours = RecallLine(name="hgt + k-means", note="", metrics=Scores())
    interval = Interval(**dict(zip(("mean", "low", "high"), gain, strict=True)))
    sentence = recall_verdict(ours, RecallLine(name="EASE", note="", metrics=Scores(), gain=interval))
    assert sentence.startswith(f"hgt + k-means is {word} the strongest row without its training (EASE) in Recall@50: ")
    assert sentence.endswith(f"interval by user {-100 * gain[2]:+.1f} to {-100 * gain[1]:+.1f}")
    assert recall_verdict(ours, None) == ""
