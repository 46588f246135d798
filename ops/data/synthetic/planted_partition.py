"""Planted partition: a graph whose clusters are known, for tests, the demo and scale runs."""

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.builder import Raw
from ops.data.io.validate import check_clusters, make_graph
from ops.data.types.graph import AttributedGraph
from ops.errors import SettingsError

DEFAULTS: dict[str, int | float] = {
    "nodes": 1000, "clusters": 5, "features": 64, "degree": 10.0, "mixing": 0.1, "seed": 0, "separation": 3.0,
}  # fmt: skip
_ROUNDS = 50  # of drawing edges anew for those that fell on an existing one


def planted_graph(
    nodes: int = 1000, clusters: int = 5, features: int = 64, degree: float = 10.0, mixing: float = 0.1, *,
    seed: int = 0, separation: float = 3.0,
) -> tuple[AttributedGraph, NDArray[np.int64]]:  # fmt: skip
    """A random graph with clusters of equal size (to one node) and features that differ between them.

    About nodes * degree / 2 undirected edges, a share `mixing` of them between clusters. Features are normal with
    unit variance around one centre per cluster; two centres lie about `separation` apart, whatever F is.
    Returns the graph and its labels int64 [N]. The same arguments give the same bytes.
    Raises SettingsError where a value is out of range or the clusters have no room for that many edges, ResourceError
    where the graph would not fit the memory.
    """
    x, edges, labels = _drawn(nodes, clusters, features, degree, mixing, seed, separation)
    return make_graph("planted", x, edges), labels


def read_planted(parameters: str) -> Raw:
    """The arrays of `planted_graph` for `nodes=500,seed=1`. Raises SettingsError also for what is no parameter."""
    values: dict[str, int | float] = {}
    for part in filter(None, parameters.split(",")):
        key, _, text = (s.strip() for s in part.partition("="))
        if key not in DEFAULTS:
            raise SettingsError(f"--dataset planted: unknown {key!r}; allowed: {', '.join(DEFAULTS)}")
        kind = type(DEFAULTS[key])
        try:
            values[key] = kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise SettingsError(f"--dataset planted: {key}={text} must be {wanted}") from None
    x, edges, labels = _drawn(**(DEFAULTS | values))  # type: ignore[arg-type]
    return Raw("planted", "planted", x, edges, labels)


def _drawn(
    nodes: int, clusters: int, features: int, degree: float, mixing: float, seed: int, separation: float
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """(features [N, F], edges [2, E] both ways, labels [N])."""
    check_clusters(clusters, nodes, "clusters=")
    for name, value, fits, allowed in (
        ("features", features, features >= 1, ">= 1"), ("mixing", mixing, 0 <= mixing <= 1, "in [0, 1]"),
        ("separation", separation, 0 <= separation < np.inf, ">= 0"), ("seed", seed, seed >= 0, ">= 0"),
    ):  # fmt: skip
        if not fits:
            raise SettingsError(f"planted: {name}={value} must be {allowed}")
    _check_degree(degree, nodes, nodes // clusters, mixing)
    memory.check_load(int(nodes * (8 * features + 24 + 32 * degree)), f"planted:nodes={nodes}")
    labels = np.random.default_rng([seed, 0]).permutation(np.arange(nodes, dtype=np.int64) % clusters)
    edges = _edges(labels, clusters, degree, mixing, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2])
    # the difference of two such centres has the expected squared length separation ** 2
    centres = rng.standard_normal((clusters, features), dtype=np.float32) * (separation / np.sqrt(2 * features))
    x = rng.standard_normal((nodes, features), dtype=np.float32)
    x += centres.astype(np.float32)[labels]
    return x, np.concatenate([edges, edges[::-1]], axis=1), labels


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
