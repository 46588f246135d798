"""Graphs of other programs' files, edges without features, and weights of edges: one graph whatever it is read from."""

import sys
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ops.data.load import load
from ops.errors import DataError, ResourceError, SettingsError
from ops.graph.adjacency import adjacency
from tessera import HSAN, SSGC, CaEGCN
from workflows.predict import main as predict
from workflows.train import main as train

GRAPH = nx.relabel_nodes(nx.les_miserables_graph(), {"Myriel": "Bishop Myriel"})
SPACED = nx.relabel_nodes(GRAPH, lambda name: name.replace(" ", "_"))


def frame(graph):
    return pd.DataFrame([(a, b, w) for a, b, w in graph.edges(data="weight")], columns=["source", "target", "weight"])


def adjacency_file(folder):
    (folder / "g").mkdir()
    np.save(folder / "g" / "les_adj.npy", nx.to_numpy_array(GRAPH))
    return folder / "g"


def written(write, name):
    return lambda folder: write(folder / name) or folder / name


FILES = {
    "graphml": written(lambda path: nx.write_graphml(GRAPH, path), "g.graphml"),
    "gml": written(lambda path: nx.write_gml(GRAPH, path), "g.gml"),
    "edge list": written(lambda path: nx.write_weighted_edgelist(SPACED, path), "g.edgelist"),
    "edges with commas": written(lambda path: nx.write_weighted_edgelist(SPACED, path, delimiter=", "), "g.edges"),
    "csv": written(lambda path: frame(GRAPH).to_csv(path, index=False), "g.csv"),
    "parquet": written(lambda path: frame(GRAPH).to_parquet(path), "edges.parquet"),
    "matrix": adjacency_file,
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_edges_alone_gives_the_graph_its_weights_and_its_names(kind, tmp_path):
    place = FILES[kind](tmp_path)
    with pytest.raises(DataError, match="no features; give some, or --make-features degree"):
        load(str(place))
    graph, labels = load(str(place), make_features="degree")
    assert labels is None
    names = list(GRAPH) if graph.ids is None else [str(i).replace("_", " ") for i in graph.ids]
    assert sorted(names) == sorted(GRAPH)
    ours = {frozenset((names[a], names[b])): w for a, b, w in zip(*graph.edge_index, graph.weight, strict=True)}
    assert ours == {frozenset((a, b)): w for a, b, w in GRAPH.edges(data="weight")}
    assert [int(row.argmax()) for row in graph.x] == [GRAPH.degree[name] for name in names]
    assert "edge weights: 1 to 31" in graph.notes


def test_attributes_that_are_numbers_are_features_and_label_is_the_label(tmp_path):
    graph = nx.path_graph(4)
    nx.set_node_attributes(graph, {n: {"age": n / 2, "name": "x", "label": "ab"[n % 2]} for n in graph})
    nx.write_graphml(graph, tmp_path / "g.graphml")
    data, labels = load(str(tmp_path / "g.graphml"))
    assert (data.feature_names, data.x[:, 0].tolist(), labels.tolist()) == (("age",), [0, 0.5, 1, 1.5], [0, 1, 0, 1])
    assert data.notes[-1] == "node attributes that are not numbers of all nodes left out: name"
    with pytest.raises(SettingsError, match=r"--make-features spectral: .* has features"):
        load(str(tmp_path / "g.graphml"), make_features="spectral")


def test_anndata_is_read_where_it_is_installed(tmp_path, monkeypatch):
    (tmp_path / "cells.h5ad").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "anndata", None)
    with pytest.raises(DataError, match=r"needs AnnData, which is not installed: pip install 'tessera\[anndata\]'"):
        load(str(tmp_path / "cells.h5ad"))
    connected = sparse.csr_array(([0.5, 0.5, 1, 1], ([0, 1, 1, 2], [1, 0, 2, 1])), shape=(3, 3))
    cells = SimpleNamespace(obsp={"connectivities": connected}, obsm={}, X=np.eye(3), var_names=list("xyz"),
                            obs_names=["c1", "c2", "c3"])  # fmt: skip
    monkeypatch.setitem(sys.modules, "anndata", SimpleNamespace(read_h5ad=lambda path: cells))
    data, _ = load(str(tmp_path / "cells.h5ad"))
    assert (data.name, data.ids.tolist(), data.weight.tolist()) == ("cells", ["c1", "c2", "c3"], [0.5, 0.5, 1, 1])


def test_spectral_features_tell_communities_apart_and_are_the_same_again(tmp_path):
    nx.write_edgelist(nx.planted_partition_graph(2, 300, 0.1, 0.01, seed=0), tmp_path / "g.edges", data=False)
    graph, again = (load(str(tmp_path / "g.edges"), make_features="spectral")[0] for _ in range(2))
    assert graph.x.shape == (600, 32)
    sides = graph.x[:, 0] > 0
    assert sides[:300].mean() in (0, 1) or abs(sides[:300].mean() - sides[300:].mean()) > 0.95
    assert graph.digest() == again.digest()


@pytest.mark.parametrize(("name", "text", "said"), [
    ("g.edgelist", "a b 1 2\n", "4 values in a line; an edge list has two ends"),
    ("g.edgelist", "a b x\n", "holds 'x', which is no number"),
    ("g.csv", "source,target,weight\na,b,-1\n", "weight is -1; weights are finite numbers >= 0"),
    ("g.gml", "graph [ node [ id 0", "cannot be read"),
    ("g.graphml", "<graphml", "cannot be read"),
])  # fmt: skip
def test_a_file_that_is_none_is_one_line(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        load(str(tmp_path / name), make_features="degree")


def test_weights_of_repeated_edges_are_added_and_of_two_directions_averaged(tmp_path):
    rows = ["a,b,1", "b,a,4", "a,b,2", "b,c,1", "c,d,0", "c,c,7"]
    (tmp_path / "e.csv").write_text("\n".join(["source,target,weight", *rows]))
    graph, _ = load(str(tmp_path / "e.csv"), make_features="degree")
    assert graph.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert graph.weight.tolist() == [3.5, 3.5, 1, 1, 7]
    assert "1 edge of weight 0 left out" in graph.notes
    a = adjacency(graph.edge_index, 4, self_loops=False, weight=graph.weight).toarray()
    assert np.allclose(a[:3, :3], np.array([[0, 3.5, 0], [3.5, 0, 1], [0, 1, 0]]) / 2.25)
    plain = tmp_path / "p.csv"
    plain.write_text("source,target,weight\na,b,2\nb,c,2\nc,d,2\n")
    assert load(str(plain), make_features="degree")[0].weight is None


@pytest.mark.filterwarnings("ignore:CaEGCN. the clusters have become worse")  # two epochs on noise
@pytest.mark.parametrize("method", [HSAN, CaEGCN, SSGC])
def test_estimators_use_weights_in_training_and_prediction(method):
    rng, group = np.random.default_rng(0), np.arange(40) % 2
    x = rng.normal(0, 1, (40, 6)).astype(np.float32)
    a = (rng.random((40, 40)) < 0.3).astype(float)
    a = np.triu(a, 1) * np.where(group[:, None] == group, 10, 0.1)
    weighted, plain = (sparse.csr_array(m + m.T) for m in (a, (a > 0).astype(float)))
    options = {"epochs": 2} | ({"pretrain_epochs": 2} if method is CaEGCN else {})
    options = options if method is not SSGC else {}
    model = method(2, **options).fit(x, weighted)
    assert np.array_equal(model.predict(x, weighted), model.labels_)
    other = method(2, **options).fit(x, plain)
    assert not np.allclose(model.confidence_, other.confidence_)


def test_an_npz_of_edges_alone_takes_made_features(tmp_path):
    edges = np.array([[0, 1, 2, 0], [1, 2, 0, 3]])
    np.savez(tmp_path / "e.npz", edge_index=edges)
    np.savez(tmp_path / "named.npz", edge_index=edges, ids=np.array(["a", "b", "c", "d", "alone"]))
    graph, _ = load(str(tmp_path / "e.npz"), make_features="degree")
    assert graph.x.argmax(1).tolist() == [3, 2, 2, 1]
    assert "4 nodes, by the largest number in edge_index" in graph.notes
    assert load(str(tmp_path / "named.npz"), make_features="degree")[0].n_nodes == 5
    with pytest.raises(DataError, match=r"e\.npz: .*--make-features degree"):
        load(str(tmp_path / "e.npz"))


@pytest.mark.parametrize(("largest", "more", "error"), [
    (-5, {}, DataError), (3, {"ids": np.array(5)}, DataError), (10**15, {}, ResourceError),
])  # fmt: skip
def test_an_npz_of_edges_alone_that_fits_nothing_is_one_line(tmp_path, largest, more, error):
    np.savez(tmp_path / "e.npz", edge_index=np.array([[largest], [largest]]), **more)
    with pytest.raises(error, match=r"e\.npz"):
        load(str(tmp_path / "e.npz"), make_features="degree")


def test_a_run_on_edges_alone_says_what_weights_do_and_places_new_nodes(untracked, tmp_path, capsys):
    frame(GRAPH).to_csv(tmp_path / "e.csv", index=False)
    argv = ["--dataset", str(tmp_path / "e.csv"), "--n-clusters", "3", "--out", str(tmp_path / "runs"), "--no-report"]
    train(["ssgc", *argv, "--make-features", "degree", "--name", "s", "--threads", "1"])
    assert "the weights of edges enter the filter, in units of their mean" in capsys.readouterr().out
    run = str(tmp_path / "runs" / "s")
    predict([run, "--data", str(tmp_path / "e.csv"), "--out", str(tmp_path / "c.csv")])
    assert "0 of the 77 known rows are in another cluster" in capsys.readouterr().out
    train(["ns4gc", *argv, "--make-features", "spectral", "--dry-run"])
    assert "the weights of edges are not used" in capsys.readouterr().out
