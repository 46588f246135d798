"""Planted partition: a graph whose clusters are known, for tests, the demo and scale runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ops.data.io.validate import check_clusters, make_graph
from ops.data.types.graph import AttributedGraph
from ops.errors import SettingsError

_ROUNDS = 50  # of drawing edges anew for those that fell on an existing one


def planted_graph(
    nodes: int = 1000, clusters: int = 5, features: int = 64, degree: float = 10.0, mixing: float = 0.1, *,
    seed: int = 0, separation: float = 3.0,
) -> tuple[AttributedGraph, NDArray[np.int64]]:  # fmt: skip
    """A random graph with clusters of equal size (to one node) and features that differ between them.

    About nodes * degree / 2 undirected edges, a share `mixing` of them between clusters. Features are normal with
    unit variance around one centre per cluster; two centres lie about `separation` apart, whatever F is.
    Returns the graph and its labels int64 [N]. The same arguments give the same bytes.
    Raises SettingsError where a value is out of range or the clusters have no room for that many edges.
    """
    check_clusters(clusters, nodes)
    for name, value, fits, allowed in (
        ("features", features, features >= 1, ">= 1"), ("mixing", mixing, 0 <= mixing <= 1, "in [0, 1]"),
        ("separation", separation, 0 <= separation < np.inf, ">= 0"), ("seed", seed, seed >= 0, ">= 0"),
    ):  # fmt: skip
        if not fits:
            raise SettingsError(f"planted: {name}={value} must be {allowed}")
    _check_degree(degree, nodes, nodes // clusters, mixing)
    labels = np.random.default_rng([seed, 0]).permutation(np.arange(nodes, dtype=np.int64) % clusters)
    edges = _edges(labels, clusters, degree, mixing, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2])
    # the difference of two such centres has the expected squared length separation ** 2
    centres = rng.standard_normal((clusters, features), dtype=np.float32) * (separation / np.sqrt(2 * features))
    x = rng.standard_normal((nodes, features), dtype=np.float32)
    x += centres.astype(np.float32)[labels]
    return make_graph("planted", x, np.concatenate([edges, edges[::-1]], axis=1)), labels


def _check_degree(degree: float, nodes: int, size: int, mixing: float) -> None:
    # half of the room: beyond it drawing at random meets too many edges that are there already
    inside = np.inf if mixing == 1 else 0.5 * (size - 1) / (1 - mixing)
    between = np.inf if mixing == 0 else 0.5 * (nodes - size - 1) / mixing
    least, most = 2 / nodes, min(inside, between)
    if not least <= degree <= most:
        raise SettingsError(f"planted: degree={degree} must be in [{least:g}, {most:g}] for clusters of {size} nodes")


def _edges(
    labels: NDArray[np.int64], clusters: int, degree: float, mixing: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Undirected edges [2, E], each once, no self loops; the two kinds are drawn apart so that the share is exact."""
    n = labels.size
    total = max(1, round(n * degree / 2))
    between = round(total * mixing)
    members = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[members], np.arange(clusters + 1))
    codes = np.empty(0, dtype=np.int64)
    for wanted, inside in ((total - between, True), (between, False)):
        kind = np.empty(0, dtype=np.int64)
        for _ in range(_ROUNDS):
            missing = wanted - kind.size
            if missing == 0:
                break
            source = rng.integers(0, n, size=missing)
            group = labels[source]
            size = start[group + 1] - start[group]
            if inside:
                place = start[group] + rng.integers(0, size)
            else:  # a place among the members of all other clusters
                place = rng.integers(0, n - size)
                place += np.where(place >= start[group], size, 0)
            target = members[place]
            code = np.minimum(source, target) * n + np.maximum(source, target)
            kind = np.union1d(kind, code[source != target])
        codes = np.concatenate([codes, kind])
    return np.stack([codes // n, codes % n])
