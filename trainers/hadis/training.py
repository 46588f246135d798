"""HaDis's training: two views of a batch, three losses, a target that follows, pseudo labels every epoch.

Over W workers each has its share of every batch; projections are gathered with their true gradient, parameter
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
from ops.clustering.lloyd import Rows, everyone
from ops.data.types.images import ImageSet
from ops.distributed.batch_norm import average_statistics
from ops.distributed.process_group import Team
from ops.errors import DivergedError
from ops.rng import generator, torch_generator
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.hadis.clusters import COPIES, Found, cluster, hard_pairs, kmeans_of, projected, sampled
from trainers.hadis.loss import PARTS, Outputs, objective
from trainers.hadis.model import Model, Standardise, stored
from trainers.hadis.schedule import decay, learning_rate
from trainers.hadis.settings import Settings
from trainers.hadis.source import Source, batches, check_batch, inverse_sizes, steps_of

COPY_VIEWS = (2, 3)  # the views that an evaluation clusters; steps take 0 and 1, or from 4 on where images repeat


def train(settings: Settings, data: ImageSet, run: Run) -> Result:
    """Train one seed; `run` is the only link to the outside. The clusters are those of the last epoch.

    Raises DivergedError on a loss that is not finite, SettingsError where a batch cannot be shared.
    """
    training = Training(settings, data, run)
    found: Found | None = None
    embeddings: dict[str, NDArray[Any]] | None = None
    for epoch in range(run.start.epoch + 1 if run.start else 0, settings.epochs):
        metrics = training.step(epoch)
        found, embeddings = training.look(epoch)
        assignment = None if embeddings is None or found is None else found.labels.cpu().numpy()
        run.report(epoch, metrics, assignment, lambda epoch=epoch: training.state(epoch), embeddings)  # type: ignore[misc]
    return training.result(found, embeddings)


class Training:
    """Networks, optimiser and pseudo labels of one seed between two epochs; `run.start` is taken over."""

    def __init__(self, settings: Settings, data: ImageSet, run: Run) -> None:
        check_batch(settings, data.n_rows, run.world)
        self.settings, self.seed, self.device, self.n = settings, run.seed, run.device, data.n_rows
        self.team = Team(run.rank, run.world)
        self.source = Source(settings, data, run.seed, run.device)
        self.steps = steps_of(settings, self.n)
        model = Model(settings, self.source.shape, self.team, run.seed)
        if settings.frozen is not None:
            for network in (model.online, model.target):
                assert isinstance(network.encoder, Standardise)
                network.encoder.fit(*(m.cpu() for m in self.source.moments))
        self.model = model.to(run.device)
        if run.device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # else a resumed run would not end in the same bits
        self.optimizer = torch.optim.SGD(self._groups(), lr=settings.lr, momentum=settings.momentum)
        self.pseudo: Int64[Tensor, "N"] | None = None
        self.chances: NDArray[np.float64] | None = None  # of every image, where they are drawn
        if run.start is not None:
            self._load(run.start)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate (`times` the schedule's) and weight decay."""
        s, groups = self.settings, []
        for part, times in ((self.model.online, 1.0), (self.model.predictor, s.predictor_lr)):
            own = list(part.parameters())
            for kept in (True, False):
                chosen = [p for p in own if (p.dim() > 1 or s.decay == "all") == kept]
                if chosen:
                    groups.append({"params": chosen, "times": times, "weight_decay": s.weight_decay * kept})
        return groups

    def step(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; means over them."""
        self.model.train()
        before = self.team.gathered, self.team.reduced
        total = torch.zeros(1 + len(PARTS), dtype=torch.float64, device=self.device)
        chosen = batches(self.settings, self.n, self.seed, epoch, self.chances)
        spread = total.new_zeros(())
        for number, parts in enumerate(chosen):
            self.model.follow(decay(self.settings, epoch * self.steps + number, self.steps))
            for part, index in enumerate(parts):
                shares, k = self._learn(epoch, number * len(parts) + part, index, len(parts))
                total += shares
                spread = k.std(0).mean() * k.shape[1] ** 0.5
            self._update(epoch * self.steps + number)
        sent = self.team.sent_since(*before) / self.steps
        found = (self.team.sum_(total) / (self.steps * self.settings.accumulate)).tolist()
        if not np.isfinite(found).all():
            raise DivergedError(f"epoch {epoch}: the loss is {found[0]}; lower --lr or raise --warmup-epochs")
        if self.settings.batch_norm != "sync":
            average_statistics(self.model, self.team)
        names = ("train/loss", *(f"train/loss_{part}" for part in PARTS))
        metrics = dict(zip(names, found, strict=True)) | {"collapse/std": float(spread)}
        if self.team.world > 1:
            metrics["sys/sent_bytes"] = sent
        return metrics

    def _learn(
        self, epoch: int, number: int, index: NDArray[np.int64], parts: int
    ) -> tuple[Float[Tensor, "4"], Float[Tensor, "B D"]]:
        """Add the gradient of part `number` of the epoch; its shares of the losses, and k of all workers."""
        pseudo = None
        if self.pseudo is not None and epoch >= self.settings.warmup:
            pseudo = self.pseudo[torch.from_numpy(index).to(self.device)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            first, second = self.outputs(epoch, number, index)
        loss, shares, k = objective(first, second, len(index), self.team, self.settings, pseudo)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return torch.cat([loss.detach()[None], shares]).double(), k

    def outputs(self, epoch: int, number: int, index: NDArray[np.int64]) -> tuple[Outputs, Outputs]:
        """Both views of this worker's images of part `index`: one pass of each network a view."""
        s, own = self.settings, self.team.own(len(index))
        base = 4 + 2 * number if self.chances is not None else 0  # an image that is drawn again gets other views
        views = [self.source.view(index[own], epoch, base + v) for v in (0, 1)]
        with torch.no_grad():
            targets = self._targets(views, index, epoch, number, base)
        found = []
        for v, x in enumerate(views):
            q = self.model.online(x)
            noisy = q
            if epoch >= s.warmup and s.sigma:
                g = torch_generator(self.seed, "hadis/noise", epoch, number, v)
                noise = torch.randn(len(index), s.embedding_dim, generator=g)[own]
                noisy = q + s.sigma * noise.to(q)
            found.append(Outputs(self.model.predictor(noisy).float(), q.float(), targets[v].float()))
        return found[0], found[1]

    def _targets(
        self, views: list[Tensor], index: NDArray[np.int64], epoch: int, number: int, base: int
    ) -> list[Float[Tensor, "n D"]]:
        """The target's projections of the own images; with `shuffled` each worker computes others' (MoCo)."""
        if self.settings.batch_norm != "shuffled" or self.team.world == 1:
            return [self.model.target(x) for x in views]
        own, total = self.team.own(len(index)), len(index)
        order = generator(self.seed, "hadis/shuffle", epoch, number).permutation(total)
        dealt = [self.model.target(self.source.view(index[order][own], epoch, base + v)) for v in (0, 1)]
        back = torch.from_numpy(np.argsort(order)).to(self.device)
        everywhere = self.team.gather(torch.stack(dealt), total).view(2, total, -1)
        return list(everywhere[:, back][:, own])

    def _update(self, step: int) -> None:
        """Gradients summed over the workers, then a step of SGD."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.team.world > 1:
            flat = self.team.sum_(torch.cat([p.grad.reshape(-1) for p in parameters]))
            for p, g in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
                p.grad.copy_(g.view_as(p))
        rate = learning_rate(self.settings, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def look(self, epoch: int) -> tuple[Found | None, dict[str, NDArray[Any]] | None]:
        """Clusters of all images where they are needed, and at evaluations what they are judged by.

        The coming epoch takes them as pseudo labels; an evaluation also clusters two augmented copies.
        """
        s = self.settings
        last = epoch == s.epochs - 1
        due = last or epoch % s.eval_every == 0
        if not due and epoch + 1 < s.warmup:
            return None, None
        rows, z = self.project()
        found, pseudo = cluster(z, rows, s, self.seed, epoch, self.team)
        if epoch + 1 >= s.warmup:
            self.pseudo = pseudo.to(self.device)
            self.chances = inverse_sizes(pseudo) if s.resample else None
        if not due:
            return found, None
        copies = [self._copy(view, epoch) for view in COPY_VIEWS]
        full = everyone(z, rows, self.team).numpy()
        return found, {"embedding": full, "copy_a": copies[0], "copy_b": copies[1]}

    @torch.no_grad()
    def project(self) -> tuple[Rows, Float[Tensor, "n D"]]:
        """The target's projections of this worker's share of all images, of unit length."""
        self.model.eval()
        return projected(self.n, self.team, self.settings.embedding_dim, lambda at: self._unit(self.source.plain(at)))

    def _unit(self, x: Tensor) -> Float[Tensor, "_ D"]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            k = self.model.target(x)
        return normalize(k.float()).cpu()

    def _copy(self, view: int, epoch: int) -> NDArray[np.int64]:
        """k-means' clusters of one augmented copy of up to COPIES images."""
        index = sampled(self.n, max(COPIES, self.settings.k), self.seed, "hadis/copies")
        rows, z = projected(
            len(index), self.team, self.settings.embedding_dim,
            lambda at: self._unit(self.source.view(index[at], epoch, view)),
        )  # fmt: skip
        found = kmeans_of(z, rows, self.settings, self.seed, epoch, self.team)
        return everyone(found.labels, rows, self.team).numpy()

    def state(self, epoch: int) -> State:
        """All that a resumed run needs; every draw is keyed, so nothing else goes on."""
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
    def result(self, found: Found | None, embeddings: dict[str, NDArray[Any]] | None) -> Result:
        """Clusters, confidence, projections and model as they stand; the former as the last `look` has them."""
        if found is None or embeddings is None:  # resumed from the state of the last epoch: nothing was left to train
            rows, z = self.project()
            found, _ = cluster(z, rows, self.settings, self.seed, self.settings.epochs - 1, self.team)
            full = everyone(z, rows, self.team)
        else:
            full = torch.from_numpy(embeddings["embedding"])
        pairs, distances = hard_pairs(full, found.labels, self.seed)
        shape = torch.tensor(self.source.shape, dtype=torch.int64)
        tensors = stored(self.model) | found.tensors() | {"input.shape": shape}
        more: dict[str, NDArray[Any]] = {"hard_pairs": pairs, "hard_values": distances}
        return Result(found.labels.numpy(), found.confidence.numpy(), full.numpy(), tensors, more)
