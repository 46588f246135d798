"""DMoN's training: the modularity of the network's clusters, one step an epoch or one step for each batch of parts.

Each of W workers encodes N / W rows of a step. Parameters are replicated and their gradients summed.

Axes: N nodes, K clusters.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.data.types.graph import AttributedGraph
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from ops.graph.sampling.batches import epoch_batches, part_of
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.dmon.model import Edges, Network, Whole, degrees_of, modularity_loss
from trainers.dmon.settings import Settings
from trainers.last_sound import train_to_last_sound
from trainers.shared import (
    Evaluation,
    Features,
    check_loss,
    features_of,
    gradient_step,
    is_due,
    means,
    sent_bytes,
)


def train(settings: Settings, data: AttributedGraph, run: Run) -> Result:
    """Train one seed; returns the clusters of the last sound evaluation, or of the last one where none is sound.

    Raises DivergedError on a loss that is not finite.
    """
    trainer = DmonTrainer(settings, data, run)
    return train_to_last_sound(trainer, dict(trainer.network.named_parameters()), settings, data, run)


class DmonTrainer:
    """Network and optimiser of one seed between two epochs; continues from `run.start` where there is one."""

    def __init__(self, settings: Settings, data: AttributedGraph, run: Run) -> None:
        self.settings, self.seed, self.device, self.x = settings, run.seed, run.device, data.x
        self.group = ProcessGroup(run.rank, run.world)
        self.a = adjacency(data.edge_index, data.n_nodes, self_loops=False, weight=data.weight)
        self.part = part_of(settings, data)
        self.features = features_of(data.x, self.group, run.device)
        self.edges = Edges(self.a, self.group, run.device)
        self.network = Network(data.n_features, settings, run.seed).to(run.device)
        if run.warm is not None:  # cluster ids stay: they are the columns of the last layer
            self.network.load_state_dict(run.warm.model)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        if run.start is not None:
            unpack_training(run.start.shared, self.network, self.optimizer)

    def epoch(self, epoch: int) -> dict[str, float]:
        """One epoch: a step over all nodes, or one for each batch of parts; the loss is the mean over the steps."""
        before, losses = self.group.counters, list[Tensor]()
        if self.part is None:
            losses.append(self._step(self.features, self.edges))
        else:
            losses += self._batches(self.part, epoch)
        metrics = means([{"train/loss": loss} for loss in losses])
        check_loss(metrics["train/loss"], epoch, "lower --lr")
        return metrics | sent_bytes(self.group, before, len(losses))

    def _batches(self, part: NDArray[np.int64], epoch: int) -> list[Tensor]:
        """A step for each batch of parts, with the sums over all nodes as they are when the epoch begins."""
        shares, degrees, losses = self._shares(), degrees_of(self.a), list[Tensor]()
        sums = self.edges.sums(shares)
        for batch in epoch_batches(self.settings, len(self.x), part, self.seed, epoch):
            nodes = send(batch.nodes, self.device)
            edges = Edges(batch.adjacency(self.a), self.group, self.device, degrees[batch.nodes])
            whole = Whole(self.edges.total, len(self.x), sums, edges.sums(shares[nodes]))
            losses.append(self._step(features_of(self.x[batch.nodes], self.group, self.device), edges, whole))
        return losses

    def _step(self, features: Features, edges: Edges, whole: Whole | None = None) -> Tensor:
        """Adam's step on the modularity of a step's nodes; returns the loss."""
        _, shares = self.network(features, edges.smoothing, self.group)
        loss = modularity_loss(shares, edges, self.settings.collapse, self.group, whole)
        gradient_step(loss, list(self.network.parameters()), self.optimizer, self.group)
        return self.group.sum_(loss.detach())

    @torch.no_grad()
    def _shares(self) -> Float[Tensor, "N K"]:
        """The shares of all nodes of the whole graph, on every worker."""
        _, shares = self.network(self.features, self.edges.smoothing, self.group)
        return self.group.gather(shares[None], len(self.x))

    def evaluate(self, epoch: int) -> Evaluation | None:
        """The cluster of each node, its largest share; None where no evaluation is due."""
        if not is_due(epoch, self.settings.evaluate_every, self.settings.epochs):
            return None
        return Evaluation(self._shares().argmax(1).cpu().numpy())

    def state(self, epoch: int) -> State:
        """All that a resumed run needs; random draws are keyed."""
        return State(epoch, dict(pack_training(self.network, self.optimizer, gradients=False)))

    @torch.no_grad()
    def result(self) -> Result:
        """Clusters, their shares as confidence, embedding and model as they are now."""
        rows, shares = (
            self.group.gather(each[None], len(self.x))
            for each in self.network(self.features, self.edges.smoothing, self.group)
        )
        confidence, clusters = shares.max(1)
        tensors = {name: p.detach().cpu() for name, p in self.network.named_parameters()}
        return Result(clusters.cpu().numpy(), confidence.cpu().numpy(), rows.cpu().numpy(), tensors)
