"""scikit-learn's words around a method: fit, fit_predict, predict, transform, labels_, get_params, set_params."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops.api import AnyMethod, PlainRun, Result
from ops.config.settings import build, fields, nearby
from ops.data.io.objects import as_array
from ops.data.io.validate import check_clusters, check_features
from ops.data.types.graph import AttributedGraph, Data
from ops.data.types.images import ImageSet
from ops.device import device_on, precision_on, send
from ops.errors import DataError, SettingsError
from ops.inference.inputs import as_graph, as_raw
from ops.results.feature_scale import statistics_of, unlike

DEVICE = {"device": "cpu", "precision": "auto"}  # parameters of all estimators
GivenRows = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32] | None]  # x, edges, weights
C = TypeVar("C", bound="Clusterer")  # not Self, which the run-time type checks of the tests do not take
G = TypeVar("G", bound="GraphClusterer")
M = TypeVar("M", bound="ImageClusterer")


def _embed(method: AnyMethod, *given: object) -> NDArray[np.float32]:
    assert method.embed is not None, "every method with an estimator has embeddings"
    return np.asarray(method.embed(*given).cpu())


class Clusterer:
    """Base of the estimators; a subclass names its trainer module in `method`.

    Parameters: `n_clusters` (a number, or "auto": chosen without labels), `random_state` (also called `seed`), `device`
    ("cpu", "cuda" or "auto", to fit and to predict on) and `precision` (of a GPU's products, as `--precision`), every
    hyperparameter of the method's `Settings` by name, and those of `own_parameters`. After `fit`: `labels_` int64 [N],
    `confidence_` float32 [N], `embedding_` float32 [N, D], `n_clusters_`, `ids_` (the rows' names, or None),
    `history_` (metrics per epoch), `notes_` (what was guessed or changed in the data). Raises SettingsError or
    DataError (both say what is allowed) instead of training on bad input.
    """

    method: ClassVar[AnyMethod]
    fit: Callable[..., Any]
    own_parameters: ClassVar[dict[str, object]] = {}
    preset: ClassVar[dict[str, object]] = {}  # hyperparameters that have another default here than in the method

    def __init__(self, n_clusters: object = "auto", *, random_state: object = 0, **hyperparameters: object) -> None:
        random_state = hyperparameters.pop("seed", random_state)
        self._given: dict[str, Any] = {"n_clusters": n_clusters, "random_state": random_state, **hyperparameters}
        self._resolve()

    def _resolve(self) -> None:
        """Check the parameters; raises SettingsError."""
        name = type(self).__name__
        allowed = list(self._defaults())
        for key in self._given:
            if key not in allowed:
                hint = nearby(key, allowed)
                raise SettingsError(f"{name}: unknown parameter {key!r}{hint}; it has: {', '.join(allowed)}")
        values = {k: v for k, v in (self.preset | self._given).items() if k in fields(self.method.settings)}
        self.settings = build(self.method.settings, values, dict.fromkeys(values, name))
        if self.settings.n_clusters is None:
            raise SettingsError(f"{name}: n_clusters=None must be a whole number, or 'auto'")

    def _defaults(self) -> dict[str, Any]:
        declared = {key: info.default for key, (info, _) in fields(self.method.settings).items()}
        return {**declared, "n_clusters": "auto", "random_state": 0, **DEVICE, **self.own_parameters, **self.preset}

    @property
    def n_clusters(self) -> object:
        """The parameter of that name."""
        return self._given["n_clusters"]

    @n_clusters.setter
    def n_clusters(self, value: object) -> None:
        """As `set_params` does."""
        self.set_params(n_clusters=value)

    def __repr__(self) -> str:
        defaults = self._defaults()
        shown = {k: v for k, v in self._given.items() if k == "n_clusters" or v != defaults[k]}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in shown.items())})"

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        transforms = TransformerTags() if hasattr(self, "transform") else None
        return Tags("clusterer", TargetTags(required=False), transforms, input_tags=InputTags(sparse=True))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters, as scikit-learn's `clone` asks for them."""
        del deep
        return self._defaults() | self._given

    def set_params(self: C, **parameters: object) -> C:
        """Change parameters by name; what was fitted stays until the next `fit`. Raises SettingsError."""
        before = self._given
        self._given = before | parameters
        try:
            self._resolve()
        except SettingsError:
            self._given = before
            raise
        return self

    def fit_predict(self, *given: object, **named: object) -> NDArray[np.int64]:
        """`fit`, which takes the same, then `labels_`."""
        return np.asarray(self.fit(*given, **named).labels_)

    def _train(self, data: Data) -> None:
        settings = self.settings
        if settings.n_clusters == "auto":
            settings = settings.model_copy(update={"n_clusters": self._choose_k(data)})
        check_clusters(settings.k, data.n_rows, "n_clusters=")
        device, asked = self._device(), self.get_params()["precision"]
        precision = precision_on(device.type, asked, self.method.precisions)
        run = PlainRun(self._seed(), device=str(device), precision=precision)
        result: Result = self.method.train(settings, data, run)
        if result.epoch is not None:
            words = f"the clusters have become worse by the last epoch: the result is that of epoch {result.epoch}"
            warnings.warn(f"{type(self).__name__}: {words}", stacklevel=4)
        self.model_, self._fit_settings, self._data = result.model, settings, data
        x = getattr(data, "x", getattr(data, "features", None))
        self._columns = statistics_of(x).plain() if isinstance(x, np.ndarray) else None
        self.n_clusters_, self.n_features_in_ = settings.k, data.n_features
        self.ids_, self.notes_ = data.ids, data.notes
        self.history_, self._more = run.history, result.more
        self.labels_, self.confidence_ = result.assignment, result.confidence
        self.embedding_ = result.embedding

    def _device(self) -> torch.device:
        return device_on(self.get_params()["device"])

    def _seed(self) -> int:
        state = self._given["random_state"]
        if state is None:
            return int(np.random.default_rng().integers(2**31))
        if hasattr(state, "randint"):  # NumPy's old generators, which scikit-learn passes
            return int(state.randint(2**31 - 1))
        return int(state)

    def _choose_k(self, data: Data) -> int:
        name = type(self).__name__
        raise SettingsError(f"{name}: n_clusters='auto' is for attributed graphs; give the number of clusters")

    def _warn_of_scale(self, x: NDArray[np.float32]) -> None:
        """Warn where rows `x` [n, F] are of another scale than the training's."""
        if self._columns and (sentence := unlike(self._columns, statistics_of(x))):
            warnings.warn(f"{type(self).__name__}: {sentence}", stacklevel=4)

    def _fitted(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        if not hasattr(self, "model_"):
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(f"{type(self).__name__} is not fitted yet: call fit first")
        device = self._device()
        return {name: send(x, device) for name, x in self.model_.items()}, self._fit_settings.model_dump()

    def save(self, folder: str | Path) -> Path:
        """Write a run's folder (model, clusters, figures' rows), which `tessera.load`, `predict` and `report` take.

        Raises SettingsError where the folder holds something else already, NotFittedError before `fit`.
        """
        from ops.inference.estimator_files import save_estimator

        self._fitted()
        return save_estimator(self, Path(folder))

    def report(self, path: str | Path) -> Path:
        """Write the report of the fitted clusters as one HTML file; returns its path."""
        from ops.inference.estimator_files import report

        self._fitted()
        return report(self, Path(path))


class GraphClusterer(Clusterer):
    """Estimators of attributed graphs (`Clusterer` says what they have).

    `fit` takes features with edges, or one object that has both: a graph of PyG or networkx, an AnnData (edges in
    `obsp["connectivities"]`), a name, file or folder as `--dataset` takes them. Rows without edges are linked to their
    `knn` nearest others by `knn_metric`, which `notes_` says; nodes without features get those of `make_features`.
    """

    own_parameters: ClassVar[dict[str, object]] = {"knn": 10, "knn_metric": "euclidean", "make_features": "none"}

    def fit(self: G, X: object, edge_index: object = None, y: object = None) -> G:
        """Cluster features `X` [N, F] on the graph `edge_index` [2, E]; `y` is ignored, as labels never enter.

        Both may be SciPy matrices; `edge_index` is then the adjacency matrix [N, N].
        """
        del y
        data = self._graph(X, edge_index)
        self._train(data)
        self._table = data if any(note.startswith("edges: ") for note in data.notes) else None
        return self

    def fit_transform(self, X: object, edge_index: object = None, y: object = None) -> NDArray[np.float32]:
        """`fit`, then `embedding_`."""
        return np.asarray(self.fit(X, edge_index, y).embedding_)

    def transform(self, X: object, edge_index: object = None) -> NDArray[np.float32]:
        """Embeddings [n, D] of rows `X` [n, F], filtered over their edges where given."""
        return _embed(self.method, *self._fitted(), *self._rows(X, edge_index))

    def predict(self, X: object, edge_index: object = None) -> NDArray[np.int64]:
        """Clusters [n] of rows `X` [n, F]; on the training graph these are `labels_`."""
        return np.asarray(self.method.predict(*self._fitted(), *self._rows(X, edge_index))[0])

    def _rows(self, x: object, edge_index: object) -> GivenRows:
        """Features, on the scale of the run that was loaded, edges and their weights."""
        rows, edges, weight = self._given_rows(x, edge_index)
        scaling = getattr(self, "_scaling", None)
        rows = rows if scaling is None else scaling(rows)
        self._warn_of_scale(rows)
        return rows, edges, weight

    def _given_rows(self, x: object, edge_index: object) -> GivenRows:
        """Features, edges and weights, no edges where the rows have none: new rows are not linked to each other."""
        name = type(self).__name__
        if not isinstance(x, str | Path | AttributedGraph):
            raw = as_raw(name, x, edge_index)
            if raw.edges is None:
                rows = check_features(raw.x, origin=name)
                if rows.shape[1] != self.n_features_in_:
                    raise DataError(f"{name}: X has {rows.shape[1]} features, but {name} is expecting "
                                    f"{self.n_features_in_} features as input")  # fmt: skip
                table = getattr(self, "_table", None)  # of a fit that linked it by itself
                if table is not None and np.array_equal(table.x, rows):
                    return rows, table.edge_index, table.weight
                return rows, np.empty((2, 0), dtype=np.int64), None
        data = self._graph(x, edge_index)
        return data.x, data.edge_index, data.weight

    def _graph(self, x: object, edge_index: object) -> AttributedGraph:
        given = self.get_params()
        return as_graph(type(self).__name__, x, edge_index, given["knn"], given["knn_metric"], given["make_features"])

    def _choose_k(self, data: Data) -> int:
        from ops.evaluation.select_k import sweep

        assert isinstance(data, AttributedGraph)
        return sweep(data)["chosen"]


class ImageClusterer(Clusterer):
    """Estimators of images (`Clusterer` says what they have): uint8 [N, 3, H, W], or grey ones [N, H, W].

    With `backbone="frozen:..."` they take features [n, F] instead; the file that it names is not read here.
    """

    def fit(self: M, X: object, y: object = None) -> M:
        """Cluster images; `y` is ignored, as labels never enter."""
        del y
        self._train(self._images(X))
        return self

    def transform(self, X: object) -> NDArray[np.float32]:
        """Projections [n, D] of unit length."""
        return _embed(self.method, *self._fitted(), self._rows(X))

    def predict(self, X: object) -> NDArray[np.int64]:
        """Clusters [n]; on the training images these are `labels_`."""
        return np.asarray(self.method.predict(*self._fitted(), self._rows(X))[0])

    def _rows(self, images: object) -> ImageSet:
        rows = self._images(images)
        if rows.features is not None:
            self._warn_of_scale(rows.features)
        return rows

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
