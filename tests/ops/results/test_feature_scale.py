"""Rows of another scale than the training's are told by a column; rows that are merely few or of one group are not."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

from ops.results.feature_scale import ColumnStatistics, rows_alike, statistics_of, unlike
from ops.results.model_store import ModelFile
from trainers import METHODS

RAW, CLASS = load_iris(return_X_y=True)
SCALED = (RAW - RAW.mean(0)) / RAW.std(0)
UNIT = (RAW - RAW.min(0)) / np.ptp(RAW, axis=0)
NAMES = ["sepal length", "sepal width", "petal length", "petal width"]
WORDS = (np.random.default_rng(0).random((500, 60)) < 0.02).astype(np.float32)


@pytest.mark.parametrize("pieces", [1, 7])
def test_statistics_are_numpys_however_the_rows_come(pieces):
    x = (np.random.default_rng(1).standard_normal((5000, 3)) * [1, 1e-3, 1e6] + [1e4, 5, -1]).astype(np.float32)
    statistics = ColumnStatistics()
    for piece in np.array_split(x, pieces):
        statistics.add(piece)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-9)
    np.testing.assert_allclose(statistics.variance, exact.var(0), rtol=1e-6)
    np.testing.assert_array_equal([statistics.low, statistics.high], [exact.min(0), exact.max(0)])


@pytest.mark.parametrize(("training", "rows", "column"), [
    (SCALED, RAW, "sepal length"),  # its mean lies farthest outside
    (RAW, SCALED, "sepal length"),
    (UNIT, RAW, "sepal length"),
    (SCALED, UNIT, "sepal"),  # within the range, but of far smaller spread
    (RAW, RAW * [1, 1, 1, 10], "petal width"),  # millimetres
    (SCALED, RAW[:1], "sepal"),
])  # fmt: skip
def test_another_scale_is_named_by_its_column(training, rows, column):
    sentence = unlike(statistics_of(training).plain(), statistics_of(rows), NAMES)
    assert sentence is not None
    assert column in sentence


@pytest.mark.parametrize(("training", "rows"), [
    (SCALED, SCALED[CLASS == 0]),
    (RAW, RAW[120:]),
    (RAW, RAW[:1]),
    (WORDS, WORDS[:1]),
    (WORDS, WORDS[:30]),
    (WORDS[:100], WORDS[100:]),  # some words never stood in the training
])  # fmt: skip
def test_rows_of_the_same_scale_are_not(training, rows):
    assert unlike(statistics_of(training).plain(), statistics_of(rows)) is None


def test_rows_that_are_all_alike():
    assert rows_alike(np.ones((9000, 3)))
    assert rows_alike(np.zeros((5, 3, 4, 4), np.uint8))
    assert not rows_alike(np.concatenate([np.ones((9000, 3)), np.zeros((1, 3))]))
    assert not rows_alike(np.ones((1, 3)))


def test_what_a_model_says_of_itself_has_no_methods_setting_name():
    assert [name for name in METHODS if set(ModelFile.model_fields) & set(METHODS[name].settings.model_fields)] == []
