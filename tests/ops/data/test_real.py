"""The data sets of the papers, where they are at hand (TESSERA_DATA)."""

import os
from pathlib import Path

import numpy as np
import pytest

from ops.data.load import load

DATA = Path(os.environ.get("TESSERA_DATA") or Path(__file__).parents[3] / ".." / "shared" / "data")


@pytest.mark.skipif(not (DATA / "cora.npz").is_file(), reason="real data: set TESSERA_DATA")
@pytest.mark.parametrize(("name", "nodes", "features", "edges", "classes", "notes"), [
    ("cora", 2708, 1433, 5278, 7, ()),
    ("citeseer", 3327, 3703, 4552, 6, ("124 self loops kept", "48 isolated nodes", "15 all-zero feature rows")),
    ("bat", 131, 81, 1003, 4, ("71 self loops kept",)),
    ("amap", 7650, 745, 119081, 8, ("115 isolated nodes",)),
    ("acm", 3025, 1870, 13128, 3, ("561 isolated nodes",)),
])  # fmt: skip
def test_real_graphs(monkeypatch, name, nodes, features, edges, classes, notes):
    monkeypatch.setenv("TESSERA_DATA", str(DATA))
    graph, labels = load(name)
    source, target = graph.edge_index
    assert (graph.name, graph.x.shape, labels.max() + 1) == (name, (nodes, features), classes)
    assert (source < target).sum() == (source > target).sum() == edges
    assert graph.notes == notes
    assert load(str(DATA / f"{name}.npz"))[0].digest() == graph.digest()


@pytest.mark.skipif(not (DATA / "usps.npz").is_file(), reason="real data: set TESSERA_DATA")
def test_real_table_without_edges(monkeypatch):
    monkeypatch.setenv("TESSERA_DATA", str(DATA))
    graph, labels = load("usps", knn=3)
    assert (graph.n_nodes, graph.n_features, labels.max()) == (9298, 256, 9)
    assert (np.bincount(graph.edge_index[0]) >= 3).all()
