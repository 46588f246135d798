"""Label-free indices against loops over edges, pairs and rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation import unlabelled as module
from ops.evaluation.unlabelled import GraphJudge, feature_indices, size_indices, structure_indices, tune_score
from ops.graph.adjacency import low_pass

TRIANGLES = np.array([[0, 0, 1, 3, 3, 4, 2], [1, 2, 2, 4, 5, 5, 3]])  # two triangles joined by one edge


def both(edges):
    return np.unique(np.concatenate([edges, edges[::-1]], axis=1), axis=1).astype(np.int64)


def by_hand(edges, clusters):
    """Every definition as a sum over undirected edges (u < v), no self loops."""
    pairs = {(min(u, v), max(u, v)) for u, v in edges.T.tolist() if u != v}
    n, m = len(clusters), max(len(pairs), 1)
    degree = [sum(i in p for p in pairs) for i in range(n)]
    result = {"modularity": 0.0, "conductance": [], "cut_ratio": [], "coverage": 0.0}
    result["coverage"] = sum(clusters[u] == clusters[v] for u, v in pairs) / m
    for i in range(n):  # Newman's double sum over ordered pairs of nodes
        for j in range(n):
            if clusters[i] == clusters[j]:
                linked = (min(i, j), max(i, j)) in pairs
                result["modularity"] += (linked - degree[i] * degree[j] / (2 * m)) / (2 * m)
    for c in sorted(set(clusters.tolist())):
        size = int(np.sum(clusters == c))
        cut = sum((clusters[u] == c) != (clusters[v] == c) for u, v in pairs)
        volume = sum(d for d, k in zip(degree, clusters, strict=True) if k == c)
        side = min(volume, sum(degree) - volume)
        result["conductance"].append(cut / side if side else 0.0)
        result["cut_ratio"].append(cut / (size * (n - size)) if size < n else 0.0)
    if len(result["conductance"]) == 1:  # a single cluster cuts nothing, and is the worst all the same
        result |= {"conductance": 1.0, "cut_ratio": 1.0}
    return {k: float(np.mean(v)) for k, v in result.items()}


def test_collapse_to_one_cluster():
    result = structure_indices(both(TRIANGLES), np.zeros(6, dtype=np.int64))
    assert result == {
        "modularity": 0.0,
        "conductance": 1.0,
        "cut_ratio": 1.0,
        "coverage": 1.0,
    }  # the worst, not the best
    space = np.eye(6, dtype=np.float32)
    worst = feature_indices(space, np.zeros(6, dtype=np.int64))
    assert worst == {"silhouette": -1.0, "davies_bouldin": 1e3, "calinski_harabasz": 0.0}
    assert size_indices(np.zeros(6, dtype=np.int64), 3) == pytest.approx(
        {"size_min": 0, "size_max": 6, "size_gini": 2 / 3, "empty": 2}
    )


@given(data=st.data(), n=st.integers(1, 9), k=st.integers(1, 5))
def test_structure_of_any_graph_by_brute_force(data, n, k):
    node = st.integers(0, n - 1)
    edges = np.array(data.draw(st.lists(st.tuples(node, node), min_size=1, max_size=25))).T
    clusters = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    assert structure_indices(both(edges), clusters) == pytest.approx(by_hand(edges, clusters), abs=1e-12)


@given(data=st.data(), n=st.integers(1, 30), k=st.integers(1, 6))
def test_sizes_and_gini_by_pairs(data, n, k):
    clusters = np.array(data.draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    size = [int(np.sum(clusters == c)) for c in range(k)]
    result = size_indices(clusters, k)
    gini = sum(abs(a - b) for a in size for b in size) / (2 * k * n)  # the mean absolute difference, halved and scaled
    assert result == pytest.approx(
        {"size_min": min(size), "size_max": max(size), "size_gini": gini, "empty": size.count(0)}
    )


def silhouette_by_hand(x, clusters):
    values = []
    for i in range(len(x)):
        far = np.sqrt(((x - x[i]) ** 2).sum(1))
        local = clusters == clusters[i]
        if local.sum() == 1:
            values.append(0.0)
            continue
        a = far[local].sum() / (local.sum() - 1)
        b = min(far[clusters == c].mean() for c in set(clusters.tolist()) - {clusters[i]})
        values.append((b - a) / max(a, b))
    return np.mean(values)


def features_by_hand(x, clusters):
    names = sorted(set(clusters.tolist()))
    centres = np.stack([x[clusters == c].mean(0) for c in names])
    spread = [np.sqrt(((x[clusters == c] - m) ** 2).sum(1)).mean() for c, m in zip(names, centres, strict=True)]
    apart = np.sqrt(((centres[:, None] - centres) ** 2).sum(2))
    k, n = len(names), len(x)
    ratio = [max((spread[i] + spread[j]) / apart[i, j] for j in range(k) if j != i) for i in range(k)]
    within = sum(((x[clusters == c] - m) ** 2).sum() for c, m in zip(names, centres, strict=True))
    between = sum(np.sum(clusters == c) * ((m - x.mean(0)) ** 2).sum() for c, m in zip(names, centres, strict=True))
    return {
        "silhouette": silhouette_by_hand(x, clusters),
        "davies_bouldin": np.mean(ratio),
        "calinski_harabasz": between / (k - 1) / (within / (n - k)),
    }


@pytest.mark.parametrize("k", [2, 3, 7])
def test_features_by_hand(k):
    rng = np.random.default_rng(k)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    clusters = rng.integers(0, k, 60)
    clusters[:k] = np.arange(k)
    assert feature_indices(x, clusters) == pytest.approx(features_by_hand(x.astype(np.float64), clusters), rel=1e-4)


def test_a_numbering_with_gaps_changes_nothing():
    rng = np.random.default_rng(0)
    x, clusters = rng.standard_normal((40, 3)).astype(np.float32), rng.integers(0, 3, 40)
    assert feature_indices(x, clusters * 5) == feature_indices(x, clusters)
    edges = both(rng.integers(0, 40, (2, 90)))
    assert structure_indices(edges, clusters * 5) == pytest.approx(structure_indices(edges, clusters))


def test_every_row_its_own_cluster():
    """K = N is a permitted setting; scikit-learn refuses to score singletons, a training must go on."""
    x = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    result = feature_indices(x, np.arange(12))
    assert result["silhouette"] <= 0
    assert all(np.isfinite(v) for v in result.values())


def test_large_inputs_are_sampled_with_a_fixed_draw(monkeypatch):
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 3, 500)
    x = (rng.standard_normal((500, 4)) + 4 * np.eye(3, 4)[clusters]).astype(np.float32)
    whole = feature_indices(x, clusters)
    monkeypatch.setattr(module, "SAMPLE_ABOVE", 200)
    sampled = feature_indices(x, clusters)
    assert sampled == feature_indices(x, clusters)
    assert sampled["silhouette"] != whole["silhouette"]
    assert sampled["silhouette"] == pytest.approx(whole["silhouette"], abs=0.05)
    assert {**sampled, "silhouette": 0} == {**whole, "silhouette": 0}  # only the silhouette needs all pairs
    assert feature_indices(x, clusters, seed=1)["silhouette"] != sampled["silhouette"]


def test_tune_score_by_hand_and_clipped():
    assert tune_score({"modularity": 0.4, "conductance": 0.3, "silhouette": 0.2}) == pytest.approx(
        (0.4 + 0.7 + 0.6) / 3
    )
    assert tune_score({"modularity": -0.5, "conductance": 1.0, "silhouette": -1.0}) == 0
    assert tune_score({"modularity": 1.0, "conductance": 0.0, "silhouette": 1.0}) == 1


def test_the_judge_looks_at_one_fixed_space():
    graph, labels = planted_graph(80, 3, 8, seed=3)
    result = GraphJudge(graph, 4)(labels)
    space = low_pass(graph.x, graph.edge_index, 2)
    expected = structure_indices(graph.edge_index, labels) | feature_indices(space, labels) | size_indices(labels, 4)
    assert {k: v for k, v in result.items() if k != "score"} == expected
    assert result["score"] == tune_score(result)
    assert result["empty"] == 1


def test_the_space_of_a_large_table_is_a_projection_that_keeps_the_indices(monkeypatch):
    graph, labels = planted_graph(300, 3, 900, seed=0, separation=3.0)
    exact = GraphJudge(graph, 3)(labels)
    monkeypatch.setattr(module, "LARGE_TABLE", 1000)
    assert module.fixed_space(graph).shape == (300, 512)
    projected = GraphJudge(graph, 3)(labels)
    assert projected["modularity"] == exact["modularity"]
    assert projected["silhouette"] == pytest.approx(exact["silhouette"], rel=0.1)
