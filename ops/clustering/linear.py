"""Linear clustering of attributed graphs: filter features, take a subspace, round it to clusters. Nothing is trained.

ssgc     `H = alpha X + (1 - alpha)/T sum_{t=1..T} S^t X`; its leading singular vectors times their singular values
         (principal components, where centred); k-means of rows of unit length (Zhu & Koniusz, ICLR 2021).
sagsc    `H = S^T X` (S to the power T), centred; its K leading left singular vectors; their quadratic feature map
         divided by the root of its degrees; the K singular vectors after the first of that; k-means (Fettal et al.,
         AAAI 2023).
s2cag    `Z = (1 - a)/(1 - a^(T+1)) sum_{t=0..T} a^t P^t X^`, `X^ = X / sqrt(X X^T 1)` row by row; its left singular
         vectors 2 .. K+1, rounded by SNEM (Lin et al., KDD 2025).
m-s2cag  the same Z of X as it is, with rows of unit length; the leading eigenvectors of the modularity of `Z Z^T`;
         k-means of rows of unit length (the same paper).
degree   k-means on log(1 + degree): roles instead of communities. Features do not count.

Costs are linear in the edges. Axes: N nodes, n rows of another table, F features, D width, K clusters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.kmeans import kmeans_gathered
from ops.clustering.lloyd import nearest_two
from ops.clustering.spectral import leading_vectors, modularity_vectors, quadratic_map, snem
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.graph.features import Table, Treatment, fit_treatment, scaled_rows, treated
from ops.graph.filters import Filtered, Smoothing, smoothing_of, split_rows

Kind = Literal["ssgc", "sagsc", "s2cag", "m-s2cag", "degree"]
KINDS: tuple[Kind, ...] = get_args(Kind)[:-1]  # the kinds that use the features


@dataclass(frozen=True)
class LinearMethod:
    """A linear method with its settings.

    `order` is T, `starts` are those of k-means, `alpha`, `components` and `centred` are of ssgc, `decay` is of both
    s2cag, `gamma` and `rounds` of m-s2cag.
    """

    kind: Kind
    order: int
    features: Treatment
    alpha: float = 0.05
    components: int = 20
    decay: float = 0.9
    gamma: float = 0.9
    rounds: int = 50
    starts: int = 10
    centred: bool = False

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the powers 0 .. T in the filter."""
        t, a = self.order, self.decay
        if self.kind == "ssgc":
            return (self.alpha, *([(1 - self.alpha) / t] * t)) if t else (1.0,)
        if self.kind == "sagsc":
            return (*([0.0] * t), 1.0)
        powers = [a**i for i in range(t + 1)]
        return tuple(p / sum(powers) for p in powers)

    @property
    def spherical(self) -> bool:
        """Whether k-means works on rows and centres of unit length."""
        return self.kind in ("ssgc", "m-s2cag")


@dataclass(frozen=True)
class Fit:
    """Clusters [N], confidence in [0, 1] [N], the rows that were rounded to clusters [N D], and the model's tensors."""

    labels: Int64[Tensor, "N"]
    confidence: Float[Tensor, "N"]
    embedding: Float[Tensor, "N D"]
    model: dict[str, Tensor] = field(default_factory=dict)


def fit(
    method: LinearMethod,
    x: Table,
    smoothing: Smoothing,
    n_clusters: int,
    seed: tuple[int, ...],
) -> Fit:
    """Cluster the nodes with features `x` [N, F]; `smoothing` is that of their edges. `seed` keys every draw.

    Raises DataError for negative features where `s2cag` divides by the root of their sums.
    """
    if method.kind == "degree":
        return _rounded(method, {}, _log_degree(smoothing), smoothing, n_clusters, seed)
    model = fit_treatment(x, method.features)
    table = treated(x, method.features, model)
    if method.kind == "s2cag":
        if table.shape[0] and table.min() < 0:
            raise DataError(
                f"s2cag with --features {method.features}: features below 0, whose sums it divides by; give "
                "--variant m-s2cag"
            )
        model["columns"] = torch.from_numpy(np.asarray(table.sum(axis=0), dtype=np.float32))
    z = _filtered(method, table, model, smoothing)
    return _rounded(method, model, _subspace(method, z, model, n_clusters, seed), smoothing, n_clusters, seed)


def _rounded(
    method: LinearMethod, model: dict[str, Tensor], rows: Float[Tensor, "N D"], smoothing: Smoothing, n_clusters: int,
    seed: tuple[int, ...],
) -> Fit:  # fmt: skip
    """The clusters of the subspace's rows; their centres are put into `model`."""
    group = smoothing.steps.group
    if method.kind == "s2cag" and rows.shape[1] == n_clusters:  # not where the features are too few for K columns
        _, model["centres"] = snem(rows, group)
    else:
        options = {"starts": method.starts, "spherical": method.spherical}
        model["centres"] = kmeans_gathered(rows, n_clusters, seed, group, **options).centres
    labels, confidence = place(method, model, rows)
    return Fit(labels, confidence, rows, {name: tensor.cpu() for name, tensor in model.items()})


def embed(
    method: LinearMethod, model: Mapping[str, Tensor], x: NDArray[np.float32], edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "n D"]:  # fmt: skip
    """Rows of a fitted model for features `x` [n, F] over `edge_index` [2, E] (may be empty) with `weight` [E]."""
    smoothing = smoothing_of(edge_index, len(x), ProcessGroup(), model["centres"].device, weight)
    if method.kind == "degree":
        return _log_degree(smoothing)
    z = _filtered(method, treated(x, method.features, model), model, smoothing)
    return _rows(method, z, model)


def place(
    method: LinearMethod, model: Mapping[str, Tensor], rows: Float[Tensor, "n D"]
) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"]]:
    """(cluster, confidence) of a model's rows: by the nearest centre, or by SNEM's scores with `1 - next / best`."""
    if not _by_scores(method, model["centres"]):
        return nearest_two(rows, model["centres"])
    scores = rows @ model["centres"].T
    best = scores.topk(min(2, scores.shape[1]), dim=1)
    ahead = 1 - best.values[:, -1] / best.values[:, 0].clamp_min(1e-30)
    return best.indices[:, 0], ahead.clamp(0, 1) if scores.shape[1] > 1 else torch.ones_like(ahead)


def _log_degree(smoothing: Smoothing) -> Float[Tensor, "N 1"]:
    """log(1 + degree)."""
    return smoothing.root_degree.square().log()


def _by_scores(method: LinearMethod, centres: Float[Tensor, "K D"]) -> bool:
    """Whether the cluster is that of the highest score (SNEM's matrix is square) and not of the nearest centre."""
    return method.kind == "s2cag" and centres.shape[0] == centres.shape[1]


def _filtered(method: LinearMethod, table: Table, model: Mapping[str, Tensor], smoothing: Smoothing) -> Filtered:
    """Z of treated features [n, F], scaled by what `model` stores of the training."""
    if method.kind == "s2cag":
        table = scaled_rows(table, np.sqrt(np.maximum(table @ model["columns"].cpu().numpy(), 0)))
    group, device = smoothing.steps.group, smoothing.root_degree.device
    columns = table.T if isinstance(table, np.ndarray) else table.T.tocsr()
    features, transposed = split_rows(table, group, device), split_rows(columns, group, device)
    walk = method.kind in ("s2cag", "m-s2cag")
    centred = method.kind == "sagsc" or (method.kind == "ssgc" and method.centred)
    z = Filtered(features, transposed, smoothing, method.weights, walk, centred)
    return z.with_unit_rows() if method.kind == "m-s2cag" else z


def _subspace(
    method: LinearMethod, z: Filtered, model: dict[str, Tensor], k: int, seed: tuple[int, ...]
) -> Float[Tensor, "N D"]:
    """Put the method's subspace into `model`; returns the training's rows in it."""
    if method.kind == "m-s2cag":
        model["projection"] = modularity_vectors(z, k, method.gamma, method.rounds, seed)
    elif method.kind == "s2cag":
        model["projection"], _ = leading_vectors(z, k, seed, first=1)
    else:
        count = k if method.kind == "sagsc" else method.components
        projection, values = leading_vectors(z, count, seed)
        model["projection"] = projection * values if method.kind == "ssgc" else projection
        if z.centred:
            model["mean"] = z.raw(model["projection"]).mean(0)
    if method.kind == "sagsc":
        phi = quadratic_map(z @ model["projection"])
        model["degrees"] = phi.sum(0)
        phi = phi / (phi @ model["degrees"]).clamp_min(1e-30).sqrt()[:, None]
        values, vectors = torch.linalg.eigh(phi.double().T @ phi.double())
        chosen = slice(max(len(values) - k - 1, 0), -1)
        scale = values[chosen].clamp_min(1e-12 * float(values[-1])).rsqrt()
        model["quadratic"] = z.features.group.broadcast_((vectors[:, chosen] * scale).float())
    return _rows(method, z, model)


def _rows(method: LinearMethod, z: Filtered, model: Mapping[str, Tensor]) -> Float[Tensor, "n D"]:
    rows = z.raw(model["projection"].to(z.smoothing.root_degree))
    if "mean" in model:
        rows = rows - model["mean"]
    if method.kind == "sagsc":
        phi = quadratic_map(rows)
        rows = (phi / (phi @ model["degrees"]).clamp_min(1e-30).sqrt()[:, None]) @ model["quadratic"]
    return normalize(rows) if method.spherical else rows
