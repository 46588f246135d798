"""Scores that need labels. Nothing under `trainers` may import this module (a test reads every import).

Definitions: shared with the papers where they agree, see each function. All values are fractions in [0, 1] (ARI and
AMI may fall below 0). All of them follow from how many rows of a class are in a cluster, which workers count for the
rows that each has.

Axes: n rows of one worker, C classes, K clusters.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ops.distributed.process_group import ProcessGroup

Evaluator = Callable[[NDArray[np.int64]], dict[str, float]]
LABELLED = ("acc", "nmi", "ari", "f1", "ami")


def contingency(
    labels: NDArray[np.int64], clusters: NDArray[np.int64], group: ProcessGroup | None = None
) -> NDArray[np.int64]:
    """How many rows [n] of all workers are of a class and in a cluster, int64 [C K]; without a label (-1): none.

    Raises ValueError where the lengths differ.
    """
    if labels.shape != clusters.shape:
        raise ValueError(f"{labels.shape[0]} labels but {clusters.shape[0]} clusters")
    labels, clusters = labels[labels >= 0], clusters[labels >= 0]
    group = group or ProcessGroup()
    largest = torch.tensor([labels.max(initial=0), clusters.max(initial=0)])
    c, k = (int(each) + 1 for each in group.maximum_(largest))
    table = np.bincount(labels * k + clusters, minlength=c * k)
    return np.asarray(group.sum_(torch.from_numpy(table)).view(c, k).numpy())


def scores(
    labels: NDArray[np.int64], clusters: NDArray[np.int64], group: ProcessGroup | None = None
) -> dict[str, float]:
    """ACC, NMI (arithmetic mean), ARI, macro F1 after the ACC map, AMI; rows as `contingency` takes them.

    ACC: the best one-to-one map of clusters to classes; rows of unmatched clusters count as wrong in ACC and F1.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import entropy
    from sklearn.metrics.cluster import expected_mutual_information, mutual_info_score

    table = contingency(labels, clusters, group)
    table = table[table.any(1)][:, table.any(0)]
    n, of_class, of_cluster = int(table.sum()), table.sum(1), table.sum(0)
    classes, columns = linear_sum_assignment(table, maximize=True)
    hits = np.zeros(len(of_class))
    hits[classes] = table[classes, columns]
    either = of_class.astype(np.float64)
    either[classes] += of_cluster[columns]
    both = {"acc": float(hits.sum() / n), "f1": float(np.mean(2 * hits / either)), "ari": adjusted_rand(table)}
    if 1 in table.shape:
        return both | dict.fromkeys(("nmi", "ami"), float(table.shape == (1, 1)))
    information = mutual_info_score(None, None, contingency=table)
    mean = float(np.mean([entropy(of_class), entropy(of_cluster)]))
    expected = expected_mutual_information(table, n)
    gap, whole = (_away_from_zero(each - expected) for each in (information, mean))
    return both | {"nmi": float(information / mean), "ami": float(gap / whole)}


def adjusted_rand(table: NDArray[np.int64]) -> float:
    """The adjusted Rand index (Hubert & Arabie 1985) of a table of counts, by pairs in whole numbers of any size."""
    n, together = int(table.sum()), sum(v * v for v in table.ravel().tolist())
    in_class, in_cluster = (sum(v * v for v in table.sum(axis).tolist()) for axis in (1, 0))
    a, b, c = together - n, in_class - together, in_cluster - together
    d = n * n - a - b - c - n
    return 1.0 if b == c == 0 else 2.0 * (a * d - b * c) / ((a + b) * (b + d) + (a + c) * (c + d))


def _away_from_zero(value: float) -> float:
    smallest = np.finfo(np.float64).eps
    return float(min(value, -smallest) if value < 0 else max(value, smallest))


def evaluator(labels: NDArray[np.int64] | None, group: ProcessGroup | None = None) -> Evaluator:
    """What scores an assignment [n], {} without labels: it holds them, so that nothing else has to.

    Of several workers in a `group` each has those of its rows, and all call it.
    """
    return lambda clusters: {} if labels is None else scores(labels, clusters, group)
