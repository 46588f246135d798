"""HaDis' training: two views of a batch, three losses, a target that follows, and new pseudo labels every epoch.

Each of W workers has its share of every batch. Projections are gathered with their true gradient and parameter
gradients summed, so that with `batch_norm: sync` W workers compute what one does.

Axes: N images, n of this worker, B of a part of a batch, D width, K clusters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.api import Result, Run, State
from ops.clustering.shards import Shard, gather_rows
from ops.data.types.images import ImageSet
from ops.device import autocast, send
from ops.distributed.batch_norm import average_statistics
from ops.distributed.process_group import ProcessGroup
from ops.rng import generator, torch_generator
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.hadis.clusters import COPIES, ImageClusters, cluster, hard_pairs, kmeans_of, projected, sampled
from trainers.hadis.loss import PARTS, ViewOutputs, objective
from trainers.hadis.model import Model, Standardise, stored
from trainers.hadis.schedule import decay, learning_rate
from trainers.hadis.settings import Settings
from trainers.hadis.source import ImageSource, batches, check_batch, inverse_sizes, steps_of
from trainers.shared import Evaluation, check_loss, is_due, run_epochs, sent_bytes

COPY_VIEWS = (2, 3)  # views that an evaluation clusters; steps take 0 and 1, or from 4 on where images repeat


def train(settings: Settings, data: ImageSet, run: Run) -> Result:
    """Train one seed; returns the clusters of the last epoch. `run` is the only link to the outside.

    Raises DivergedError on a loss that is not finite, SettingsError where a batch cannot be shared.
    """
    return run_epochs(HadisTrainer(settings, data, run), run, settings.epochs)


class HadisTrainer:
    """Networks, optimiser and pseudo labels of one seed between two epochs; continues from `run.start`."""

    def __init__(self, settings: Settings, data: ImageSet, run: Run) -> None:
        check_batch(settings, data.n_rows, run.world)
        self.settings, self.seed, self.device, self.n = settings, run.seed, run.device, data.n_rows
        self.precision = run.precision
        self.group = ProcessGroup(run.rank, run.world)
        self.source = ImageSource(settings, data, run.seed, run.device)
        self.steps = steps_of(settings, self.n)
        model = Model(settings, self.source.shape, self.group, run.seed)
        if settings.frozen is not None:
            for network in (model.online, model.target):
                assert isinstance(network.encoder, Standardise)
                network.encoder.fit(*(m.cpu() for m in self.source.moments))
        self.model = model.to(run.device)
        if run.device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # otherwise a resumed run would not end in the same bits
        self.optimizer = torch.optim.SGD(self._groups(), lr=settings.lr, momentum=settings.momentum)
        self.pseudo: Int64[Tensor, "N"] | None = None
        self.chances: NDArray[np.float64] | None = None  # the probability of each image, where images are drawn
        self.evaluated: tuple[ImageClusters, NDArray[np.float32]] | None = None  # of the last evaluation
        if run.start is not None:
            self._load(run.start)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters in groups by weight decay and learning rate (`times` the rate of the schedule)."""
        s, groups = self.settings, []
        for part, times in ((self.model.online, 1.0), (self.model.predictor, s.predictor_lr)):
            for decays in (True, False):
                chosen = [p for p in part.parameters() if (p.dim() > 1 or s.decay == "all") == decays]
                if chosen:
                    groups.append({"params": chosen, "times": times, "weight_decay": s.weight_decay * decays})
        return groups

    def epoch(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; returns means over them."""
        self.model.train()
        before = self.group.counters
        total = torch.zeros(1 + len(PARTS), dtype=torch.float64, device=self.device)
        spread = total.new_zeros(())
        for number, parts in enumerate(batches(self.settings, self.n, self.seed, epoch, self.chances)):
            self.model.follow(decay(self.settings, epoch * self.steps + number, self.steps))
            for part, index in enumerate(parts):
                shares, k = self._learn(epoch, number * len(parts) + part, index, len(parts))
                total += shares
                spread = k.std(0).mean() * k.shape[1] ** 0.5
            self._update(epoch * self.steps + number)
        sent = sent_bytes(self.group, before, self.steps)
        totals = self.group.sum_(total) / (self.steps * self.settings.accumulate)
        *losses, width = torch.cat([totals, spread.double()[None]]).tolist()  # the only time that the host waits
        check_loss(sum(losses), epoch, "lower --lr or raise --warmup-epochs")
        if self.settings.batch_norm != "sync":
            average_statistics(self.model, self.group)
        names = ("train/loss", *(f"train/loss_{part}" for part in PARTS))
        return dict(zip(names, losses, strict=True)) | {"collapse/std": width} | sent

    def _learn(
        self, epoch: int, number: int, index: NDArray[np.int64], parts: int
    ) -> tuple[Float[Tensor, "4"], Float[Tensor, "B D"]]:
        """Add the gradient of part `number` of the epoch; returns its shares of the losses and the k of all workers."""
        pseudo = None
        if self.pseudo is not None and epoch >= self.settings.warmup:
            pseudo = self.pseudo[send(index, self.device)]
        with autocast(self.device, self.precision):
            first, second = self.outputs(epoch, number, index)
        loss, shares, k = objective(first, second, len(index), self.group, self.settings, pseudo)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return torch.cat([loss.detach()[None], shares]).double(), k

    def outputs(self, epoch: int, number: int, index: NDArray[np.int64]) -> tuple[ViewOutputs, ViewOutputs]:
        """Both views of this worker's images of the part `index`; each network runs once for each view."""
        s, shard = self.settings, self.group.shard(len(index))
        base = 4 + 2 * number if self.chances is not None else 0  # an image that is drawn again gets other views
        views = [self.source.view(index[shard], epoch, base + v) for v in (0, 1)]
        with torch.no_grad():
            targets = self._targets(views, index, epoch, number, base)
        outputs = []
        for v, x in enumerate(views):
            q = self.model.online(x)
            noisy = q
            if epoch >= s.warmup and s.sigma:
                g = torch_generator(self.seed, "hadis/noise", epoch, number, v)
                noise = torch.randn(len(index), s.embedding_dim, generator=g)[shard]
                noisy = q + s.sigma * send(noise, q.device).to(q)
            outputs.append(ViewOutputs(self.model.predictor(noisy).float(), q.float(), targets[v].float()))
        return outputs[0], outputs[1]

    def _targets(
        self, views: list[Tensor], index: NDArray[np.int64], epoch: int, number: int, base: int
    ) -> list[Float[Tensor, "n D"]]:
        """The target's projections of this worker's images; with `shuffled` other workers compute them (MoCo)."""
        if self.settings.batch_norm != "shuffled" or self.group.world == 1:
            return [self.model.target(x) for x in views]
        shard, total = self.group.shard(len(index)), len(index)
        order = generator(self.seed, "hadis/shuffle", epoch, number).permutation(total)
        dealt = [self.model.target(self.source.view(index[order][shard], epoch, base + v)) for v in (0, 1)]
        back = send(np.argsort(order), self.device)
        everywhere = self.group.gather(torch.stack(dealt), total).view(2, total, -1)
        return list(everywhere[:, back][:, shard])

    def _update(self, step: int) -> None:
        """Sum the gradients over the workers and make a step of SGD."""
        parameters = [p for options in self.optimizer.param_groups for p in options["params"]]
        if self.group.world > 1:
            flat = self.group.sum_(torch.cat([p.grad.reshape(-1) for p in parameters]))
            for p, g in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
                p.grad.copy_(g.view_as(p))
        rate = learning_rate(self.settings, step, self.steps)
        for options in self.optimizer.param_groups:
            options["lr"] = rate * options["times"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """Cluster all images where it is needed; the next epoch takes the labels as pseudo labels.

        An evaluation also clusters two augmented copies, by whose agreement the run is judged.
        """
        s = self.settings
        due = is_due(epoch, s.eval_every, s.epochs)
        if not due and epoch + 1 < s.warmup:
            return None
        shard, z = self.project()
        clusters, pseudo = cluster(z, shard, s, self.seed, epoch, self.group)
        if epoch + 1 >= s.warmup:
            self.pseudo = pseudo
            self.chances = inverse_sizes(pseudo) if s.resample else None
        if not due:
            return None
        copies = [self._copy(view, epoch) for view in COPY_VIEWS]
        embedding = gather_rows(z, shard, self.group).cpu().numpy()
        self.evaluated = clusters, embedding
        embeddings = {"embedding": embedding, "copy_a": copies[0], "copy_b": copies[1]}
        return Evaluation(clusters.labels.cpu().numpy(), embeddings)

    @torch.no_grad()
    def project(self) -> tuple[Shard, Float[Tensor, "n D"]]:
        """The target's projections of this worker's share of all images, of unit length."""
        self.model.eval()
        nothing = torch.zeros(0, self.settings.embedding_dim, device=self.device)
        return projected(self.n, self.group, nothing, lambda at: self._unit(self.source.plain(at)))

    def _unit(self, x: Tensor) -> Float[Tensor, "_ D"]:
        with autocast(self.device, self.precision):
            k = self.model.target(x)
        return normalize(k.float())

    def _copy(self, view: int, epoch: int) -> NDArray[np.int64]:
        """The clusters of k-means on one augmented copy of up to COPIES images."""
        index = sampled(self.n, max(COPIES, self.settings.k), self.seed, "hadis/copies")
        shard, z = projected(
            len(index), self.group, torch.zeros(0, self.settings.embedding_dim, device=self.device),
            lambda at: self._unit(self.source.view(index[at], epoch, view)),
        )  # fmt: skip
        clusters = kmeans_of(z, shard, self.settings, self.seed, epoch, self.group)
        return gather_rows(clusters.labels, shard, self.group).cpu().numpy()

    def state(self, epoch: int) -> State:
        """All that a resumed run needs. Random draws are keyed, so the state of no generator is part of it."""
        shared: dict[str, Any] = dict(pack_training(self.model, self.optimizer, gradients=False))
        shared |= {f"buffer.{name}": b for name, b in self.model.named_buffers()}
        if self.pseudo is not None:
            shared["pseudo.labels"] = self.pseudo
        if self.chances is not None:
            shared["pseudo.chances"] = torch.from_numpy(self.chances)
        return State(epoch, shared)

    @torch.no_grad()
    def _load(self, start: State) -> None:
        unpack_training(start.shared, self.model, self.optimizer)
        for name, buffer in self.model.named_buffers():
            buffer.copy_(start.shared[f"buffer.{name}"])
        if "pseudo.labels" in start.shared:
            self.pseudo = start.shared["pseudo.labels"].to(self.device)
        if "pseudo.chances" in start.shared:
            self.chances = start.shared["pseudo.chances"].numpy().copy()

    @torch.no_grad()
    def result(self) -> Result:
        """Clusters, confidence, projections and model of the last evaluation."""
        if self.evaluated is None:  # after a resume from the last epoch, when nothing was left to train
            self.evaluate(self.settings.epochs - 1)
        assert self.evaluated is not None
        clusters, embedding = self.evaluated
        labels, confidence = clusters.labels.cpu(), clusters.confidence.cpu().numpy()
        pairs, distances = hard_pairs(torch.from_numpy(embedding), labels, self.seed)
        shape = torch.tensor(self.source.shape, dtype=torch.int64)
        tensors = stored(self.model) | clusters.tensors() | {"input.shape": shape}
        more: dict[str, NDArray[Any]] = {"hard_pairs": pairs, "hard_values": distances}
        return Result(labels.numpy(), confidence, embedding, tensors, more)
