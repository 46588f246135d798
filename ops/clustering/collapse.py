"""When a cluster counts as collapsed: a rule on sizes alone, without labels.

Axes: N rows, K clusters.
"""

TINY = 0.05  # of the mean size of a cluster


def is_collapsed(smallest: float, n_rows: int, n_clusters: int) -> bool:
    """Whether the smallest cluster has almost no rows: fewer than a twentieth of the mean N / K."""
    return smallest < TINY * n_rows / n_clusters
