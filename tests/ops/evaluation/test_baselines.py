"""The baselines of every table of graphs."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ops.clustering.kmeans import kmeans
from ops.clustering.linear import KINDS
from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation.baselines import baselines
from ops.evaluation.labelled import scores
from ops.evaluation.quick import QuickClusterings, methods
from ops.graph.adjacency import low_pass


@pytest.fixture(autouse=True)
def all_kinds(monkeypatch):
    monkeypatch.setattr("ops.evaluation.baselines.KINDS", KINDS)


def test_every_baseline_for_every_seed():
    graph, labels = planted_graph(150, 3, 8, seed=0, separation=1.5)
    rows = list(baselines(graph, 3, [0, 4], order=3))
    names = ["kmeans", "filter+kmeans", "degree+kmeans", "ssgc", "sagsc", "m-s2cag"]  # s2cag takes no negative features
    assert [(name, seed) for name, seed, _ in rows] == [(name, seed) for name in names for seed in (0, 4)]
    unit = normalize(torch.from_numpy(graph.x)).numpy()
    spaces = {"kmeans": graph.x, "filter+kmeans": low_pass(unit, graph.edge_index, 3)}
    degree = np.log1p(np.bincount(graph.edge_index[0], minlength=150))[:, None].astype(np.float32)
    spaces["degree+kmeans"] = degree
    for name, seed, clusters in rows:
        assert clusters.dtype == np.int64
        if name in spaces:
            assert np.array_equal(clusters, kmeans(torch.from_numpy(spaces[name]), 3, (seed, 0)).labels.numpy())
    accuracy = {name: scores(labels, clusters)["acc"] for name, _, clusters in rows}
    assert accuracy["filter+kmeans"] > 0.9 > accuracy["kmeans"]  # what the edges are worth on such a graph
    assert accuracy["m-s2cag"] > 0.9 > accuracy["degree+kmeans"]


def test_a_large_table_takes_the_centres_of_a_sample_of_its_rows(monkeypatch):
    monkeypatch.setattr("ops.evaluation.baselines.LARGE_TABLE", 400)  # 25 rows of 8 values
    graph, labels = planted_graph(300, 3, 8, seed=0, separation=6.0)
    clusters = {name: clusters for name, _, clusters in baselines(graph, 3, [0], order=3)}
    assert len(clusters["kmeans"]) == 300
    assert scores(labels, clusters["kmeans"])["acc"] > 0.9


def test_a_linear_method_stands_at_the_order_and_treatment_that_the_panel_chooses():
    graph, _ = planted_graph(60, 3, 4, seed=1)
    rows = {name: clusters for name, _, clusters in baselines(graph, 3, [0], order=0)}
    assert np.array_equal(rows["filter+kmeans"], kmeans(normalize(torch.from_numpy(graph.x)), 3, (0, 0)).labels.numpy())
    quick = QuickClusterings(graph, 3)
    tried = [quick.candidate(m) for m in methods(graph, ("ssgc",), orders=(5, 10))]
    assert [c.name for c in tried][:2] == ["ssgc, tfidf, T = 5", "ssgc, tfidf, T = 10"]
    assert np.array_equal(rows["ssgc"], quick.chosen(tried)[0].clusters[0])
