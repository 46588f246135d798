"""--n-clusters auto: right and sure where there are clusters, NOT sure where there are none."""

import numpy as np
import pytest

from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError
from ops.evaluation.model_selection import PANEL
from ops.evaluation.select_k import INDICES, sweep


@pytest.mark.parametrize(("clusters", "seed"), [(2, 0), (8, 2)])
def test_a_planted_number_is_found_and_sure(clusters, seed):
    graph, _ = planted_graph(250, clusters, 16, mixing=0.05, separation=6, seed=seed)
    choice = sweep(graph)
    assert choice["chosen"] == clusters
    assert choice["confidence"] >= 0.55
    assert choice["reason"].startswith("sure (")


def noise(nodes, seed):
    """Features of one normal cloud, edges at random: no number of clusters is right."""
    return planted_graph(nodes, 2, 16, mixing=0.5, separation=0, seed=seed)[0]


@pytest.mark.slow
def test_pure_noise_is_not_sure():
    choice = [sweep(noise(250, seed)) for seed in range(2)]
    assert np.mean([f["confidence"] for f in choice]) < 0.4
    for reason in [f["reason"] for f in choice]:
        assert reason.startswith("NOT sure (")
        assert "also plausible: " in reason
        assert "the indices order the candidates differently" in reason


def test_panels_that_all_follow_one_index_on_noise_are_not_sure():
    """Ten panels of three choose the same K here by chance; the indices themselves disagree."""
    choice = sweep(noise(100, 1))
    words = "all of the panels of 3 indices choose it, but the indices order the candidates differently (Kendall's W 0."
    assert words in choice["reason"]
    assert choice["confidence"] < 0.4
    assert choice["reason"].startswith("NOT sure (")


def test_what_is_handed_over():
    graph, _ = planted_graph(100, 3, 8, mixing=0.05, separation=6)
    choice = sweep(graph, largest=6)
    assert choice["k"] == [2, 3, 4, 5, 6]
    assert set(choice["indices"]) == set(INDICES) == {*PANEL, "stability"}
    assert all(len(values) == 5 for values in [*choice["indices"].values(), choice["rank"]])
    assert choice["k"][int(np.argmin(choice["rank"]))] == choice["chosen"] == 3
    assert choice["indices"]["stability"][1] == 1.0  # every start finds the planted clusters
    assert choice == sweep(graph, largest=6)


def test_never_more_clusters_than_the_root_of_n():
    graph, _ = planted_graph(30, 3, 4, degree=4)
    assert sweep(graph)["k"] == [2, 3, 4, 5]


def test_too_few_nodes():
    x, edges = np.random.default_rng(0).standard_normal((8, 2)), np.array([[0], [1]])
    with pytest.raises(DataError, match="tiny has 8 nodes, too few for --n-clusters auto: give K"):
        sweep(make_graph("tiny", x, edges))
    nine = make_graph("nine", np.concatenate([x, x[:1]]), edges)
    assert sweep(nine)["k"] == [2, 3]
