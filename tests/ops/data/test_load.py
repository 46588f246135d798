"""The layouts: whatever way one graph is written down, the same graph comes back."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line
from scipy import sparse

from ops.data.io.validate import make_graph
from ops.data.load import known_names, load
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, SettingsError


@st.composite
def graphs(draw):
    """x [N, F], directed edges [2, E] (each undirected edge once, in any direction), labels [N]."""
    n = draw(st.integers(3, 12))
    pairs = draw(st.sets(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), min_size=1, max_size=20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    # multiples of 1/8: exact as text, too
    x = rng.integers(-3, 4, size=(n, draw(st.integers(1, 5)))) / 8
    return x, np.array(sorted(pairs)).T, rng.integers(0, 3, size=n)


def write_features(folder: Path, layout: str, x, ids, labels):
    columns = {f"f{i}": x[:, i] for i in range(x.shape[1])}
    if layout == "npy":
        np.save(folder / "features.npy", x)
    elif layout == "npz":
        np.savez(folder / "features.npz", x=x)
    elif layout in ("csr", "csc"):
        sparse.save_npz(folder / "features.npz", sparse.csr_matrix(x).asformat(layout))
    else:
        extra = ({} if ids is None else {"id": ids}) | ({} if labels is None else {"label": labels})
        write_table(folder / f"features.{layout}", pd.DataFrame(columns | extra))


def write_table(path: Path, table: pd.DataFrame):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path, index=False)


def write_edges(folder: Path, layout: str, names: tuple[str, str], edges):
    if layout == "npy":
        np.save(folder / "edges.npy", edges)
    elif layout == "npy columns" and edges.shape[1] != 2:
        np.save(folder / "edges.npy", edges.T)
    elif layout == "npy columns":  # 2 x 2 is read as [2, E]
        np.save(folder / "edges.npy", edges)
    else:
        write_table(folder / f"edges.{layout}", pd.DataFrame({names[0]: edges[0], names[1]: edges[1]}))


@given(
    graph=graphs(),
    features=st.sampled_from(["npy", "npz", "csr", "csc", "csv", "parquet"]),
    edges=st.sampled_from(["npy", "npy columns", "csv", "parquet"]),
    names=st.sampled_from([("source", "target"), ("src", "dst"), ("Source", "Target"), ("from", "to")]),
    labels=st.sampled_from([None, "npy", "csv", "parquet", "column"]),
    with_ids=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_folder_layout_gives_the_same_graph(
    tmp_path_factory, graph, features, edges, names, labels, with_ids, seed
):
    x, pairs, y = graph
    folder = tmp_path_factory.mktemp("g")
    rng = np.random.default_rng(seed)
    table = features in ("csv", "parquet")
    ids = rng.permutation(len(x)) * 10 + 7 if with_ids and table else None
    column = y if labels == "column" and table else None
    write_features(folder, features, x, ids, column)
    shuffled = pairs[:, rng.permutation(pairs.shape[1])]
    write_edges(folder, edges, names, shuffled if ids is None else ids[shuffled])
    if labels == "npy":
        np.save(folder / "labels.npy", y)
    elif labels in ("csv", "parquet") and ids is not None:  # in another order, matched by id
        order = rng.permutation(len(x))
        write_table(folder / f"labels.{labels}", pd.DataFrame({"id": ids[order], "label": y[order]}))
    elif labels in ("csv", "parquet"):
        write_table(folder / f"labels.{labels}", pd.DataFrame({"class": y}))
    loaded, codes = load(str(folder))
    assert loaded.digest() == make_graph("g", x, pairs).digest()
    assert loaded.name == folder.name
    assert (loaded.ids is None) == (ids is None)
    if ids is not None:
        assert np.array_equal(loaded.ids, ids)
    if column is not None or labels in ("npy", "csv", "parquet"):
        assert np.array_equal(codes, np.unique(y, return_inverse=True)[1])
    else:
        assert codes is None


@given(
    graph=graphs(),
    layout=st.sampled_from(["dense", "csr", "csr with data", "scipy"]),
    both=st.booleans(),
    dtype=st.sampled_from([np.int32, np.int64, np.uint16, np.float64]),
    seed=st.integers(0, 99),
)
def test_every_npz_layout_gives_the_same_graph(tmp_path_factory, graph, layout, both, dtype, seed):
    x, pairs, y = graph
    if layout == "csr":
        x = (x > 0).astype(np.float64)
    csr = sparse.csr_matrix(x)
    parts = {
        "dense": {"x": x},
        "csr": {"x_indptr": csr.indptr, "x_indices": csr.indices.astype(np.uint16), "x_shape": csr.shape},
        "csr with data": {
            "x_indptr": csr.indptr,
            "x_indices": csr.indices,
            "x_shape": np.array(csr.shape, dtype=np.int32),
            "x_data": csr.data,
        },
        "scipy": {"format": "csr", "shape": csr.shape, "data": csr.data, "indices": csr.indices, "indptr": csr.indptr},
    }
    edges = np.concatenate([pairs, pairs[::-1]], axis=1) if both else pairs
    edges = edges[:, np.random.default_rng(seed).permutation(edges.shape[1])].astype(dtype)
    path = tmp_path_factory.mktemp("g") / "mine.npz"
    np.savez(path, **parts[layout], edge_index=edges, y=y.astype(np.int16), meta='{"name": "mine"}')
    loaded, codes = load(str(path))
    assert loaded.digest() == make_graph("g", x, pairs).digest()
    assert loaded.name == "mine"
    assert np.array_equal(codes, np.unique(y, return_inverse=True)[1])


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet", ".npz"])
def test_a_feature_table_is_linked_by_its_neighbours(tmp_path, suffix):
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    path = tmp_path / f"table{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    elif suffix == ".npz":
        np.savez(path, x=x)
    else:
        write_table(path, pd.DataFrame(x))
    graph, labels = load(str(path), knn=3)
    assert np.array_equal(graph.x, x)
    assert labels is None
    assert graph.notes == ("edges: 3 nearest neighbours of every row (euclidean), symmetrised",)
    other, _ = load(str(path), knn=3, knn_metric="cosine")
    assert not np.array_equal(graph.edge_index, other.edge_index)
    text = one_line(DataError, load, str(path))
    assert text == f"{path}: no edges; give edges, or --knn 10 to link every row to its 10 nearest"
    with pytest.raises(DataError, match=r"^--knn: n_neighbors=30 must be < n_nodes=30$"):
        load(str(path), knn=30)


def test_a_label_column_is_never_a_feature(tmp_path):
    table = pd.DataFrame({"a": [0.0, 1, 2, 9], "Label": ["x", "y", "x", "y"], "b": [1, 2, 3, 4]})
    with_labels, without = tmp_path / "with.csv", tmp_path / "without.csv"
    table.to_csv(with_labels, index=False)
    table.drop(columns="Label").to_csv(without, index=False)
    graph, labels = load(str(with_labels), knn=1)
    assert graph.feature_names == ("a", "b")
    assert labels.tolist() == [0, 1, 0, 1]
    assert graph.digest() == load(str(without), knn=1)[0].digest()


def test_columns_that_spoil_distances_or_may_be_labels_are_said(tmp_path):
    table = {"node_id": [2, 0, 1, 3], "y": [0.1, 0.5, 0.2, 0.2], "pay": [1e6, 2e6, 1e6, 4e6]}
    pd.DataFrame(table).to_csv(tmp_path / "t.csv", index=False)
    notes = load(str(tmp_path / "t.csv"), knn=1)[0].notes
    assert "column 'y' is taken as a feature; name it label if it holds the classes" in notes
    assert "column 'node_id' numbers the rows and is taken as a feature; name it id if it is none" in notes
    said = "column 'pay' holds over 90 % of the variance; --scale standard brings all columns to one scale"
    assert said in notes
    assert said not in load(str(tmp_path / "t.csv"), knn=1, scale="robust")[0].notes


@pytest.mark.parametrize("name", ["labels", "Class", "target", "cluster"])
def test_a_column_that_looks_like_labels_is_never_trained_on(tmp_path, name):
    pd.DataFrame({"a": [0.0, 1, 2], name: [0, 1, 0]}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match=f"column '{name}': name it label if it holds the classes"):
        load(str(tmp_path / "t.csv"), knn=1)


def test_ids_may_be_words_even_na(tmp_path):
    pd.DataFrame({"id": ["NA", "de", "fr"], "gdp": [1.5, 4, 3]}).to_csv(tmp_path / "features.csv", index=False)
    pd.DataFrame({"a": ["fr", "NA"], "b": ["de", "de"]}).to_csv(tmp_path / "edges.csv", index=False)
    graph, _ = load(str(tmp_path))
    assert graph.ids.tolist() == ["NA", "de", "fr"]
    assert graph.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]


def test_a_weight_column_is_ignored_and_said(tmp_path):
    np.save(tmp_path / "features.npy", np.eye(3))
    pd.DataFrame({"w": [0.5], "dst": [1], "src": [0]}).to_parquet(tmp_path / "edges.parquet")
    graph, _ = load(str(tmp_path))
    assert graph.edge_index.tolist() == [[0, 1], [1, 0]]
    assert "edge columns ignored: w" in graph.notes


@pytest.mark.parametrize("kind", [np.float64, np.int8, np.bool_])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_fields_usual_three_arrays(tmp_path, kind, labelled):
    adjacency = np.zeros((4, 4), dtype=kind)
    adjacency[[0, 1, 2, 2], [1, 2, 1, 2]] = 1
    np.save(tmp_path / "acm_feat.npy", np.eye(4))
    np.save(tmp_path / "acm_adj.npy", adjacency)
    (tmp_path / "readme.md").write_text("from the net")
    (tmp_path / "raw").mkdir()
    if labelled:
        np.save(tmp_path / "acm_label.npy", [0, -1, 2, 2])
    graph, labels = load(str(tmp_path))
    assert graph.edge_index.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]]
    assert "files not read: raw/, readme.md" in graph.notes
    assert (labels is None) is not labelled
    if labelled:
        assert labels.tolist() == [0, -1, 1, 1]
        assert graph.notes[-1].startswith("1 row of 4 without a label (-1, NaN, empty or 'unknown')")


def test_an_array_that_is_not_used_may_hold_anything(tmp_path):
    np.savez(tmp_path / "g.npz", x=np.eye(3), edge_index=[[0, 1], [1, 2]], names=np.array([{"a": 1}, None, 2]))
    graph, _ = load(str(tmp_path / "g.npz"))
    assert graph.notes[-1] == "arrays ignored: names"


@pytest.mark.parametrize("table", [
    "node_id,feature_id,value\n0,1,1\n0,2,1\n1,2,0.5\n",
    "id,feature,value\na,1,1\na,2,1\nb,2,0.5\n",
    "node,attribute\n0,1\n0,2\n1,2\n",
    "id,word,count\nd,1,1\nd,2,1\nf,2,5\n",
    "doc,word,count\n" + "".join(f"{i % 6},w{i // 6},1\n" for i in range(36)),
])  # fmt: skip
def test_a_table_in_long_form_is_refused_with_its_pivot(tmp_path, table):
    (tmp_path / "features.csv").write_text(table)
    node, feature = table.split("\n")[0].split(",")[:2]
    said = rf"is in long form: 36? rows for [26] of '{node}'; .*pivot_table\(index='{node}', columns='{feature}'"
    with pytest.raises(DataError, match=said):
        load(str(tmp_path), knn=1)


def test_what_looks_like_long_form_only_is_said(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("doc,word,count\n" + "".join(f"{i % 6},{i // 6},{i}.5\n" for i in range(36)))
    assert any(
        "(long form): pandas.read_csv(FILE).pivot_table(index='doc'" in n for n in load(str(path), knn=3)[0].notes
    )
    path.write_text("age,visits,pay\n" + "".join(f"{i % 6},{i % 5},{i}.5\n" for i in range(36)))
    assert not any("long form" in note for note in load(str(path), knn=3)[0].notes)


def test_most_nodes_without_an_edge_and_edges_that_might_be_others_are_said(tmp_path):
    np.save(tmp_path / "features.npy", np.eye(9))
    (tmp_path / "edges.csv").write_text("source,target\n0,1\n")
    assert (
        load(str(tmp_path))[0].notes[-1] == "7 isolated nodes; that is most of them: do the edges use the nodes' ids?"
    )
    (tmp_path / "edges.csv").write_text("year,source_name,weight\n0,1,2\n")
    with pytest.raises(DataError, match="name the two columns of the edges' ends source,target; found year, source_"):
        load(str(tmp_path))
    for names in ("weight,id_2,id_1", "w,u,v", "rel,head,tail"):
        (tmp_path / "edges.csv").write_text(f"{names}\n0.5,1,2\n")
        assert load(str(tmp_path))[0].edge_index.tolist() == [[1, 2], [2, 1]]


def test_a_table_of_very_many_columns_whose_names_look_like_types(tmp_path):
    names = ["label:red", "class:a", "id:5", *(f"a rather long name of a column {i}" for i in range(3000))]
    x = np.random.default_rng(0).standard_normal((5, len(names))).astype(np.float32)
    pd.DataFrame(x, columns=names).to_csv(tmp_path / "t.csv", index=False)
    graph, labels = load(str(tmp_path / "t.csv"), knn=2)
    assert (graph.feature_names, labels, graph.ids) == (tuple(names), None, None)
    np.testing.assert_array_equal(graph.x, x)


def test_digits_and_planted_are_always_there():
    digits, y = load("digits")
    assert (digits.n_nodes, digits.n_features, y.max()) == (1797, 64, 9)
    assert digits.x.max() == 1.0
    assert (np.bincount(digits.edge_index[0]) >= 10).all()
    assert load("Digits", knn=5)[0].edge_index.shape[1] < digits.edge_index.shape[1]
    graph, labels = load("planted:nodes=120,clusters=3,features=8,degree=6,mixing=0.2,seed=4")
    expected = planted_graph(nodes=120, clusters=3, features=8, degree=6, mixing=0.2, seed=4)
    assert graph.digest() == expected[0].digest()
    assert np.array_equal(labels, expected[1])


def test_home_and_relative_paths(tmp_path, monkeypatch):
    np.save(tmp_path / "features.npy", np.eye(3))
    np.save(tmp_path / "edges.npy", [[0, 1], [1, 2]])
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    digest = load(str(tmp_path))[0].digest()
    assert load(f"~/{tmp_path.name}")[0].digest() == digest
    here, _ = load(".")
    assert (here.digest(), here.name) == (digest, tmp_path.name)


def test_a_bare_known_name_is_a_name_first_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "cora.npz", x=np.eye(3), edge_index=[[0, 1], [1, 2]])
    (tmp_path / "cora").mkdir()
    np.save(tmp_path / "cora" / "features.npy", np.zeros((2, 2)))
    np.save(tmp_path / "cora" / "edges.npy", [[0], [1]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TESSERA_DATA", "data")
    graph, _ = load("cora")
    assert graph.n_nodes == 3
    assert graph.notes[-1] == "'cora' is read as the known name; write ./cora for the path"
    assert load("./cora")[0].n_nodes == 2


@pytest.mark.parametrize(("spec", "knn", "error", "message"), [
    ("cora_", 0, DataError, "'cora_': no such data set, file or folder; nearest names: cora, cora_ml"),
    ("", 0, DataError, "'': no such data set, file or folder; known names: acm, "),
    ("no/such/place", 0, DataError, "no/such/place: no such file or folder"),
    ("cora.npz", 0, DataError, "cora.npz: no such file or folder; the known data set is --dataset cora"),
    ("gs://bucket/x.npz", 0, DataError, "gs://bucket/x.npz: only local files, folders and s3:// can be read"),
    ("s3://bucket//x.npz", 0, SettingsError, "s3://bucket//x.npz: is no place on S3; give s3://BUCKET/PATH"),
    ("digits:k=3", 0, SettingsError, "--dataset digits:k=3: digits takes no parameters; only planted does"),
    ("planted:node=3", 0, SettingsError, "--dataset planted: unknown 'node'; allowed: nodes, clusters, features, "),
    ("planted:nodes=3.5", 0, SettingsError, "--dataset planted: nodes=3.5 must be a whole number"),
    ("planted:mixing=", 0, SettingsError, "--dataset planted: mixing= must be a number"),
    ("planted:mixing=nan", 0, SettingsError, "planted: mixing=nan must be in [0, 1]"),
    ("planted", 10, SettingsError, "--knn 10: planted has edges; --knn is for feature tables"),
    ("digits", -1, SettingsError, "--knn -1 must be >= 0"),
    ("digits", 1797, DataError, "--knn: n_neighbors=1797 must be < n_nodes=1797"),
])  # fmt: skip
def test_wrong_names_and_values_are_one_line(tmp_path, monkeypatch, spec, knn, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESSERA_DATA", raising=False)
    assert one_line(error, load, spec, knn=knn).startswith(message)


def test_an_unknown_metric_is_one_line():
    with pytest.raises(SettingsError, match=r"^--knn-metric manhattan must be one of: euclidean, cosine, heat, dot$"):
        load("digits", knn_metric="manhattan")


def test_known_names_hold_the_issues():
    assert {"digits", "planted", "cora", "citeseer", "amap", "bat", "eat", "uat", "pubmed"} <= set(known_names())
