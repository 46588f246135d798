"""Algorithm 1 of HSAN: the loss by tiles, pseudo labels and pair weights every `update_every` epochs.

All pairs: one step an epoch, the pair weights of the last update held. In batches: a step a batch of nodes, its pair
weights computed from the step's own rows with the last pseudo labels (the paper has no batches). Over W workers each
owns N / W rows of a step and an equal share of its tiles; parameters are replicated, their gradients summed.

Axes: N nodes, F features (after PCA where set), D embedding width, K clusters, M = 2N rows (view 1, then view 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ops.api import Result, Run, State
from ops.clustering.kmeans import KMeans, kmeans
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import Team
from ops.errors import DivergedError
from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights, trusted_rows
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.hsan.cost import storage_for
from trainers.hsan.inference import assign
from trainers.hsan.model import ATTRIBUTE, Encoders, batch_rows, fuse, rows_of, structure_matrix
from trainers.hsan.settings import Settings
from trainers.hsan.source import Source, source_of
from trainers.hsan.warm import begin_warm, match_ids, prepare_warm


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
    training = Training(settings, data, run)
    found: KMeans | None = None
    for epoch in range(run.start.epoch + 1 if run.start else 0, settings.epochs):
        metrics = training.step(epoch)
        found = None
        if epoch % settings.update_every == 0:
            found, more = training.update(epoch)
            metrics |= more
        elif epoch == settings.epochs - 1:
            found = training.cluster(training.fused(), epoch)
        assignment = None if found is None else found.labels.cpu().numpy()
        run.report(epoch, metrics, assignment, lambda epoch=epoch: training.state(epoch))  # type: ignore[misc]
    return match_ids(training.result(found), settings, run.warm)


class Training:
    """Model, optimiser and pair weights of one seed between two epochs; `run.start` is taken over where there is one.

    Every worker builds the same from the same data and keeps its own rows of it.
    """

    def __init__(self, settings: Settings, data: AttributedGraph, run: Run) -> None:
        self.settings, self.seed = settings, run.seed
        self.team = Team(run.rank, run.world)
        self.device = run.device
        x, self.projection = prepare_warm(settings, data, run.warm)
        a = structure_matrix(settings, data)
        self.source = source_of(settings, data, x, a)
        self.rows = rows_of(x, a, self.team, run.device)
        self.weights = self._weights(data.n_nodes if self.source is None else 1)  # a batch makes its own
        self.labels: Int64[Tensor, "N"] | None = None
        self.trusted: Bool[Tensor, "N"] | None = None
        self.model = Encoders(data.n_nodes, x.shape[1], settings, run.seed).to(run.device)
        begin_warm(self.model, run.warm)
        # of the attribute encoders, where clusters come from an average of them
        self.average: dict[str, Tensor] | None = None
        if settings.ema:
            self.average = {name: self.model.get_parameter(name).detach().clone() for name in ATTRIBUTE}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)
        if run.start is not None:
            self._load(run.start, run.device)
        elif settings.protocol == "published":  # its best accuracy starts from the untrained filter + k-means
            run.report(-1, {}, self.cluster(x.to(run.device), -1).labels.cpu().numpy())

    def step(self, epoch: int) -> dict[str, float]:
        """One epoch: a step over all pairs or one a batch; its metrics, means over the steps."""
        before = self.team.gathered, self.team.reduced
        found = [self._all_pairs(epoch)] if self.source is None else self._batches(self.source, epoch)
        metrics = {key: sum(each[key] for each in found) / len(found) for key in found[0]}
        self._follow(epoch)
        metrics["train/alpha"] = float(self.model.alpha.detach())
        if self.team.world > 1:
            metrics["sys/sent_bytes"] = self.team.sent_since(*before) / len(found)
        return metrics

    def _all_pairs(self, epoch: int) -> dict[str, float]:
        z, e = self.model.encode(self.rows, self.team)
        loss = self._loss(z, e, self.weights, epoch)
        self._learn(loss)
        return {"train/loss": float(loss.detach())}

    def _batches(self, source: Source, epoch: int) -> list[dict[str, float]]:
        found = []
        for batch in source.batches(self.seed, epoch):
            rows = batch_rows(source.x, source.a, batch, self.team, self.device)
            z, e = self.model.encode(rows, self.team)
            weights = self._weights(len(batch.nodes))
            metrics = {}
            if self.labels is not None and self.trusted is not None:
                nodes = torch.from_numpy(batch.nodes).to(self.device)
                with torch.no_grad():
                    hard = weights.update(
                        z.detach(), e.detach(), float(self.model.alpha.detach()), self.labels[nodes],
                        self.trusted[nodes],
                    )  # fmt: skip
                metrics["hard/fraction"] = hard
            loss = self._loss(z, e, weights, epoch)
            self._learn(loss)
            found.append(metrics | {"train/loss": float(loss.detach())})
        return found

    def _weights(self, n_nodes: int) -> PairWeights:
        s = self.settings
        storage, self.cache = storage_for(n_nodes, s, self.team.world)
        return PairWeights(2 * n_nodes, s.beta, s.weights, storage, s.tile_rows, self.team)

    def _loss(self, z: Float[Tensor, "M D"], e: Float[Tensor, "M D"], weights: PairWeights, epoch: int) -> Tensor:
        try:
            loss = hard_infonce(z, e, self.model.alpha, weights, self.settings.temperature, self.cache)
        except OverflowError as error:
            raise DivergedError(f"epoch {epoch}: {error}; lower --lr or raise --temperature") from None
        if not torch.isfinite(loss):
            raise DivergedError(f"epoch {epoch}: the loss is {float(loss)}; lower --lr or raise --temperature")
        return loss

    def _learn(self, loss: Tensor) -> None:
        """Gradients of this worker's rows and tiles, summed over the workers, then Adam's step on each of them."""
        if self.settings.gradients == "standard":
            self.optimizer.zero_grad(set_to_none=True)
        parameters = list(self.model.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            self.team.sum_(gradient)
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        self.optimizer.step()

    @torch.no_grad()
    def _follow(self, epoch: int) -> None:
        for name, mean in (self.average or {}).items():
            mean.lerp_(self.model.get_parameter(name), 1 - self.settings.ema if epoch else 1.0)

    @torch.no_grad()
    def update(self, epoch: int) -> tuple[KMeans, dict[str, float]]:
        """Pseudo labels from re-encoded rows, then the weights of the coming epochs (eq. 6-9); no gradient.

        In batches only labels and H are kept: a batch's weights come from its own rows, when it is trained on.
        """
        if self.source is not None:
            fused = fuse(self.model.attributes(self.rows, self.team))
            found = self.cluster(fused, epoch)
            self.labels, self.trusted = found.labels, self._trusted(fused, found)
            return self._reported(found, epoch), {}
        z, e = self.model.encode(self.rows, self.team)
        fused = fuse(z)
        found = self.cluster(fused, epoch)
        trusted = self._trusted(fused, found)
        hard = self.weights.update(z, e, float(self.model.alpha), found.labels, trusted)
        return self._reported(found, epoch), {"hard/fraction": hard}

    def _reported(self, found: KMeans, epoch: int) -> KMeans:
        """The clusters to report: of the averaged encoders where they are averaged; training takes the present ones."""
        return found if self.average is None else self.cluster(self.fused(), epoch)

    def _trusted(self, fused: Float[Tensor, "N D"], found: KMeans) -> Bool[Tensor, "N"]:
        space = normalize(fused) if self.settings.kmeans == "spherical" else fused
        return self.team.from_first_(trusted_rows(space, found.centres, self.settings.confidence))

    @torch.no_grad()
    def fused(self) -> Float[Tensor, "N D"]:
        """The fused rows of all nodes that results come from (averaged encoders where set), on every worker."""
        return fuse(self.model.attributes(self.rows, self.team, self.average))

    def cluster(self, fused: Float[Tensor, "N D"], epoch: int) -> KMeans:
        """`cluster`, by the first worker for all."""
        if self.team.rank == 0:
            found = cluster(fused, self.settings, self.seed, epoch)
        else:
            labels: Int64[Tensor, "N"] = torch.empty(len(fused), dtype=torch.int64, device=fused.device)
            found = KMeans(labels, fused.new_empty(self.settings.k, fused.shape[1]), float("nan"), 0)
        self.team.from_first_(found.labels)
        self.team.from_first_(found.centres)
        return found

    def state(self, epoch: int) -> State:
        """All that a resumed run needs; the pair weights in parts, each worker's tiles by their number."""
        stored = {f"weights.{k}": v for k, v in self.weights.tensors().items()}
        tiles = {k: v for k, v in stored.items() if k.startswith("weights.tile.")}
        rest = {k: v for k, v in stored.items() if k not in tiles}
        if self.labels is not None and self.trusted is not None:
            rest |= {"pseudo.labels": self.labels, "pseudo.trusted": self.trusted}
        rest |= {f"average.{name}": mean for name, mean in (self.average or {}).items()}
        packed = pack_training(self.model, self.optimizer, gradients=self.settings.gradients == "accumulate")
        return State(epoch, packed | rest, {self.team.rank: tiles} if tiles else {})

    def _load(self, start: State, device: torch.device) -> None:
        unpack_training(start.shared, self.model, self.optimizer)
        stored = dict(start.shared)
        for part in start.parts.values():
            stored |= part
        prefix = "weights."
        self.weights.load({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}, device)
        for name, mean in (self.average or {}).items():
            mean.copy_(stored[f"average.{name}"])
        if "pseudo.labels" in stored:
            self.labels, self.trusted = stored["pseudo.labels"].to(device), stored["pseudo.trusted"].to(device)

    @torch.no_grad()
    def result(self, found: KMeans | None) -> Result:
        """Clusters, confidence, embedding and model as they stand."""
        fused = self.fused()
        if found is None:  # resumed from the state of the last epoch: nothing was left to train
            found = self.cluster(fused, self.settings.epochs - 1)
        tensors = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        tensors |= {name: mean.cpu() for name, mean in (self.average or {}).items()}
        tensors["centres"] = found.centres.cpu()
        if self.projection is not None:
            tensors |= self.projection.tensors()
        _, confidence = assign(fused, found.centres, self.settings)
        return Result(found.labels.cpu().numpy(), confidence.cpu().numpy(), fused.cpu().numpy(), tensors)
