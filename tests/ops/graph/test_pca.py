"""PCA as part of a model: what scikit-learn projects, stored and loaded."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from ops.graph import pca as module
from ops.graph.pca import Projection, fit_pca


def table(n=80, f=12, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, f)) * np.linspace(5, 0.2, f) + 3).astype(np.float32)


def test_equals_scikit_learn_up_to_signs():
    x = table()
    expected = PCA(4, svd_solver="full").fit_transform(x.astype(np.float64))
    fitted = fit_pca(x, 4)(x)
    assert fitted.dtype == np.float32
    signs = np.sign((fitted * expected).sum(0))
    assert np.allclose(fitted * signs, expected, atol=1e-3)


@pytest.mark.parametrize(("shape", "wanted", "kept"), [((80, 12), 500, 12), ((5, 12), 8, 5), ((80, 12), 3, 3)])
def test_never_more_components_than_rows_or_columns(shape, wanted, kept):
    x = table(*shape)
    projection = fit_pca(x, wanted)
    assert projection.components.shape == (kept, 12)
    assert projection(x).shape == (shape[0], kept)


def test_many_columns_take_the_randomised_way_and_stay_deterministic(monkeypatch):
    x = table(60, 30)
    exact = fit_pca(x, 3)
    monkeypatch.setattr(module, "EXACT_UP_TO", 10)
    first, again = fit_pca(x, 3), fit_pca(x, 3)
    assert np.array_equal(first.components, again.components)
    assert np.allclose(np.abs((first.components * exact.components).sum(1)), 1, atol=1e-3)


def test_other_columns_are_refused():
    with pytest.raises(ValueError, match="x has 7 features, the model was fitted on 12"):
        fit_pca(table(), 3)(table(f=7))


def test_the_way_through_a_model():
    x, projection = table(), fit_pca(table(), 3)
    loaded = Projection.load(projection.tensors())
    assert loaded is not None
    assert np.array_equal(loaded(x), projection(x))
    assert Projection.load({"centres": projection.tensors()["pca.mean"]}) is None
