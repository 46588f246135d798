"""Algorithm 1 of HSAN: the loss by tiles, pseudo labels and pair weights every `update_every` epochs.

With all pairs there is one step an epoch, with the pair weights of the last update. In batches there is a step for each
batch of nodes; its pair weights are computed from the rows of the step with the last pseudo labels (the paper has no
batches). Each of W workers encodes N / W rows of a step and walks an equal share of its tiles. Parameters are
replicated and their gradients summed.

Axes: N nodes, F features (after PCA where set), D embedding width, K clusters, M = 2N rows (view 1, then view 2).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ops.api import Result, Run, State
from ops.clustering.kmeans import Clustering, kmeans_gathered
from ops.data.types.graph import AttributedGraph
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.errors import DivergedError
from ops.graph.sampling.batches import epoch_batches, part_of
from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights, trusted_rows
from ops.losses.tiles import tile_rows_on
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.hsan.cost import storage_for
from trainers.hsan.model import ATTRIBUTE, Encoders, batch_rows, fuse, rows_of, structure_matrix
from trainers.hsan.settings import Settings
from trainers.hsan.warm import begin_warm, prepare_warm
from trainers.last_sound import train_to_last_sound
from trainers.shared import (
    Evaluation,
    check_loss,
    gradient_step,
    is_due,
    keep_cluster_ids,
    means,
    run_epochs,
    sent_bytes,
)

REMEDY = "lower --lr or raise --temperature"


def train(settings: Settings, data: AttributedGraph, run: Run) -> Result:
    """Algorithm 1 of the paper; returns the clusters of the last sound evaluation.

    Where none is sound, and with `--protocol published`, they are those of the last epoch. Raises DivergedError on a
    loss that is not finite, ResourceError where the pair weights exceed their budget.
    """
    trainer = HsanTrainer(settings, data, run)
    weights = dict(trainer.model.named_parameters()) | trainer.average
    if settings.guarded:
        result = train_to_last_sound(trainer, weights, settings, data, run)
    else:
        result = run_epochs(trainer, run, settings.epochs)
    return keep_cluster_ids(result, settings.k, run.warm)


def _tile_rows(settings: Settings, run: Run) -> int:
    """The rows of a tile: those that suit the device, or those of the checkpoint, which may be from another device."""
    stored = run.start.parts.values() if run.start is not None else ()
    first = next((part["weights.tile.0"] for part in stored if "weights.tile.0" in part), None)
    return tile_rows_on(settings.tile_rows, run.device) if first is None else len(first)


class HsanTrainer:
    """Model, optimiser and pair weights of one seed between two epochs; continues from `run.start` where there is one.

    Every worker builds the same from the same data and keeps its share of the rows.
    """

    def __init__(self, settings: Settings, data: AttributedGraph, run: Run) -> None:
        self.settings, self.seed, self.device = settings, run.seed, run.device
        self.group = ProcessGroup(run.rank, run.world)
        x, self.projection = prepare_warm(settings, data, run.warm)
        self.a = structure_matrix(settings, data)
        self.part = part_of(settings, data)
        self.in_batches = bool(settings.batch_nodes or settings.parts)
        self.rows = rows_of(x, self.a, self.group, run.device)
        self.x = x if self.in_batches else x.new_empty(0)  # with all pairs a worker needs only its rows: X~ is freed
        self.tile_rows = _tile_rows(settings, run)
        self.weights = self._weights(1 if self.in_batches else data.n_nodes)  # a batch makes its own
        self.labels: Int64[Tensor, "N"] | None = None
        self.trusted: Bool[Tensor, "N"] | None = None
        self.clusters: Clustering | None = None  # of the last evaluation
        self.model = Encoders(data.n_nodes, x.shape[1], settings, run.seed).to(run.device)
        begin_warm(self.model, run.warm)
        # the averages of the attribute encoders, where the clusters come from them
        names = ATTRIBUTE if settings.ema else ()
        self.average = {name: self.model.get_parameter(name).detach().clone() for name in names}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)
        if run.start is not None:
            self._load(run.start)
        self.alpha = float(self.model.alpha.detach())  # as the host read it last
        if run.start is None and settings.protocol == "published":
            # the released code counts the untrained filter + k-means among the epochs of its best accuracy
            run.report(-1, {}, self.cluster(x.to(run.device), -1).labels.cpu().numpy())

    def epoch(self, epoch: int) -> dict[str, float]:
        """One epoch: a step over all pairs, or one for each batch. Returns the metrics, means over the steps."""
        before = self.group.counters
        self.optimizer.param_groups[0]["lr"] = self.settings.lr_at(epoch)
        steps = self._batches(epoch) if self.in_batches else [self._all_pairs(epoch)]
        with torch.no_grad():
            for name, mean in self.average.items():
                mean.lerp_(self.model.get_parameter(name), 1 - self.settings.ema if epoch else 1.0)
        read = means(steps, {"train/alpha": self.model.alpha.detach()})
        check_loss(read["train/loss"], epoch, REMEDY)
        self.alpha = read["train/alpha"]
        return read | sent_bytes(self.group, before, len(steps))

    def _all_pairs(self, epoch: int) -> dict[str, Tensor]:
        z, e = self.model.encode(self.rows, self.group)
        return {"train/loss": self._learn(z, e, self.weights, epoch)}

    def _batches(self, epoch: int) -> list[dict[str, Tensor]]:
        steps = []
        for batch in epoch_batches(self.settings, len(self.x), self.part, self.seed, epoch):
            z, e = self.model.encode(batch_rows(self.x, self.a, batch, self.group, self.device), self.group)
            weights, metrics = self._weights(len(batch.nodes)), dict[str, Tensor]()
            if self.labels is not None and self.trusted is not None:
                nodes = send(batch.nodes, self.device)
                metrics["hard/fraction"] = weights.update(
                    z.detach(), e.detach(), self.model.alpha.detach(), self.labels[nodes], self.trusted[nodes]
                )
            steps.append(metrics | {"train/loss": self._learn(z, e, weights, epoch)})
        return steps

    def _weights(self, n_nodes: int) -> PairWeights:
        s = self.settings
        storage, self.cache = storage_for(n_nodes, s, self.group.world, self.tile_rows)
        return PairWeights(2 * n_nodes, s.beta, s.weights, storage, self.tile_rows, self.group)

    def _learn(self, z: Float[Tensor, "M D"], e: Float[Tensor, "M D"], weights: PairWeights, epoch: int) -> Tensor:
        """Adam's step on the loss of all pairs of these rows; returns the loss."""
        try:
            loss = hard_infonce(z, e, self.model.alpha, weights, self.settings.temperature, self.cache, self.alpha)
        except OverflowError as error:
            raise DivergedError(f"epoch {epoch}: {error}; {REMEDY}") from None
        leak, parameters = self.settings.leak, list(self.model.parameters())
        for parameter in parameters if 0 < leak < 1 else ():
            if parameter.grad is not None:  # the sum of the earlier steps
                parameter.grad.mul_(leak)
        gradient_step(loss, parameters, self.optimizer, self.group, accumulate=leak > 0)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """The clusters to report, or None where none are due.

        Every `update_every` epochs the pseudo labels and pair weights of the next epochs are made first.
        """
        metrics: dict[str, float] = {}
        self.clusters = None
        if epoch % self.settings.update_every == 0:
            self.clusters, metrics = self.update(epoch)
            if self.average:  # training uses the present encoders' clusters, the report those of the averages
                self.clusters = None
        elif not is_due(epoch, self.settings.update_every, self.settings.epochs):
            return None
        self.clusters = self.clusters or self.cluster(self.fused(), epoch)
        return Evaluation(self.clusters.labels.cpu().numpy(), metrics=metrics)

    @torch.no_grad()
    def update(self, epoch: int) -> tuple[Clustering, dict[str, float]]:
        """Pseudo labels from rows encoded again, then the pair weights of the next epochs (eq. 6-9); no gradient.

        In batches only labels and H are kept: the weights of a batch are made from its rows when it is trained on.
        """
        if self.in_batches:
            fused = fuse(self.model.attributes(self.rows, self.group))
            clusters = self.cluster(fused, epoch)
            self.labels, self.trusted = clusters.labels, self._trusted(fused, clusters)
            return clusters, {}
        z, e = self.model.encode(self.rows, self.group)
        fused = fuse(z)
        clusters = self.cluster(fused, epoch)
        trusted = self._trusted(fused, clusters)
        hard = self.weights.update(z, e, self.model.alpha.detach(), clusters.labels, trusted)
        return clusters, {"hard/fraction": float(hard)}

    def _trusted(self, fused: Float[Tensor, "N D"], clusters: Clustering) -> Bool[Tensor, "N"]:
        space = normalize(fused) if self.settings.kmeans == "spherical" else fused
        return self.group.broadcast_(trusted_rows(space, clusters.centres, self.settings.confidence))

    @torch.no_grad()
    def fused(self) -> Float[Tensor, "N D"]:
        """The fused rows of all nodes that results are made of (by averaged encoders where set), on every worker."""
        return fuse(self.model.attributes(self.rows, self.group, self.average or None))

    def cluster(self, fused: Float[Tensor, "N D"], epoch: int) -> Clustering:
        """k-means by the rule of the settings, over the workers; its draws are keyed by seed and epoch."""
        s = self.settings
        rule: dict[str, Any] = {"starts": s.kmeans_starts, "spherical": s.kmeans == "spherical"}
        if s.kmeans == "released":
            rule = {"init": "released"}
        return kmeans_gathered(fused, s.k, (self.seed, epoch + 1), self.group, **rule)

    def state(self, epoch: int) -> State:
        """All that a resumed run needs; the pair weights are in parts, the tiles of each worker by their number."""
        stored = {f"weights.{k}": v for k, v in self.weights.tensors().items()}
        tiles = {k: v for k, v in stored.items() if k.startswith("weights.tile.")}
        shared = {k: v for k, v in stored.items() if k not in tiles}
        if self.labels is not None and self.trusted is not None:
            shared |= {"pseudo.labels": self.labels, "pseudo.trusted": self.trusted}
        shared |= {f"average.{name}": mean for name, mean in self.average.items()}
        packed = pack_training(self.model, self.optimizer, gradients=self.settings.leak > 0)
        return State(epoch, packed | shared, {self.group.rank: tiles} if tiles else {})

    def _load(self, start: State) -> None:
        unpack_training(start.shared, self.model, self.optimizer)
        stored = dict(start.shared)
        for part in start.parts.values():
            stored |= part
        prefix = "weights."
        weights = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        self.weights.load(weights, self.device)
        for name, mean in self.average.items():
            mean.copy_(stored[f"average.{name}"])
        if "pseudo.labels" in stored:
            self.labels = stored["pseudo.labels"].to(self.device)
            self.trusted = stored["pseudo.trusted"].to(self.device)

    @torch.no_grad()
    def result(self) -> Result:
        """Clusters, confidence, embedding and model as they are now."""
        fused = self.fused()
        # there are none after a resume from the last epoch, when nothing was left to train
        clusters = self.clusters or self.cluster(fused, self.settings.epochs - 1)
        tensors = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        tensors |= {name: mean.cpu() for name, mean in self.average.items()}
        tensors["centres"] = clusters.centres.cpu()
        if self.projection is not None:
            tensors |= self.projection.tensors()
        labels, confidence = clusters.labels.cpu().numpy(), clusters.confidence.float().cpu().numpy()
        spherical = self.settings.kmeans == "spherical"
        return Result(labels, confidence, fused.cpu().numpy(), tensors, spherical=spherical)
