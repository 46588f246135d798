"""The choice among the quick methods without labels."""

import json

import numpy as np
import pytest

from ops.data.io.validate import make_graph
from ops.data.synthetic.planted_partition import planted_graph
from ops.evaluation import auto
from ops.evaluation.labelled import scores
from ops.evaluation.quick import DEGREE


@pytest.mark.slow
def test_planted_clusters_are_chosen_with_the_doubt_said():
    data, labels = planted_graph(150, 3, 8, degree=10, mixing=0.1, separation=1.5, seed=0)
    choice, again = (auto.choose(data, 3) for _ in range(2))
    assert choice.plain()["chosen"] == again.plain()["chosen"]
    assert choice.chosen.method.kind in ("ssgc", "sagsc", "m-s2cag")  # s2cag takes no negative features
    assert {c.method.features for c in choice.candidates} == {"tfidf", "l2", "standard"}
    assert scores(labels, choice.chosen.clusters[0])["acc"] > 0.9
    assert choice.ranks == sorted(choice.ranks)
    assert min(choice.over_seeds, choice.over_parts) >= auto.FAIRLY
    assert "with 80 % of the nodes" in choice.reasons[0]
    assert len(choice.table()) == 6
    json.dumps(choice.plain())


def test_an_unstable_candidate_gives_way_to_the_next(monkeypatch):
    data, _ = planted_graph(60, 3, 8, degree=10, separation=1.5, seed=0)
    answers = iter([(0.2, 0.9), (0.9, 0.9), (1.0, 1.0)])
    monkeypatch.setattr(auto, "_stability", lambda quick, candidate, seed: next(answers))
    choice = auto.choose(data, 3)
    assert choice.chosen is choice.candidates[1]
    assert "1 of a better rank did not find its clusters again" in choice.reasons[0]


def test_roles_are_clustered_where_edges_show_no_communities():
    draws = np.random.default_rng(0)
    n, hubs = 80, 8
    edges = [(i, j) for i in range(hubs) for j in range(n) if i != j and draws.random() < 0.8]
    edges += [(i, j) for i in range(hubs, n) for j in range(hubs, n) if i < j and draws.random() < 0.05]
    data = make_graph("roles", draws.random((n, 4)).astype(np.float32), np.array(edges).T)
    choice = auto.choose(data, 2)
    assert choice.chosen.method == DEGREE
    assert choice.chosen.setting() == ("degree", {})
    assert choice.reasons[0].endswith("NOT sure")
    assert scores((np.arange(n) >= hubs).astype(np.int64), choice.chosen.clusters[0])["acc"] == 1.0
