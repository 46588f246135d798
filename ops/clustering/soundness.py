"""When clusters are worse than earlier ones of the same training: two rules without labels.

Axes: N rows, K clusters.
"""

TINY = 0.05  # of the mean size of a cluster
COMMUNITIES = 0.3  # modularity from which a graph has communities (Newman & Girvan 2004: real ones have 0.3 to 0.7)
FALL = 0.02  # of the modularity; chosen on cora, citeseer and acm (trainers/hsan/README.md)


def is_collapsed(smallest: float, n_rows: int, n_clusters: int) -> bool:
    """Whether the smallest cluster has almost no rows: fewer than a twentieth of the mean N / K."""
    return smallest < TINY * n_rows / n_clusters


def has_fallen(modularity: float, highest: float) -> bool:
    """Whether the modularity is more than FALL below the `highest` so far, where that shows communities.

    On other graphs the edges do not say what belongs together, and the modularity is no sign. Weights of edges do not
    count, as in the scores of a run.
    """
    return highest >= COMMUNITIES and modularity < highest - FALL
