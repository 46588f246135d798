"""Scores with labels, by hand and against scikit-learn; matching by trying every one-to-one map."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn import metrics

from ops.evaluation.labelled import LABELLED, evaluator, scores


def ints(*values):
    return np.array(values, dtype=np.int64)


def brute_accuracy(labels, clusters):
    """The best accuracy over all one-to-one maps; clusters beyond the number of classes map to nothing."""
    names, classes = np.unique(clusters), list(np.unique(labels))
    pool = classes + [-1] * max(0, len(names) - len(classes))
    return max(
        np.mean([mapping[c] == t for c, t in zip(np.searchsorted(names, clusters), labels, strict=True)])
        for mapping in permutations(pool, len(names))
    )


def match(labels, clusters):
    """The best one-to-one map cluster -> class as an array over clusters; -1 where a cluster stays unmatched."""
    table = metrics.cluster.contingency_matrix(labels, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    mapping = np.full(int(clusters.max()) + 1, -1)
    mapping[np.unique(clusters)[columns]] = np.unique(labels)[rows]
    return mapping


def test_inputs_are_not_changed():
    labels, clusters = ints(1, 1, 0, 2), ints(0, 3, 1, 1)
    copies = labels.copy(), clusters.copy()
    labels.flags.writeable = clusters.flags.writeable = False
    scores(labels, clusters)
    assert np.array_equal(labels, copies[0])
    assert np.array_equal(clusters, copies[1])


@pytest.mark.parametrize("unlabelled", [[1], [0, 3, 7], [2, 3]])
def test_rows_without_a_label_do_not_count(unlabelled):
    labels, clusters = np.array([0, 0, 1, 1, 2, 2, 0, 1]), np.array([1, 1, 0, 0, 2, 0, 1, 2])
    some = labels.copy()
    some[unlabelled] = -1
    assert scores(some, clusters) == scores(np.delete(labels, unlabelled), np.delete(clusters, unlabelled))


def test_other_lengths_are_refused():
    with pytest.raises(ValueError, match="3 labels but 2 clusters"):
        scores(ints(0, 1, 2), ints(0, 1))


def test_many_classes_for_few_rows_do_not_warn():
    assert scores(np.arange(30), np.arange(30)[::-1].copy())["acc"] == 1


def test_the_evaluator_holds_the_labels():
    labels = ints(0, 0, 1, 1)
    assert evaluator(labels)(labels) == scores(labels, labels)
    assert evaluator(None)(labels) == {}


@given(data=st.data(), n=st.integers(1, 25), classes=st.integers(1, 5), k=st.integers(1, 5))
def test_any_case_against_brute_force_and_scikit_learn(data, n, classes, k):
    draw = lambda high: np.array(data.draw(st.lists(st.integers(0, high - 1), min_size=n, max_size=n)))  # noqa: E731
    labels, clusters = draw(classes), draw(k)
    result = scores(labels, clusters)
    assert set(result) == set(LABELLED)
    assert result["acc"] == pytest.approx(brute_accuracy(labels, clusters))
    assert result["nmi"] == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
    assert result["ari"] == pytest.approx(metrics.adjusted_rand_score(labels, clusters))
    assert result["ami"] == pytest.approx(metrics.adjusted_mutual_info_score(labels, clusters))
    mapping = match(labels, clusters)
    used = mapping[mapping >= 0]
    assert len(used) == len(set(used)) == min(len(np.unique(labels)), len(np.unique(clusters)))
    f1 = []
    for c in np.unique(labels):  # by hand: 2 TP / (predicted + true)
        predicted = mapping[clusters] == c
        f1.append(2 * np.sum(predicted & (labels == c)) / (predicted.sum() + np.sum(labels == c)))
    assert result["f1"] == pytest.approx(np.mean(f1))
