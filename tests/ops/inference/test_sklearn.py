"""The estimators on what a notebook has: arrays, frames, other libraries' graphs; scikit-learn's rules; files."""

from types import SimpleNamespace

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import yaml
from refusals import one_line
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import tessera
from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, SettingsError
from tessera import HSAN, CaEGCN, HaDis, TwHIN
from trainers import METHODS
from workflows.train import PRESETS

GRAPH, _ = planted_graph(nodes=40, clusters=2, features=5)
X, EDGES = GRAPH.x, GRAPH.edge_index
ADJACENCY = sp.coo_matrix((np.ones(EDGES.shape[1]), EDGES), shape=(40, 40))
WORDS = {"epochs": 2, "update_every": 1}


@pytest.fixture(scope="module")
def fit():
    return HSAN(2, **WORDS).fit(X, EDGES)


def anndata(ids):
    return SimpleNamespace(X=sp.csr_matrix(X), obsm={}, obsp={"connectivities": sp.csr_matrix(ADJACENCY)},
                           obs_names=ids, var_names=list("abcde"))  # fmt: skip


def networkx(as_columns):
    graph = nx.Graph()
    for i in range(40):
        values = {f"f{j}": float(v) for j, v in enumerate(X[i])} if as_columns else {"x": X[i]}
        graph.add_node(f"n{i}", label="secret", **values)
    graph.add_edges_from((f"n{a}", f"n{b}") for a, b in EDGES.T.tolist())
    return graph


def pyg():
    import torch
    from torch_geometric.data import Data

    return Data(x=torch.from_numpy(X), edge_index=torch.from_numpy(EDGES), y=torch.zeros(40))


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # of torch_geometric's import
@pytest.mark.parametrize(("given", "ids"), [
    (lambda folder: (sp.csr_matrix(X), sp.csr_matrix(ADJACENCY)), None),
    (lambda folder: (sp.csc_array(X), sp.csc_array(ADJACENCY)), None),
    (lambda folder: (pd.DataFrame(X, index=[f"n{i}" for i in range(40)]), EDGES), "n0"),
    (lambda folder: (pyg(),), None),
    (lambda folder: (networkx(False),), "n0"),
    (lambda folder: (networkx(True),), "n0"),
    (lambda folder: (anndata([f"cell{i}" for i in range(40)]),), "cell0"),
    (lambda folder: (folder / "graph.npz",), None),
])  # fmt: skip
def test_one_graph_in_whatever_form_is_the_same_fit(fit, given, ids, tmp_path):
    np.savez(tmp_path / "graph.npz", x=X, edge_index=EDGES)
    data = given(tmp_path)
    fitted = HSAN(2, **WORDS).fit(*data)
    assert fitted.labels_.tolist() == fit.labels_.tolist()
    assert np.array_equal(fitted.embedding_, fit.embedding_)
    assert (None if fitted.ids_ is None else fitted.ids_[0]) == ids
    assert fitted.predict(*data).tolist() == fit.labels_.tolist()


def test_a_table_alone_is_linked_by_its_nearest_and_k_is_chosen():
    table = pd.DataFrame(X, columns=list("abcde"))
    model = HSAN(random_state=1, **WORDS).fit(table)
    assert any("10 nearest neighbours" in note for note in model.notes_)
    assert model.n_clusters == "auto"
    assert 2 <= model.n_clusters_ <= 6
    assert set(model.labels_) <= set(range(model.n_clusters_))
    assert make_pipeline(StandardScaler(), HSAN(2, **WORDS)).fit_predict(table, np.zeros(40)).shape == (40,)


def test_parameters_are_scikit_learns():
    model = HSAN(2, seed=3, **WORDS)
    assert repr(model) == "HSAN(n_clusters=2, random_state=3, epochs=2, update_every=1)"
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(lr=0.5).settings.lr == 0.5
    with pytest.raises(SettingsError, match="allowed: number"):
        model.set_params(lr="fast")
    assert model.get_params()["lr"] == 0.5
    names = {getattr(tessera, name).method.name for name in dir(tessera) if name not in ("load", "__version__")}
    assert names == set(METHODS), "every method has its estimator"
    stored = yaml.safe_load((PRESETS / "caegcn-sdcn.yaml").read_text())
    assert {k: stored[k] for k in tessera.SDCN.preset} == tessera.SDCN.preset


OURS = "the message is ours: what was given, what is allowed"
EAGER = "wrong parameters are refused when they are given, not at fit"
TWO = "it asks for one cluster or one row; two are the fewest that a clustering has"
INAPPLICABLE = {
    "check_no_attributes_set_in_init": EAGER,
    "check_do_not_raise_errors_in_init_or_set_params": EAGER,
    "check_set_params": EAGER,
    "check_fit_score_takes_y": "fit's second argument is the graph's edges; labels given there are ignored",
    "check_n_features_in_after_fitting": OURS,
    "check_complex_data": OURS,
    "check_dtype_object": OURS,
    "check_estimators_empty_data_messages": OURS,
    "check_estimators_nan_inf": OURS,
    "check_fit1d": OURS,
    "check_transformer_general": OURS,
    "check_methods_sample_order_invariance": "the training's table is linked as it was, other rows are not linked",
    "check_fit2d_1sample": TWO,
    "check_fit2d_1feature": TWO,
    "check_fit2d_predict1d": TWO,
    "check_dont_overwrite_parameters": TWO,
    "check_methods_subset_invariance": TWO,
    "check_transformer_data_not_an_array": "what NumPy cannot take is no edge list",
    "check_transformer_preserve_dtypes": "embeddings are float32, whatever the features were",
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_apply_but_those_that_are_listed():
    results = check_estimator(HSAN(3, **WORDS), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert set(failed) <= set(INAPPLICABLE), {k: v for k, v in failed.items() if k not in INAPPLICABLE}
    assert sum(r["status"] == "passed" for r in results) >= 25


def test_a_model_is_saved_loaded_and_reported(unrendered, tmp_path):
    table = pd.DataFrame(X, columns=list("abcde"))
    model = HSAN(2, **WORDS).fit(table, EDGES)
    again = tessera.load(model.save(tmp_path / "run"))
    assert type(again) is HSAN
    assert again.labels_.tolist() == model.labels_.tolist()
    assert again.predict(X, EDGES).tolist() == model.labels_.tolist()
    assert np.array_equal(again.transform(X, EDGES), model.embedding_)
    for fitted in (again, model):
        with pytest.warns(UserWarning, match="HSAN: the features are of another scale than in training: column"):
            fitted.predict(100 * X, EDGES)
    with pytest.raises(SettingsError, match="is there already"):
        model.save(tmp_path / "run")
    page = model.report(tmp_path / "page.html").read_text()
    assert "<h1>" in page
    with pytest.raises(ValueError, match="HSAN is not fitted yet"):
        HSAN(2).save(tmp_path / "other")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_users_of_a_heterogeneous_graph_are_clustered():
    import torch
    from torch_geometric.data import HeteroData

    data, rng = HeteroData(), np.random.default_rng(0)
    data["user"].x, data["item"].num_nodes = torch.eye(12), 6
    users = np.repeat(np.arange(12), 3)
    items = (users % 2) * 3 + rng.permuted(np.tile(np.arange(3), (12, 1)), axis=1).ravel()
    data["user", "saw", "item"].edge_index = torch.from_numpy(np.stack([users, items]))
    model = TwHIN(2, epochs=2, embedding_dim=4).fit(data)
    assert model.labels_.shape == (12,)
    assert sorted(model.ids_.tolist()) == list(range(12))
    with pytest.raises(DataError, match="give HGT or TwHIN the HeteroData"):
        HSAN(2).fit(data)


@pytest.mark.parametrize(("fit", "words"), [
    (lambda: HSAN(2).fit(object(), EDGES), "HSAN: x is a object, not an array of numbers; give a NumPy"),
    (lambda: CaEGCN(2).fit({"a": [1.0]}, EDGES), "CaEGCN: x is a dict, not an array of numbers"),
    (
        lambda: HSAN(2).fit(pd.DataFrame({"a": [1.0, 2.0], "city": ["Bern", "Oslo"]})),
        "HSAN: no numbers in column 'city'; pandas.get_dummies or scikit-learn's OneHotEncoder",
    ),
    (lambda: HSAN(2).fit(X, sp.csr_matrix(np.ones((2, 3)))), "edge_index is a SciPy matrix of (2, 3)"),
    (lambda: HSAN(2).fit(nx.path_graph(3)), "HSAN: no features; give some, or --make-features degree"),
    (lambda: HaDis(2).fit("folder"), "HaDis: images is a str, not an array of numbers"),
    (lambda: TwHIN(2).fit(X), "TwHIN: got a ndarray; give a PyG HeteroData"),
])  # fmt: skip
def test_what_cannot_be_fitted_is_named(fit, words):
    assert words in one_line(DataError, fit)


def test_rows_of_another_width_are_named(fit):
    words = "HSAN: X has 2 features, but HSAN is expecting 5 features as input"
    assert words in one_line(DataError, fit.predict, X[:, :2])


@pytest.mark.parametrize(("build", "words"), [
    (lambda: HSAN(2, learning_rate=0.1), "HSAN: unknown parameter 'learning_rate'; nearest known: lr; it has"),
    (lambda: HaDis(2, learning_rte=0.1), "HaDis: unknown parameter 'learning_rte'; nearest known: lr"),
    (lambda: HaDis(2, batch_size=8), "HaDis: unknown parameter 'batch_size'; nearest known: batch"),
    (lambda: CaEGCN(2, max_iter=8), "CaEGCN: unknown parameter 'max_iter'; nearest known: epochs"),
    (lambda: HSAN(2, epoch=8), "HSAN: unknown parameter 'epoch'; nearest known: epochs"),
    (lambda: HSAN(2, lr="fast"), "HSAN: lr: got 'fast'; allowed: number"),
    (lambda: HaDis().fit(np.zeros((8, 4, 4), np.uint8)), "HaDis: n_clusters='auto' is for attributed graphs"),
])  # fmt: skip
def test_parameters_of_other_names_are_hinted_at(build, words):
    assert words in one_line(SettingsError, build)
