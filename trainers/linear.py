"""What the linear methods share: settings, the fit as a training of one epoch, prediction, costs.

Nothing is trained by steps: `ops.clustering.linear` has the mathematics. Axes: N nodes, n rows, F features, D width.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Method, Result, Run, State
from ops.clustering import linear
from ops.clustering.linear import LinearMethod
from ops.clustering.spectral import OVERSAMPLING, POWER_ITERATIONS
from ops.config.settings import MethodSettings, setting
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import ProcessGroup, traffic
from ops.graph.features import SPARSE_BELOW, Treatment
from ops.graph.filters import EXACT_LENGTHS, LENGTH_COLUMNS, smoothing_of
from ops.memory import THREADS_AND_KERNELS
from trainers.shared import keep_cluster_ids

S = TypeVar("S", bound="LinearSettings")
ORDERS = {"choice": [1, 2, 3, 5, 8, 10, 15, 20]}


class LinearSettings(MethodSettings):
    """The settings of a method that filters, takes a subspace and rounds it."""

    epochs: int = setting(1, "one: the method is one computation", ge=1, le=1)
    lr: float = setting(1e-3, "without effect: nothing is trained by steps", gt=0, le=1)
    features: Treatment = setting(
        "tfidf",
        "as they are (raw), rows of unit length (l2), TF-IDF in rows of unit length, or columns standardised",
        search={"choice": ["raw", "l2", "tfidf"]},
    )
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)

    @property
    @abstractmethod
    def linear(self) -> LinearMethod:
        """The method that the settings describe."""


def train(settings: LinearSettings, data: AttributedGraph, run: Run) -> Result:
    """Filter, subspace and clusters of one seed.

    A run that was stopped after its report computes the same again.
    """
    group = ProcessGroup(run.rank, run.world)
    smoothing = smoothing_of(data.edge_index, data.n_nodes, group, run.device, data.weight)
    fit = linear.fit(settings.linear, data.x, smoothing, settings.k, (run.seed, 0))
    labels = fit.labels.cpu().numpy()
    if run.start is None:
        sent = {"sys/sent_bytes": float(group.sent_since())} if group.world > 1 else {}
        run.report(0, sent, labels, partial(State, 0, {}))
    result = Result(labels, fit.confidence.float().cpu().numpy(), fit.embedding.float().cpu().numpy(), fit.model)
    return keep_cluster_ids(result, settings.k, run.warm)


@torch.no_grad()
def embed(
    model: type[LinearSettings], tensors: Mapping[str, Tensor], settings: Mapping[str, Any],
    x: NDArray[np.float32], edge_index: NDArray[np.int64], weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "n D"]:  # fmt: skip
    """Rows of a stored model for features `x` [n, F], filtered over `edge_index` [2, E] (which may be empty)."""
    return linear.embed(model.model_validate(settings).linear, tensors, x, edge_index, weight)


@torch.no_grad()
def predict(
    model: type[LinearSettings], tensors: Mapping[str, Tensor], settings: Mapping[str, Any],
    x: NDArray[np.float32], edge_index: NDArray[np.int64] | None = None, weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:  # fmt: skip
    """(cluster [n], confidence [n]) of rows `x` [n, F]; without edges each row stands alone."""
    edges = np.empty((2, 0), dtype=np.int64) if edge_index is None else edge_index
    rows = embed(model, tensors, settings, x, edges, weight)
    labels, confidence = linear.place(model.model_validate(settings).linear, tensors, rows)
    return labels.cpu().numpy(), confidence.cpu().numpy()


def _width(method: LinearMethod, k: int, data: AttributedGraph) -> int:
    """Columns of the randomised SVD, or of the subspace iteration."""
    count = {"ssgc": method.components + OVERSAMPLING, "sagsc": k + OVERSAMPLING, "s2cag": k + 1 + OVERSAMPLING}
    return min(count.get(method.kind, k), data.n_nodes, data.n_features)


def estimate(settings: LinearSettings, data: AttributedGraph, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline."""
    method, k, n = settings.linear, settings.k, data.n_nodes
    stored = np.count_nonzero(data.x)
    table = 8 * stored if stored < SPARSE_BELOW * data.x.size else data.x.nbytes
    edges = 40 * (data.edge_index.shape[1] + n)  # A and S, one of them in float64 too
    widest = max(_width(method, k, data), 256 if method.kind == "m-s2cag" else 0)
    mapped = 12 * n * (1 + k) * (2 + k) // 2 if method.kind == "sagsc" else 0
    inputs = 2 * data.x.nbytes + 2 * data.edge_index.nbytes
    return int(THREADS_AND_KERNELS + inputs + 5 * table + edges + 4 * n * 6 * widest + mapped)


def exchanged(settings: LinearSettings, data: AttributedGraph, world: int) -> int:
    """Bytes that one worker sends in the whole computation without k-means: rows of products, from each to all."""
    method, k = settings.linear, settings.k
    if method.kind == "degree":
        return 0
    n, f = (-(-count // world) * world for count in (data.n_nodes, data.n_features))
    product, adjoint = (method.order + 1) * n, method.order * n + f
    width = _width(method, k, data)
    if method.kind == "m-s2cag":
        lengths = data.n_features if data.n_features <= EXACT_LENGTHS else LENGTH_COLUMNS
        columns = (lengths + 2) * product + adjoint + method.rounds * width * (product + adjoint)
        columns += (width - 1) * product
    else:
        rounds = (POWER_ITERATIONS + 1) * width * (product + adjoint)
        last = {"ssgc": min(method.components, width), "sagsc": min(k, width)}.get(method.kind, k)
        columns = rounds + last * product * (1 + (method.kind == "sagsc") * 2 + method.centred)
    return traffic(4 * columns, 0, world)


def _no_filter(settings: LinearSettings) -> int:
    """The order of the filter in the baseline `filter + k-means`."""
    return 2


def linear_method(
    name: str, summary: str, settings: type[S], searched: tuple[str, ...],
    new_rows: str = "by the filter over the edges that the data has, and the nearest cluster in the fitted subspace",
) -> Method[S, AttributedGraph]:  # fmt: skip
    """A method with these settings; `new_rows` says how it places new ones."""
    return Method(
        name=name,
        summary=summary,
        kind="graph",
        settings=settings,
        train=train,
        predict=partial(predict, settings),
        estimate=estimate,
        exchanged=exchanged,
        embed=partial(embed, settings),
        filter_order=_no_filter,
        searched=searched,
        fixed=(),
        precisions=("float32",),
        weights="enter the filter, in units of their mean",
        new_rows=new_rows,
        save_memory="give more --workers, which share the rows",
        avoid_collapse="try another --order or --features",
    )
