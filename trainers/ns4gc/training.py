"""NS4GC's training: two views of the graph in each step, similarities of all pairs, k-means on rows of the whole graph.

With all nodes there is one step an epoch. In parts, a step takes a few parts with the edges and pairs within them. Each
of W workers encodes N / W rows of a step and walks an equal share of its tiles. Parameters are replicated and their
gradients summed.

Axes: N nodes, D embedding width, K clusters.
"""

import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.kmeans import Clustering, kmeans_gathered
from ops.data.types.graph import AttributedGraph
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from ops.graph.sampling.batches import epoch_batches, part_of
from ops.losses.link_bce import Links, links_of
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.last_sound import train_to_last_sound
from trainers.ns4gc.loss import similarity_loss
from trainers.ns4gc.model import Network, smoothing, view
from trainers.ns4gc.settings import Settings
from trainers.shared import (
    Evaluation,
    Features,
    check_loss,
    features_of,
    gradient_step,
    is_due,
    keep_cluster_ids,
    means,
    sent_bytes,
)


def train(settings: Settings, data: AttributedGraph, run: Run) -> Result:
    """Train one seed; returns the clusters of the last sound evaluation, or of the last one where none is sound.

    Raises DivergedError on a loss that is not finite.
    """
    trainer = Ns4gcTrainer(settings, data, run)
    result = train_to_last_sound(trainer, dict(trainer.network.named_parameters()), settings, data, run)
    return keep_cluster_ids(result, settings.k, run.warm)


class Ns4gcTrainer:
    """Network and optimiser of one seed between two epochs; continues from `run.start` where there is one."""

    def __init__(self, settings: Settings, data: AttributedGraph, run: Run) -> None:
        self.settings, self.seed, self.device, self.x = settings, run.seed, run.device, data.x
        self.group = ProcessGroup(run.rank, run.world)
        self.a = adjacency(data.edge_index, data.n_nodes, self_loops=False)
        self.part = part_of(settings, data)
        self.features = features_of(data.x, self.group, run.device)
        self.smoothing = smoothing(self.a, self.group, run.device)
        self.links = links_of(self.a, self.group, run.device)
        self.network = Network(data.n_features, settings, run.seed).to(run.device)
        if run.warm is not None:
            self.network.load_state_dict({name: run.warm.model[name] for name in self.network.state_dict()})
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        if run.start is not None:
            unpack_training(run.start.shared, self.network, self.optimizer)
        self.clusters: Clustering | None = None  # of the last evaluation

    def epoch(self, epoch: int) -> dict[str, float]:
        """One epoch: a step over all pairs, or one for each batch of parts; the loss is the mean over the steps."""
        before, losses = self.group.counters, list[Tensor]()
        if self.part is None:
            losses.append(self._step(self.features, self.a, self.links, epoch, 0))
        else:
            for number, batch in enumerate(epoch_batches(self.settings, len(self.x), self.part, self.seed, epoch)):
                a, features = batch.adjacency(self.a), features_of(self.x[batch.nodes], self.group, self.device)
                losses.append(self._step(features, a, links_of(a, self.group, self.device), epoch, number))
        metrics = means([{"train/loss": loss} for loss in losses])
        check_loss(metrics["train/loss"], epoch, "lower --lr")
        return metrics | sent_bytes(self.group, before, len(losses))

    def _step(self, features: Features, a: sp.csr_array, links: Links, epoch: int, number: int) -> Tensor:
        """Adam's step on the similarities of two views of `a`; returns the loss."""
        views = []
        for which in (0, 1):
            kept, mask = view(a, self.x.shape[1], self.settings, self.seed, (epoch, number, which))
            rows = smoothing(kept, self.group, self.device)
            views.append(self.network(features, rows, self.group, send(mask, self.device)))
        z1, z2 = self.group.gather(torch.stack(views), features.total).chunk(2)
        loss = similarity_loss(z1, z2, links, self.settings, self.group)
        gradient_step(loss, list(self.network.parameters()), self.optimizer, self.group)
        return loss.detach()

    @torch.no_grad()
    def embedding(self) -> Float[Tensor, "N D"]:
        """The rows of the whole graph, with nothing dropped or masked, on every worker."""
        rows = self.network(self.features, self.smoothing, self.group)
        return self.group.gather(rows[None], len(self.x))

    def evaluate(self, epoch: int) -> Evaluation | None:
        """The clusters of all nodes, or None where no evaluation is due."""
        s = self.settings
        if not is_due(epoch, s.evaluate_every, s.epochs):
            return None
        key, starts = (self.seed, max(epoch, 0)), s.kmeans_starts  # -1: the untrained network
        self.clusters = kmeans_gathered(self.embedding(), s.k, key, self.group, starts=starts)
        return Evaluation(self.clusters.labels.cpu().numpy())

    def state(self, epoch: int) -> State:
        """All that a resumed run needs; random draws are keyed."""
        return State(epoch, dict(pack_training(self.network, self.optimizer, gradients=False)))

    def result(self) -> Result:
        """Clusters, confidence, embedding and model as they are now."""
        if self.clusters is None:  # after a resume from the last epoch, when nothing was left to train
            self.evaluate(self.settings.epochs - 1)
        assert self.clusters is not None
        c, tensors = self.clusters, {name: p.detach().cpu() for name, p in self.network.named_parameters()}
        tensors["centres"] = c.centres.cpu()
        embedding = self.embedding().cpu().numpy()
        return Result(c.labels.cpu().numpy(), c.confidence.float().cpu().numpy(), embedding, tensors)
