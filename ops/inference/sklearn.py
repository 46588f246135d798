"""scikit-learn's words around a method: fit, fit_predict, predict, transform, labels_, n_clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ops.api import AnyMethod, PlainRun, Result
from ops.config.settings import build, fields, nearest
from ops.data.io.validate import check_clusters, check_features, make_graph
from ops.data.types.graph import AttributedGraph, Data
from ops.data.types.images import ImageSet
from ops.errors import DataError, SettingsError

G = TypeVar("G", bound="GraphClusterer")  # not Self, which the run-time type checks of the tests do not take
M = TypeVar("M", bound="ImageClusterer")


def check_parameters(name: str, given: Mapping[str, Any], allowed: list[str]) -> None:
    """Raise SettingsError for a parameter that the estimator `name` does not have, with the one that is meant."""
    for key in given:
        if key not in allowed:
            hint = nearest(key, allowed)
            raise SettingsError(f"{name}: unknown parameter {key!r}{hint}; it has: {', '.join(allowed)}")


def as_array(name: str, what: str, values: Any) -> NDArray[Any]:
    """An array of anything that NumPy or SciPy knows. Raises DataError for other objects."""
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if array.ndim == 0 or array.dtype.kind == "O":
        raise DataError(
            f"{name}: {what} is a {type(values).__name__}, not an array of numbers; give a NumPy array, a data frame "
            "of numbers or a SciPy matrix"
        )
    return array


def as_edges(name: str, edges: Any) -> NDArray[Any]:
    """Edges [2, E], also of a SciPy adjacency matrix [N, N], whose entries other than 0 are edges."""
    if not hasattr(edges, "toarray"):
        return as_array(name, "edge_index", edges)
    if edges.shape[0] != edges.shape[1]:
        shape = edges.shape
        raise DataError(f"{name}: edge_index is a SciPy matrix of {shape}; give an array [2, E] or an adjacency [N, N]")
    return np.stack(edges.nonzero())


def _embed(method: AnyMethod) -> Callable[..., Tensor]:
    assert method.embed is not None, "every method with an estimator has embeddings"
    return method.embed


class Clusterer:
    """Base of the estimators; a subclass names its trainer module in `method`.

    Parameters: `n_clusters`, `seed`, and every hyperparameter of the method's `Settings` by name. After `fit`:
    `labels_` int64 [N], `confidence_` float32 [N], `embedding_` float32 [N, D], `history_` (metrics per epoch).
    Raises SettingsError or DataError (both say what is allowed) instead of training on bad input.
    """

    method: ClassVar[AnyMethod]

    def __init__(self, n_clusters: int, *, seed: int = 0, **hyperparameters: Any) -> None:
        name, values = type(self).__name__, {"n_clusters": n_clusters, **hyperparameters}
        check_parameters(name, values, ["seed", *fields(self.method.settings)])
        self.settings = build(self.method.settings, values, dict.fromkeys(values, name))
        if not isinstance(self.settings.n_clusters, int):
            raise SettingsError(f"{name}: n_clusters={n_clusters!r} must be a whole number")
        self.n_clusters, self.seed = self.settings.n_clusters, seed

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_clusters={self.n_clusters}, seed={self.seed})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, as scikit-learn's `clone` asks for them."""
        del deep
        return {"seed": self.seed, **self.settings.model_dump()}

    def _train(self, data: Data) -> None:
        check_clusters(self.n_clusters, data.n_rows)
        run = PlainRun(self.seed)
        self._result: Result = self.method.train(self.settings, data, run)
        self.history_ = run.history
        self.labels_, self.confidence_ = self._result.assignment, self._result.confidence
        self.embedding_ = self._result.embedding

    def _fitted(self) -> tuple[dict[str, Any], dict[str, Any]]:
        if not hasattr(self, "_result"):
            raise ValueError(f"{type(self).__name__} is not fitted yet: call fit first")
        return self._result.model, self.settings.model_dump()


class GraphClusterer(Clusterer):
    """Estimators of attributed graphs (`Clusterer` says what they have)."""

    def fit(self: G, x: object, edge_index: object, y: object = None) -> G:
        """Cluster features `x` [N, F] on the graph `edge_index` [2, E]; `y` is ignored, as labels never enter.

        Both may be SciPy matrices; `edge_index` is then the adjacency matrix [N, N].
        """
        del y
        self._train(self._graph(x, edge_index))
        return self

    def fit_predict(self, x: object, edge_index: object, y: object = None) -> NDArray[np.int64]:
        """`fit`, then `labels_`."""
        labels: NDArray[np.int64] = self.fit(x, edge_index, y).labels_
        return labels

    def transform(self, x: object, edge_index: object = None) -> NDArray[np.float32]:
        """Embeddings [n, D] of rows `x` [n, F], filtered over their edges where given."""
        features, edges = self._rows(x, edge_index)
        rows: NDArray[np.float32] = _embed(self.method)(*self._fitted(), features, edges).numpy()
        return rows

    def predict(self, x: object, edge_index: object = None) -> NDArray[np.int64]:
        """Clusters [n] of rows `x` [n, F]; on the training graph these are `labels_`."""
        labels: NDArray[np.int64] = self.method.predict(*self._fitted(), *self._rows(x, edge_index))[0]
        return labels

    def _rows(self, x: object, edge_index: object) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if edge_index is None:
            name = type(self).__name__
            return check_features(as_array(name, "x", x), origin=name), np.empty((2, 0), dtype=np.int64)
        data = self._graph(x, edge_index)
        return data.x, data.edge_index

    def _graph(self, x: object, edge_index: object) -> AttributedGraph:
        name = type(self).__name__
        return make_graph(name, as_array(name, "x", x), as_edges(name, edge_index))


class ImageClusterer(Clusterer):
    """Estimators of images (`Clusterer` says what they have): uint8 [N, 3, H, W], or grey ones [N, H, W].

    With `backbone="frozen:..."` they take features [n, F] instead; the file that it names is not read here.
    """

    def fit(self: M, images: object, y: object = None) -> M:
        """Cluster images; `y` is ignored, as labels never enter."""
        del y
        self._train(self._images(images))
        return self

    def fit_predict(self, images: object, y: object = None) -> NDArray[np.int64]:
        """`fit`, then `labels_`."""
        labels: NDArray[np.int64] = self.fit(images, y).labels_
        return labels

    def transform(self, images: object) -> NDArray[np.float32]:
        """Projections [n, D] of unit length."""
        rows: NDArray[np.float32] = _embed(self.method)(*self._fitted(), self._images(images)).numpy()
        return rows

    def predict(self, images: object) -> NDArray[np.int64]:
        """Clusters [n]; on the training images these are `labels_`."""
        labels: NDArray[np.int64] = self.method.predict(*self._fitted(), self._images(images))[0]
        return labels

    def _images(self, images: object) -> ImageSet:
        name = type(self).__name__
        x = as_array(name, "images", images)
        if getattr(self.settings, "frozen", None) is not None:
            return ImageSet(name, features=check_features(x, origin=name))
        if x.ndim == 3:
            x = np.repeat(x[:, None], 3, axis=1)
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1] != 3:
            raise DataError(f"{name}: got {x.dtype} {x.shape}; images are uint8 [N, 3, H, W], or grey [N, H, W]")
        return ImageSet(name, pixels=np.ascontiguousarray(x))
