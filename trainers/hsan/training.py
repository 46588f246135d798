"""Algorithm 1 of HSAN: the loss by tiles, pseudo labels and pair weights every `update_every` epochs.

Axes: N nodes, F features (after PCA where set), D embedding width, K clusters, M = 2N rows (view 1, then view 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ops.cluster.kmeans import KMeans, kmeans
from ops.contrast.infonce import hard_infonce
from ops.contrast.weights import PairWeights, trusted_rows
from ops.data.types import AttributedGraph
from ops.errors import DivergedError
from ops.graph.pca import Projection
from ops.run.state import pack_training, unpack_training
from ops.run.types import Result, Run, State
from trainers.hsan.cost import storage_for
from trainers.hsan.inference import assign
from trainers.hsan.model import Encoders, fuse, prepare, structure_matrix
from trainers.hsan.settings import Settings


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
