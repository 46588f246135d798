"""HSAN: hard sample aware contrastive clustering of attributed graphs (Liu et al., AAAI 2023, arXiv 2212.08665).

Two attribute encoders and two structure encoders, each one linear layer, give two views of every node:
`Z_v = act(X~ W_v + b_v)`, `E_v = A U_v + c_v`, rows of unit length (eq. 2-4), X~ the low-pass filtered features.
The loss is a weighted InfoNCE over the 2N rows with S = alpha Z Z^T + (1 - alpha) E E^T (eq. 5, 10; `ops.contrast`).
Every `update_every` epochs k-means on the fused Z gives pseudo labels, trusted rows H and new pair weights (eq. 6-9).

Axes: N nodes, F features (after PCA where set), D embedding width, K clusters, M = 2N rows (view 1, then view 2).

Deviations from the paper: a temperature T (the paper has 1); ten k-means++ starts instead of one random start; the
structure encoder is a sparse product; nothing is chosen with labels. `protocol=published` restores the released code.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor
from torch.nn.functional import normalize

from ops.cluster.kmeans import KMeans, kmeans, squared_distances
from ops.contrast.budget import storage_within
from ops.contrast.infonce import hard_infonce
from ops.contrast.rows import unit_rows
from ops.contrast.tiles import upper_numel
from ops.contrast.weights import PairWeights, Storage, trusted_rows
from ops.data.types import AttributedGraph
from ops.errors import DivergedError
from ops.graph.adjacency import adjacency, low_pass, sparse_matrix, symmetric_product
from ops.graph.pca import Projection, fit_pca
from ops.rng import torch_generator
from ops.run.estimator import GraphClusterer
from ops.run.settings import MethodSettings, setting
from ops.run.state import pack_training, unpack_training
from ops.run.types import Result, Run, State

NAME = "hsan"
SEARCHED = ("temperature", "confidence", "beta")  # what a search varies unless told otherwise
ADVICE = "lower --pair-memory (pair weights are then recomputed) or --embedding-dim"
THREADS_AND_KERNELS = 160 * 2**20  # what torch, BLAS and scikit-learn take at their first real work, measured on bat
PUBLISHED = {"gradients": "accumulate", "weights": "stale", "kmeans": "released"}


class Settings(MethodSettings):
    """Hyperparameters of HSAN, under the paper's names."""

    embedding_dim: int = setting(500, "embedding width D", ge=2, le=65536, search={"choice": [250, 500, 1000, 1500]})
    low_pass_order: int = setting(2, "filter order t", ge=0, le=100, search={"randint": [1, 9]})
    pca_dim: int = setting(0, "columns that PCA keeps before the filter; 0: no PCA", ge=0)
    activation: Literal["identity", "sigmoid"] = setting("identity", "activation of the attribute encoders")
    temperature: float = setting(1.0, "temperature T of the loss", ge=0.01, le=100, search={"loguniform": [0.1, 2.0]})
    confidence: float = setting(0.9, "share tau of rows to trust", ge=0, le=1, search={"uniform": [0.1, 0.95]})
    beta: float = setting(1.0, "focusing factor of the pair weights", gt=0, le=20, search={"uniform": [0.5, 6.0]})
    update_every: int = setting(10, "epochs between updates of the pair weights", ge=1)
    gradients: Literal["standard", "accumulate"] = setting("standard", "accumulate: never clear them (released code)")
    weights: Literal["paper", "stale"] = setting("paper", "stale: an update leaves pairs outside H as they were")
    kmeans: Literal["euclidean", "spherical", "released"] = setting("euclidean", "which k-means makes the clusters")
    kmeans_starts: int = setting(10, "k-means++ starts, the lowest inertia wins", ge=1, le=1000)
    self_loops: Literal["keep", "drop"] = setting("keep", "the graph's own self loops in the structure encoder")
    pair_storage: Literal["auto", "float", "uint16", "recompute"] = setting("auto", "how pair weights are held")
    pair_memory: float = setting(0.5, "GiB for pair weights and kept tiles together", ge=0, le=1e6)
    tile_rows: int = setting(512, "rows of a tile of the pairwise loss", ge=16, le=8192)
    protocol: Literal["honest", "published"] = setting("honest", "published: the released code's rules throughout")

    @model_validator(mode="after")
    def _storage(self) -> Settings:
        if self.weights == "stale" and self.pair_storage == "recompute":
            raise ValueError(
                "--weights stale cannot be recomputed (they have no snapshot): drop --pair-storage recompute"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _published(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("protocol") != "published":
            return values
        for key, fixed in PUBLISHED.items():
            if values.get(key, fixed) != fixed:
                raise ValueError(
                    f"--protocol published sets {key}={fixed}: got {key}={values[key]!r}; drop one of them"
                )
        return {**values, **PUBLISHED}


class Encoders(torch.nn.Module):
    """Two attribute and two structure encoders (stacked by view) and alpha; torch.nn.Linear's start, keyed by seed."""

    def __init__(self, n_nodes: int, n_features: int, settings: Settings, seed: int) -> None:
        super().__init__()
        d = settings.embedding_dim
        g = torch_generator(seed, "hsan/encoders")
        for name, fan_in in (("attribute", n_features), ("structure", n_nodes)):
            bound = 1 / math.sqrt(fan_in)
            for part, shape in (("weight", (2, fan_in, d)), ("bias", (2, 1, d))):
                start = torch.empty(shape).uniform_(-bound, bound, generator=g)
                self.register_parameter(f"{name}_{part}", torch.nn.Parameter(start))
        self.alpha = torch.nn.Parameter(torch.tensor(0.99999))
        self.activation = settings.activation

    def attributes(self, x: Float[Tensor, "N F"]) -> Float[Tensor, "M D"]:
        """Z, both views, rows of unit length."""
        weight, bias = self.get_parameter("attribute_weight"), self.get_parameter("attribute_bias")
        z = (x @ weight).add_(bias).flatten(0, 1)
        return unit_rows(z.sigmoid()) if self.activation == "sigmoid" else unit_rows(z, in_place=True)

    def structure(self, a: Tensor) -> Float[Tensor, "M D"]:
        """E, both views, rows of unit length; `a` is the sparse adjacency matrix [N, N]."""
        weight, bias = self.get_parameter("structure_weight"), self.get_parameter("structure_bias")
        return unit_rows(symmetric_product(a, weight).add_(bias).flatten(0, 1), in_place=True)


def fuse(z: Float[Tensor, "M D"]) -> Float[Tensor, "N D"]:
    """The mean of the two views (eq. 6's input)."""
    first, second = z.chunk(2)
    return (first + second) / 2


def storage_for(n_nodes: int, settings: Settings) -> tuple[Storage, int]:
    """How to hold the pair weights within `pair_memory`, and the bytes left for kept tiles; ResourceError if nohow."""
    pairs = upper_numel(2 * n_nodes, settings.tile_rows)
    return storage_within(settings.pair_memory, pairs, settings.weights, settings.pair_storage)


def estimate(settings: Settings, data: AttributedGraph) -> int:
    """Peak bytes of one training above the import baseline; checked against measured peaks by tests/bench/train.py."""
    n, d = data.n_nodes, settings.embedding_dim
    f = min(settings.pca_dim or data.n_features, data.n_features, n)
    storage, cache = storage_for(n, settings)
    pairs = 4 * upper_numel(2 * n, settings.tile_rows)
    kept = {"float": pairs, "uint16": pairs // 2, "recompute": 0}[storage] + min(pairs, cache)
    rows, parameters = 4 * 2 * n * d, 4 * 2 * (n + f) * d
    # parameters with gradients and Adam's moments; Z, E, their gradients and what the encoders' backward pass adds
    training = 4 * parameters + 5.5 * rows + kept + 4 * 4 * settings.tile_rows**2
    preparing = 2 * data.x.nbytes + 3 * 8 * n * f  # PCA's copy; the filter works in float64
    inputs = 2 * data.x.nbytes + 4 * n * f + 4 * data.edge_index.nbytes
    return int(THREADS_AND_KERNELS + inputs + max(training, preparing))


def baseline_order(settings: Settings) -> int:
    """The filter of the baseline `filter + k-means`: the method's own."""
    return settings.low_pass_order


def prepare(settings: Settings, data: AttributedGraph) -> tuple[Float[Tensor, "N F"], Projection | None]:
    """X~: PCA where set, then the low-pass filter (eq. 1)."""
    projection = fit_pca(data.x, settings.pca_dim) if 0 < settings.pca_dim < data.n_features else None
    x = projection(data.x) if projection else data.x
    return torch.from_numpy(low_pass(x, data.edge_index, settings.low_pass_order)), projection


def structure_matrix(settings: Settings, data: AttributedGraph, device: torch.device) -> Tensor:
    """A, sparse [N, N], with the graph's own self loops or without."""
    loops = settings.self_loops == "keep"
    return sparse_matrix(adjacency(data.edge_index, data.n_nodes, self_loops=loops), device)


def cluster(fused: Float[Tensor, "N D"], settings: Settings, seed: int, epoch: int) -> KMeans:
    """k-means by the settings' rule; the draws are keyed by seed and epoch."""
    if settings.kmeans == "released":
        return kmeans(fused, settings.k, (seed, epoch + 1), init="released")
    spherical = settings.kmeans == "spherical"
    return kmeans(fused, settings.k, (seed, epoch + 1), starts=settings.kmeans_starts, spherical=spherical)


def train(settings: Settings, data: AttributedGraph, run: Run) -> Result:
    """Algorithm 1 of the paper; returns the clusters of the last epoch.

    Raises DivergedError on a loss that is not finite, ResourceError where the pair weights exceed their budget.
    """
    x, projection = prepare(settings, data)
    x, a = x.to(run.device), structure_matrix(settings, data, run.device)
    storage, cache = storage_for(data.n_nodes, settings)
    weights = PairWeights(2 * data.n_nodes, settings.beta, settings.weights, storage, settings.tile_rows)
    model = Encoders(data.n_nodes, x.shape[1], settings, run.seed).to(run.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
    keep = settings.gradients == "accumulate"

    def state() -> State:
        stored = {f"weights.{k}": v for k, v in weights.tensors().items()}
        return State(epoch, pack_training(model, optimizer, gradients=keep) | stored)

    if run.start is not None:
        unpack_training(run.start.shared, model, optimizer)
        stored = {k: v for k, v in run.start.shared.items() if k.startswith("weights.")}
        weights.load({k.removeprefix("weights."): v for k, v in stored.items()}, run.device)
    elif settings.protocol == "published":  # its best accuracy starts from the untrained filter + k-means
        run.report(-1, {}, cluster(x, settings, run.seed, -1).labels.cpu().numpy())
    found: KMeans | None = None
    for epoch in range(run.start.epoch + 1 if run.start else 0, settings.epochs):
        if not keep:
            optimizer.zero_grad(set_to_none=True)
        loss = _loss(model, x, a, weights, settings, cache, epoch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        metrics = {"train/loss": float(loss.detach()), "train/alpha": float(model.alpha.detach())}
        found = None
        if epoch % settings.update_every == 0:
            found, hard = _update(model, x, a, weights, settings, (run.seed, epoch))
            metrics["hard/fraction"] = hard
        elif epoch == settings.epochs - 1:
            with torch.no_grad():
                found = cluster(fuse(model.attributes(x)), settings, run.seed, epoch)
        run.report(epoch, metrics, None if found is None else found.labels.cpu().numpy(), state)
    return _result(model, x, projection, settings, run.seed, found)


def _loss(
    model: Encoders, x: Tensor, a: Tensor, weights: PairWeights, settings: Settings, cache: int, epoch: int
) -> Tensor:
    try:
        loss = hard_infonce(model.attributes(x), model.structure(a), model.alpha, weights, settings.temperature, cache)
    except OverflowError as error:
        raise DivergedError(f"epoch {epoch}: {error}; lower --lr or raise --temperature") from None
    if not torch.isfinite(loss):
        raise DivergedError(f"epoch {epoch}: the loss is {float(loss)}; lower --lr or raise --temperature")
    return loss


@torch.no_grad()
def _update(
    model: Encoders, x: Tensor, a: Tensor, weights: PairWeights, settings: Settings, key: tuple[int, int]
) -> tuple[KMeans, float]:
    """Pseudo labels from re-encoded rows, then the weights of the coming epochs (eq. 6-9); no gradient."""
    z = model.attributes(x)
    fused = fuse(z)
    found = cluster(fused, settings, *key)
    space = normalize(fused) if settings.kmeans == "spherical" else fused
    trusted = trusted_rows(space, found.centres, settings.confidence)
    return found, weights.update(z, model.structure(a), float(model.alpha), found.labels, trusted)


@torch.no_grad()
def _result(
    model: Encoders, x: Tensor, projection: Projection | None, settings: Settings, seed: int, found: KMeans | None
) -> Result:
    fused = fuse(model.attributes(x))
    if found is None:  # resumed from the state of the last epoch: nothing was left to train
        found = cluster(fused, settings, seed, settings.epochs - 1)
    tensors = {name: p.detach().cpu() for name, p in model.named_parameters()} | {"centres": found.centres.cpu()}
    if projection is not None:
        tensors |= projection.tensors()
    _, confidence = assign(fused, found.centres, settings)
    return Result(found.labels.cpu().numpy(), confidence.cpu().numpy(), fused.cpu().numpy(), tensors)


def assign(
    fused: Float[Tensor, "N D"], centres: Float[Tensor, "K D"], settings: Settings
) -> tuple[Int64[Tensor, "N"], Float[Tensor, "N"]]:
    """Nearest centre, and a confidence in [0, 1]: 1 - (distance to it) / (distance to the next centre)."""
    space = normalize(fused) if settings.kmeans == "spherical" else fused
    near = squared_distances(space, centres).sqrt().topk(2, largest=False)
    return near.indices[:, 0], 1 - near.values[:, 0] / near.values[:, 1].clamp_min(1e-12)


@torch.no_grad()
def embed(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], x: NDArray[np.float32], edge_index: NDArray[np.int64]
) -> Float[Tensor, "N D"]:
    """Fused rows of a stored model for features `x` [N, F] filtered over `edge_index` [2, E] (which may be empty)."""
    chosen = Settings.model_validate(settings)
    projection = Projection.load(tensors)
    filtered = low_pass(projection(x) if projection else x, edge_index, chosen.low_pass_order)
    model = Encoders(1, filtered.shape[1], chosen, seed=0)
    for part in ("attribute_weight", "attribute_bias"):
        model.get_parameter(part).copy_(tensors[part])
    return fuse(model.attributes(torch.from_numpy(filtered)))


def predict(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]) of rows `x` [n, F], by the attribute encoders and the nearest centre.

    Edges among the rows are used for the filter; without them each row stands alone. The structure encoders are
    transductive (one weight row a training node) and shape the clusters through training only.
    """
    edges = np.empty((2, 0), dtype=np.int64) if edge_index is None else edge_index
    fused = embed(tensors, settings, x, edges)
    labels, confidence = assign(fused, tensors["centres"], Settings.model_validate(settings))
    return labels.numpy(), confidence.numpy()


class HSAN(GraphClusterer):
    """scikit-learn-like estimator: `HSAN(n_clusters=7, epochs=100).fit(x, edge_index).labels_`."""

    method = sys.modules[__name__]
