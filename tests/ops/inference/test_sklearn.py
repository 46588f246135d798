"""The estimators on what scikit-learn's users give them: SciPy matrices, its names for parameters, other objects."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import DataError, SettingsError
from trainers.caegcn import CaEGCN
from trainers.hadis import HaDis
from trainers.hsan import HSAN

GRAPH, _ = planted_graph(nodes=40, clusters=2, features=5)
ADJACENCY = sp.coo_matrix((np.ones(GRAPH.edge_index.shape[1]), GRAPH.edge_index), shape=(40, 40))
WORDS = {"epochs": 2, "update_every": 1}


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_array, sp.coo_array])
def test_scipy_matrices_are_the_arrays_that_they_stand_for(kind):
    expected = HSAN(2, **WORDS).fit(GRAPH.x, GRAPH.edge_index)
    fitted = HSAN(2, **WORDS).fit(kind(GRAPH.x), kind(ADJACENCY))
    assert fitted.labels_.tolist() == expected.labels_.tolist()
    assert np.array_equal(fitted.embedding_, expected.embedding_)
    assert fitted.predict(kind(GRAPH.x)).tolist() == expected.predict(pd.DataFrame(GRAPH.x)).tolist()


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (lambda: HSAN(2).fit(object(), GRAPH.edge_index), "HSAN: x is a object, not an array of numbers; give a NumPy"),
        (lambda: CaEGCN(2).fit({"a": [1.0]}, GRAPH.edge_index), "CaEGCN: x is a dict, not an array of numbers"),
        (lambda: HSAN(2).fit(GRAPH.x, None), "HSAN: edge_index is a NoneType, not an array"),
        (lambda: HSAN(2).fit(GRAPH.x, sp.csr_matrix(np.ones((2, 3)))), "edge_index is a SciPy matrix of (2, 3)"),
        (lambda: HSAN(2).fit(pd.DataFrame({"a": ["x"], "b": [1]}), GRAPH.edge_index), "HSAN: x is a DataFrame, not"),
        (lambda: HaDis(2).fit("folder"), "HaDis: images is a str, not an array of numbers"),
    ],
)
def test_what_is_no_array_is_named(fit, words):
    with pytest.raises(DataError) as caught:
        fit()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: HSAN(2, random_state=0),
            "HSAN: unknown parameter 'random_state'; nearest known: seed; it has: seed, ",
        ),
        (lambda: HSAN(2, learning_rate=0.1), "HSAN: unknown parameter 'learning_rate'; nearest known: lr; it has"),
        (lambda: HaDis(2, learning_rte=0.1), "HaDis: unknown parameter 'learning_rte'; nearest known: lr"),
        (lambda: HaDis(2, batch_size=8), "HaDis: unknown parameter 'batch_size'; nearest known: batch"),
        (lambda: CaEGCN(2, max_iter=8), "CaEGCN: unknown parameter 'max_iter'; nearest known: epochs"),
        (lambda: HSAN(2, epoch=8), "HSAN: unknown parameter 'epoch'; nearest known: epochs"),
        (lambda: HSAN(2, lr="fast"), "HSAN: lr: got 'fast'; allowed: number"),
    ],
)
def test_parameters_of_other_names_are_hinted_at(build, words):
    with pytest.raises(SettingsError) as caught:
        build()
    assert words in str(caught.value)
