"""Joint training of CaEGCN: content branch, graph branch with attention, and the target that both are pulled to.

`L = MSE(X, X_cae) + a KL(p||q) + b KL(p||z) + c MSE(X, X_gae) + d BCE(A + I, A^)`, with a new target p every epoch.
With all nodes there is one step an epoch. In parts, a step takes a few parts: attention, structure loss and edges are
within them, while the target's column sums are those of all rows at the epoch's start. Each of W workers has N / W rows
of a step.

Axes: N nodes, n of them on this worker, F features, Z width of the code, K clusters.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from ops.api import Result, Run, State
from ops.clustering.kmeans import kmeans_gathered
from ops.clustering.student_t import column_sums, kl_rows, student_t, target
from ops.data.types.graph import AttributedGraph
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from ops.graph.sampling.batches import epoch_batches, part_of
from ops.losses.link_bce import structure_loss
from ops.losses.mse_inplace import squared_error_
from ops.losses.tiles import tile_rows_on
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.caegcn.model import BranchOutputs, GraphRows, Model, clusters, fit_head, rows_of
from trainers.caegcn.pretrain import pretrain
from trainers.caegcn.settings import Settings
from trainers.last_sound import train_to_last_sound
from trainers.shared import Evaluation, check_loss, gradient_step, is_due, sent_bytes

LISTED = 32  # up to this many clusters, the size of each is a metric
PARTS = ("content_mse", "content_kl", "graph_kl", "graph_mse", "structure")
Nodes = NDArray[np.int64]


def train(settings: Settings, data: AttributedGraph, run: Run) -> Result:
    """Pre-training, centres, joint training; returns the graph branch's clusters of the last sound evaluation.

    Where none is sound, they are those of the last. Raises DivergedError on a loss that is not finite.
    """
    trainer = CaegcnTrainer(settings, data, run)
    weights = dict(trainer.model.named_parameters())
    return train_to_last_sound(trainer, weights, settings, data, run)


class CaegcnTrainer:
    """Model and optimiser of one seed between two epochs; continues from `run.start` where there is one."""

    def __init__(self, settings: Settings, data: AttributedGraph, run: Run) -> None:
        self.settings, self.seed, self.device = settings, run.seed, run.device
        self.group = ProcessGroup(run.rank, run.world)
        self.x = data.x
        self.a = adjacency(data.edge_index, data.n_nodes, self_loops=False, weight=data.weight)
        self.part = part_of(settings, data)
        self.rows = rows_of(self.x, self.a, self.group, self.device) if self.part is None else None
        self.model = Model(data.n_features, settings, run.seed).to(run.device)
        if run.start is None:
            self._begin(run, data)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, fused=True)
        if run.start is not None:
            unpack_training(run.start.shared, self.model, self.optimizer)

    def _begin(self, run: Run, data: AttributedGraph) -> None:
        """Load the model of a warm start; else pre-train the content branch and set k-means centres of its codes."""
        if run.warm is not None:
            self.model.load_state_dict(run.warm.model)
            return
        pretrain(self.model.content, self.settings, data, run, self.group)
        with torch.no_grad():
            codes = self.codes()
            centres = self.model.centres.data
            s = self.settings
            centres.copy_(kmeans_gathered(codes, s.k, (self.seed, 0), self.group, starts=s.centre_starts).centres)
            if self.settings.head_start == "fit":
                fit_head(self.model, self._targets(), self.group)

    @torch.no_grad()
    def _targets(self) -> Iterator[tuple[GraphRows, Float[Tensor, "n K"]]]:
        """The rows of each step of the first epoch, with their target."""
        sums = self._sums()
        for rows, _ in self._steps(0):
            q = student_t(self.model.content.encode(rows.x)[-1], self.model.centres, self.settings.freedom)
            yield rows, target(q, sums)

    def epoch(self, epoch: int) -> dict[str, float]:
        """The steps of one epoch; returns the losses as means over the steps and the cluster sizes as sums."""
        before, steps = self.group.counters, 0
        # Adam's first steps move every weight by the full rate, which would throw the pre-trained codes together
        rate = self.settings.lr * min(1.0, (epoch + 1) / (self.settings.warmup + 1))
        self.optimizer.param_groups[0]["lr"] = rate
        total = torch.zeros(len(PARTS) + 2 + self.settings.k, dtype=torch.float64, device=self.device)
        sums = None if self.part is None else self._sums()
        for rows, _ in self._steps(epoch):
            total += self._step(rows, sums)
            steps += 1
        total = total.cpu()
        check_loss(float(total[len(PARTS)]), epoch, "lower --lr, or where it is the first epoch scale the features")
        losses, (loss, agree), sizes = total[: len(PARTS)], total[len(PARTS) :][:2], total[len(PARTS) + 2 :]
        metrics = {f"train/loss_{name}": float(v) / steps for name, v in zip(PARTS, losses, strict=True)}
        metrics |= {"train/loss": float(loss) / steps, "train/agreement": float(agree) / len(self.x)}
        metrics |= {"head/size_min": float(sizes.min()), "head/size_max": float(sizes.max())}
        if len(sizes) <= LISTED:
            metrics |= {f"head/size_{i:02d}": float(size) for i, size in enumerate(sizes)}
        return metrics | sent_bytes(self.group, before, steps)

    def _steps(self, epoch: int) -> Iterator[tuple[GraphRows, Nodes | None]]:
        """The rows of each step of an epoch, with their nodes (None: all nodes)."""
        if self.rows is not None:
            yield self.rows, None
            return
        for batch in epoch_batches(self.settings, len(self.x), self.part, self.seed, epoch):
            inside = batch.adjacency(self.a)
            yield rows_of(self.x[batch.nodes], inside, self.group, self.device), batch.nodes

    def _step(self, rows: GraphRows, sums: Float[Tensor, "K"] | None) -> Float64[Tensor, "_"]:
        """One step of Adam; returns the weighted losses, their sum, how many rows q and z agree on, cluster sizes."""
        outputs = self.model(rows, self.group)
        losses, q = self.losses(rows, outputs, sums)
        weights = self._weights()
        loss = torch.stack([w * part for w, part in zip(weights, losses, strict=True) if w]).sum()
        gradient_step(loss, list(self.model.parameters()), self.optimizer, self.group)
        labels = outputs.columns.detach().argmax(1)
        parts = torch.stack([w * part.detach().double() for w, part in zip(weights, losses, strict=True)])
        if self.group.rank:  # every worker has the whole structure loss: it counts once
            parts[-1] = 0
        rest = [parts.sum()[None], (labels == q.argmax(1)).sum()[None], one_hot(labels, q.shape[1]).sum(0)]
        return self.group.sum_(torch.cat([parts, *rest]))

    def losses(
        self, rows: GraphRows, outputs: BranchOutputs, sums: Float[Tensor, "K"] | None
    ) -> tuple[list[Float[Tensor, ""]], Float[Tensor, "n K"]]:
        """The five parts of L without their weights, and q; this worker's share, but the structure loss as a whole.

        `sums` are the target's column sums; None takes those of these rows. Both reconstructions in `outputs` are
        overwritten.
        """
        s, nothing = self.settings, outputs.columns.new_zeros(())
        q = student_t(outputs.code, self.model.centres, s.freedom)
        p = target(q, column_sums(q, self.group) if sums is None else sums)
        entries = rows.total * rows.x.shape[1]
        pairs = nothing
        if s.structure:
            local = outputs.columns if s.structure_from == "bottleneck" else outputs.decoded
            assert local is not None
            weight = rows.links.balance if isinstance(s.pos_weight, str) else s.pos_weight
            codes = self.group.gather(local[None], rows.total)
            tile_rows = tile_rows_on(s.tile_rows, self.device)
            pairs = structure_loss(codes, rows.links, weight, group=self.group, tile_rows=tile_rows)
        return [
            squared_error_(outputs.content, rows.x, entries),
            kl_rows(p, q.log(), rows.total),
            kl_rows(p, outputs.columns.log_softmax(1), rows.total),
            nothing if outputs.decoded is None else squared_error_(outputs.decoded, rows.x, entries),
            pairs,
        ], q.detach()

    def _weights(self) -> tuple[float, ...]:
        s = self.settings
        return 1.0, s.content_kl, s.graph_kl, s.graph_mse, s.structure

    @torch.no_grad()
    def _sums(self) -> Float[Tensor, "K"]:
        """The target's column sums over all rows, which an epoch in parts uses."""
        return column_sums(student_t(self.codes(), self.model.centres, self.settings.freedom))

    @torch.no_grad()
    def codes(self) -> Float[Tensor, "N Z"]:
        """The content codes of all rows, on every worker."""
        local = self.model.content.codes(self.x[self.group.shard(len(self.x))])
        return self.group.gather(local[None], len(self.x))

    @torch.no_grad()
    def all_rows(self) -> tuple[Float[Tensor, "N K"], Float[Tensor, "N Z"]]:
        """(columns before the softmax, codes) of all rows by the present model.

        In parts each row is computed among the rows of its batch.
        """
        n, s = len(self.x), self.settings
        columns = torch.empty(n, s.k, device=self.device)
        codes = torch.empty(n, s.code_dim, device=self.device)
        for rows, nodes in self._steps(0):  # always the batches of epoch 0: the model alone decides the result
            outputs = self.model(rows, self.group)
            at: Int64[Tensor, "B"] | slice = slice(None)
            if nodes is not None:
                at = send(nodes, self.device)
            columns[at] = self.group.gather(outputs.columns[None], rows.total)
            codes[at] = self.group.gather(outputs.code[None], rows.total)
        return columns, codes

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """The clusters of all rows, and those of q and p, which are scored too; None where no evaluation is due."""
        s = self.settings
        if not is_due(epoch, s.evaluate_every, s.epochs):
            return None
        columns, codes = self.all_rows()
        q = student_t(codes, self.model.centres, s.freedom)
        branches = {"branch/q": q, "branch/p": target(q, column_sums(q))}
        others = {name: each.argmax(1).cpu().numpy() for name, each in branches.items()}
        return Evaluation(clusters(columns)[0].cpu().numpy(), others)

    def state(self, epoch: int) -> State:
        """All that a resumed run needs."""
        return State(epoch, dict(pack_training(self.model, self.optimizer, gradients=False)))

    def result(self) -> Result:
        """Clusters, confidence, codes and model as they are now."""
        columns, codes = self.all_rows()
        labels, confidence = clusters(columns)
        tensors = {name: p.detach().cpu() for name, p in self.model.named_parameters()}
        return Result(labels.cpu().numpy(), confidence.cpu().numpy(), codes.cpu().numpy(), tensors)
