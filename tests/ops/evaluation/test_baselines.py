"""The two baselines of every table."""

import numpy as np
import torch

from ops.clustering.kmeans import kmeans
from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation.baselines import baselines
from ops.evaluation.labelled import scores
from ops.graph.adjacency import low_pass


def test_both_baselines_for_every_seed():
    graph, labels = planted_graph(150, 3, 8, seed=0, separation=1.5)
    found = list(baselines(graph, 3, [0, 4], order=3))
    assert [(name, seed) for name, seed, _ in found] == [
        ("kmeans", 0), ("kmeans", 4), ("filter+kmeans", 0), ("filter+kmeans", 4)
    ]  # fmt: skip
    spaces = {"kmeans": graph.x, "filter+kmeans": low_pass(graph.x, graph.edge_index, 3)}
    for name, seed, clusters in found:
        assert clusters.dtype == np.int64
        assert np.array_equal(clusters, kmeans(torch.from_numpy(spaces[name]), 3, (seed, 0)).labels.numpy())
    accuracy = {name: scores(labels, clusters)["acc"] for name, _, clusters in found}
    assert accuracy["filter+kmeans"] > 0.9 > accuracy["kmeans"]  # what the edges are worth on such a graph


def test_order_nought_filters_nothing():
    graph, _ = planted_graph(60, 3, 4, seed=1)
    plain, filtered = (clusters for _, _, clusters in baselines(graph, 3, [0], order=0))
    assert np.array_equal(plain, filtered)
