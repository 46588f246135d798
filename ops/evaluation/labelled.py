"""Scores that need labels. Nothing under `trainers` may import this module (a test reads every import).

Definitions: shared with the papers where they agree, see each function. All values are fractions in [0, 1] (ARI and
AMI may fall below 0).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LABELLED = ("acc", "nmi", "ari", "f1", "ami")


def match(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The best one-to-one map cluster -> class as an array over clusters; -1 where a cluster stays unmatched."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    table = contingency_matrix(labels, clusters)  # rows: classes in order, columns: the clusters that occur, in order
    rows, columns = linear_sum_assignment(table, maximize=True)
    classes, present = np.unique(labels), np.unique(clusters)
    mapping = np.full(int(present.max()) + 1, -1, dtype=np.int64)
    mapping[present[columns]] = classes[rows]
    return mapping


def scores(labels: NDArray[np.int64], clusters: NDArray[np.int64]) -> dict[str, float]:
    """ACC, NMI (arithmetic mean), ARI, macro F1 after the ACC map, AMI; rows without a label (-1) do not count.

    Rows of unmatched clusters count as wrong in ACC and F1. Raises ValueError where the lengths differ.
    """
    from sklearn import metrics

    if labels.shape != clusters.shape:
        raise ValueError(f"{labels.shape[0]} labels but {clusters.shape[0]} clusters")
    labels, clusters = labels[labels >= 0], clusters[labels >= 0]
    predicted = match(labels, clusters)[clusters]
    return {
        "acc": float(np.mean(predicted == labels)),
        "nmi": float(metrics.normalized_mutual_info_score(labels, clusters)),
        "ari": float(metrics.adjusted_rand_score(labels, clusters)),
        "f1": float(metrics.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        "ami": float(metrics.adjusted_mutual_info_score(labels, clusters)),
    }


class Evaluator:
    """Holds the labels so that nothing else has to; lives outside the method (design decision 8)."""

    def __init__(self, labels: NDArray[np.int64] | None) -> None:
        self._labels = labels

    @property
    def has_labels(self) -> bool:
        """Whether scores can be given at all."""
        return self._labels is not None

    def __call__(self, clusters: NDArray[np.int64]) -> dict[str, float]:
        """`scores` of an assignment, or {} without labels."""
        return {} if self._labels is None else scores(self._labels, clusters)
