"""When clusters are worse than earlier ones of the same training: two rules without labels.

Axes: N rows, K clusters.
"""

TINY = 0.05  # of the mean size of a cluster
COMMUNITIES = 0.3  # modularity from which a graph has communities (Newman & Girvan 2004: real ones have 0.3 to 0.7)
FALL = 0.02  # of the modularity: lowers no result on cora, citeseer and acm, which 0.01 does (trainers/hsan/README.md)


def is_collapsed(smallest: float, n_rows: int, n_clusters: int) -> bool:
    """Whether the smallest cluster has almost no rows: fewer than a twentieth of the mean N / K."""
    return smallest < TINY * n_rows / n_clusters


def has_fallen(modularity: float, highest: float) -> bool:
    """Whether clusters lie across more edges than earlier ones, of the `highest` modularity, on a graph of communities.

    On other graphs edges do not say what belongs together, and modularity is no sign.
    """
    return highest >= COMMUNITIES and modularity < highest - FALL
