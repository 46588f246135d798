import math
from dataclasses import astuple

import numpy as np
import pytest

from ops.data.types.scaling import fit_scaling
from ops.evaluation.explain import explain

ROWS = np.repeat([0, 1], [40, 60])


def test_a_word_of_one_cluster_a_shifted_number_and_noise():
    rng = np.random.default_rng(0)
    x = np.zeros((100, 5), dtype=np.float32)
    x[:30, 0] = 1  # 30 of 40 inside, none outside
    x[:, 1] = rng.standard_normal(100)
    x[:40, 2] = 1000 + rng.standard_normal(40)
    x[40:, 2] = 1003 + rng.standard_normal(60)
    x[:, 3] = 7  # constant
    x[rng.permutation(100)[:50], 4] = 1
    names = ["word", "noise", "height", "constant", "coin"]
    first, second = explain(x, ROWS, 2, names)
    assert (first.cluster, first.rows, second.rows) == (0, 40, 60)
    summary = {f.feature: f for f in first.features}
    assert list(summary)[:2] in (["word", "height"], ["height", "word"])
    assert "constant" not in summary
    word = summary["word"]
    assert (word.binary, word.inside, word.outside) == (True, 0.75, 0.0)
    assert word.log_odds == pytest.approx(math.log(30.5 * 60.5 / (10.5 * 0.5)))
    assert word.difference == pytest.approx(0.75 / x[:, 0].std(), rel=1e-6)
    height = summary["height"]
    assert (height.binary, height.log_odds) == (False, None)
    assert height.inside == pytest.approx(x[:40, 2].astype(float).mean())
    assert height.difference < -1
    assert second.features[0].difference == pytest.approx(-first.features[0].difference)


def test_the_means_are_of_the_features_as_they_were_given():
    rng = np.random.default_rng(2)
    x = np.stack([rng.random(100) > 0.7, 5000 + 300 * rng.standard_normal(100)], axis=1).astype(np.float32)
    assignment = (x[:, 0] == 0).astype(np.int64)
    scaling = fit_scaling(x, "standard")
    given, scaled = explain(x, assignment, 2), explain(scaling(x), assignment, 2, scaling=scaling)
    for before, after in zip(given, scaled, strict=True):
        for one, other in zip(before.features, after.features, strict=True):
            assert (one.feature, one.binary) == (other.feature, other.binary)
            assert astuple(one)[2:] == pytest.approx(astuple(other)[2:], rel=1e-3)


def test_the_order_is_that_of_the_correlation_with_membership():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5000, 12)).astype(np.float32)  # more rows than a block
    x[:, ::2] = x[:, ::2] > 0.5
    assignment = (x @ rng.standard_normal(12) + rng.standard_normal(5000) > 1).astype(np.int64)
    features = explain(x, assignment, 2, top=12)[1].features
    p = assignment.mean()
    for f in features:
        r = np.corrcoef(x[:, int(f.feature.split()[1])], assignment)[0, 1]
        assert f.difference * math.sqrt(p * (1 - p)) == pytest.approx(r, abs=1e-6)
    sizes = [abs(f.difference) for f in features]
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) >= 0.2


def test_clusters_that_are_empty_or_hold_everything_and_data_without_variance():
    x = np.ones((6, 3), dtype=np.float32) * 0.1
    assert [c.features for c in explain(x, np.zeros(6, dtype=np.int64), 3)] == [[], [], []]
    assert [c.features for c in explain(x, np.array([0, 0, 0, 1, 1, 1]), 2)] == [[], []]
    x[:3, 0] = 0.2  # splits the clusters without any variance inside: finite all the same
    only = explain(x, np.array([0, 0, 0, 1, 1, 1]), 2)[0].features
    assert [(f.feature, pytest.approx(2)) for f in only] == [("column 0", only[0].difference)]


def test_rows_that_are_like_no_cluster_are_found_by_their_distance_from_its_mean():
    x = np.random.default_rng(2).standard_normal((60, 4)).astype(np.float32)
    x[30:] += 20
    x[[7, 44]] += [[9.0], [-9.0]]  # nearer to their own cluster than to the other, and so confident
    wide, assignment = x * [1, 10, 100, 1000], np.repeat([0, 1], 30)
    for given in (x, wide.astype(np.float32)):
        far = [c.far for c in explain(given, assignment, 2)]
        assert [each[0].row for each in far] == [7, 44]
        assert all(each[0].times > 3 for each in far)
