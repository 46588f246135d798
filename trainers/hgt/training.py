"""HGT's training: link prediction over sampled neighbourhoods, in steps that any number of workers share.

Axes: P positive pairs of a batch, n negatives a pair, C candidates, D width, S sums (one a direction).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.som import neighbourhood, som, som_loss
from ops.device import autocast, send
from ops.graph.sampling.dataset import PartitionedGraph, Which
from ops.graph.sampling.neighbor_sampler import Neighbourhood, Sample
from ops.rng import generator, torch_generator
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.hgt import loss as losses
from trainers.hgt.inference import inductive_tensors, neighbourhoods
from trainers.hgt.loop import Ends, GraphTrainer, ends_of, shard_of, steps
from trainers.hgt.model import forward, metadata_of, parameters
from trainers.hgt.settings import Settings
from trainers.shared import check_loss, run_epochs, sent_bytes

POOL = 256  # uniform nodes of each end, from which all negatives of a batch come: each is embedded only once
EMBED_EPOCH = 2**32 - 1  # keys the neighbourhoods that embeddings are computed from
JOINT_RADIUS = 1.0


def train(settings: Settings, data: PartitionedGraph, run: Run) -> Result:
    """Train one seed; `run` is the only link to the outside (`ops.api`).

    Raises SettingsError for more workers than batches in a step, DivergedError, ServiceError.
    """
    return run_epochs(HgtTrainer(settings, data, run), run, settings.epochs)


@dataclass(frozen=True)
class NeighbourhoodBatch:
    """A batch on the device: its neighbourhood, and its pairs and negatives as rows of the roots by type.

    `candidates` are nodes of the others' type for the row of each pair, and of the rows' type for its other end.
    `log_q` says for either end how often it is drawn (for the softmax). `seen` are the distinct rows of `pairs` (for
    the map).
    """

    key: tuple[int, int, int]  # pass, part, number of the batch
    sample: Sample
    pairs: Int64[Tensor, "2 P"]
    candidates: Int64[Tensor, "2 P C"] | None
    log_q: Float[Tensor, "2 P"] | None
    seen: Int64[Tensor, "_"] | None


class HgtTrainer(GraphTrainer):
    """Weights, optimiser and map of one seed between two epochs."""

    def __init__(self, settings: Settings, data: PartitionedGraph, run: Run) -> None:
        super().__init__(settings, data, run)
        self.settings: Settings = settings
        self.precision = run.precision
        start = parameters(settings, metadata_of(data), run.seed)
        self.weights = {name: w.detach().to(run.device).requires_grad_() for name, w in start.items()}
        # fused on GPUs only: on CPUs it would round differently from earlier results
        fused = run.device.type != "cpu"
        self.optimizer = torch.optim.Adam(list(self.weights.values()), lr=settings.lr, fused=fused)
        self.units: Float[Tensor, "U D"] | None = None
        self.nearness: Float[Tensor, "U U"] | None = None
        if settings.som_weight:
            self.nearness = send(neighbourhood(settings.grid, JOINT_RADIUS).float(), run.device)
        if run.start is not None:
            unpack_training(run.start.shared, self.weights, self.optimizer)
            if "map.units" in run.start.shared:
                self.units = run.start.shared["map.units"].to(run.device)

    def epoch(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; returns means over them."""
        if self.settings.som_weight:
            self._refresh_map()
        before = self.group.counters
        count, total = 0, torch.zeros(2, dtype=torch.float64, device=self.device)
        for _, batches in steps(self.edges, self.settings, self.group, self.seed, epoch, self.prepare):
            count += 1
            total += self._learn(batches)
        link, mapped = (value / count for value in total.tolist())
        check_loss(link + mapped, epoch, "lower --lr or raise --temperature")
        metrics = {"train/loss": link} | sent_bytes(self.group, before, count)
        return metrics | ({"train/loss_map": mapped} if self.settings.som_weight else {})

    def prepare(self, group: list[Which]) -> list[NeighbourhoodBatch]:
        """Draw batches of a pass: pairs, pools of negatives, and neighbourhoods without the edges of the pairs."""
        s, data = self.settings, self.data
        all_ends, wanted = [], []
        for turn, part, number in group:
            pairs, _ = self.client.seed_edges(data.labels, part, (self.seed, turn, number), s.batch)
            draws = generator(self.seed, "negatives", turn, part, number)
            pools = [draws.integers(data.count(kind), size=POOL) for kind in (data.rows, data.others)]
            ends, key = ends_of(data, pairs, pools), (self.seed, turn, part, number)
            all_ends.append(ends)
            wanted.append(Neighbourhood(ends.ids, s.fan_outs, key, s.sampling, (data.labels[0], pairs)))
        samples = self.client.samples(wanted, data.featured)
        return [self._sent(*each) for each in zip(group, all_ends, samples, strict=True)]

    def _sent(self, key: Which, ends: Ends, sample: Sample) -> NeighbourhoodBatch:
        """A batch, whose arrays are on their way to the device."""
        c = self.settings
        candidates = log_q = None
        if c.loss == "bpr":
            candidates = self._candidates(ends, key)
        else:
            log_q = torch.stack([torch.log(torch.bincount(rows)[rows].float()) for rows in ends.pairs])
        seen = torch.unique(ends.pairs[0]) if c.som_weight else None
        small = (None if each is None else send(each, self.device) for each in (candidates, log_q, seen))
        sample = sample.sent(self.device, numbers=bool(c.id_buckets))
        return NeighbourhoodBatch(key, sample, send(ends.pairs, self.device), *small)

    def _candidates(self, ends: Ends, key: tuple[int, int, int]) -> Int64[Tensor, "2 P C"]:
        """The candidates of each pair's negatives, drawn from the batch's pools."""
        many = losses.CANDIDATES if self.settings.hardness else self.settings.neg_num
        drawn = []
        for way in (0, 1):
            pool, draws = ends.drawn[1 - way], torch_generator(self.seed, "pick", *key, way)
            drawn.append(pool[torch.randint(len(pool), (ends.pairs.shape[1], many), generator=draws)])
        return torch.stack(drawn)

    def _learn(self, batches: list[NeighbourhoodBatch]) -> Float64[Tensor, "2"]:
        """Adam's step on the mean loss over all workers' batches of a step; returns (link loss, map loss)."""
        parts = [self.terms(batch) for batch in batches]
        counts = torch.zeros(3, dtype=torch.int64, device=self.device)
        for _, each in parts:
            counts += each
        counts = self.group.sum_(counts)
        weights = list(self.weights.values())
        # in float64: the order of the sums, which depends on the workers, then vanishes in the rounding to float32
        total = torch.zeros(2 + sum(w.numel() for w in weights), dtype=torch.float64, device=self.device)
        for sums, _ in parts:
            link = losses.mean(sums[:2], counts[:2])
            mapped = sums[2] / counts[2].clamp(min=1)
            loss = link + self.settings.som_weight * mapped
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
            total += torch.cat([torch.stack([link, mapped]).detach(), *(g.flatten() for g in gradients)])
        values, summed = torch.split(self.group.sum_(total), [2, len(total) - 2])
        for w, gradient in zip(weights, torch.split(summed, [w.numel() for w in weights]), strict=True):
            w.grad = gradient.view_as(w).float()
        self.optimizer.step()
        return values

    def terms(self, batch: NeighbourhoodBatch) -> tuple[Float[Tensor, "3"], Int64[Tensor, "3"]]:
        """Sums and counts of the terms of the loss: both directions of the links, and the map."""
        s = self.settings
        draws = torch_generator(self.seed, "dropout", *batch.key, device=self.device)
        with autocast(self.device, self.precision):
            z = forward(self.weights, s, batch.sample, draws)
        users, notes = z[self.data.rows], z[self.data.others]
        if batch.candidates is not None:
            wrong_notes, wrong_users = (self._negatives(batch, users, notes, way) for way in (0, 1))
            sums, counts = losses.both_ways(users, notes, batch.pairs, wrong_notes, wrong_users, 1 / s.temperature)
        else:
            assert batch.log_q is not None
            sums, counts = losses.both_ways_softmax(users, notes, batch.pairs, 1 / s.temperature, *batch.log_q)
        mapped, many = users.new_zeros(()), counts.new_zeros(())
        if self.units is not None and batch.seen is not None and self.nearness is not None:
            seen = users[batch.seen]
            units = self.units.to(users)
            best = torch.cdist(seen.detach(), units).argmin(1)
            mapped = som_loss(seen, units, best, self.nearness) * len(seen)
            many += len(seen)
        return torch.cat([sums, mapped[None]]), torch.cat([counts, many[None]])

    def _negatives(self, batch: NeighbourhoodBatch, users: Tensor, notes: Tensor, way: int) -> Int64[Tensor, "P n"]:
        """The negatives of each pair among its candidates: notes for its user (way 0), users for its note (way 1)."""
        assert batch.candidates is not None
        s, candidates = self.settings, batch.candidates[way]
        if not s.hardness:
            return candidates
        anchors, others = (users, notes) if way == 0 else (notes, users)
        pairs = batch.pairs if way == 0 else batch.pairs.flip(0)
        with torch.no_grad():
            scores = torch.einsum("pd,pcd->pc", anchors[pairs[0]], others[candidates])
        chosen, _ = losses.pick(scores, ~losses.is_positive(pairs, pairs[0], candidates), s.neg_num, s.hardness)
        return candidates.gather(1, chosen)

    @torch.no_grad()
    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """Embeddings of the nodes of this worker's parts, from neighbourhoods that have their own key."""
        s, key = self.settings, (self.seed, EMBED_EPOCH)
        samples = neighbourhoods(self.client, self.data, self.group, kind, s, s.fan_outs, key, self.device)
        pieces = (forward(self.weights, s, sample, None)[kind] for _, sample in samples)
        return torch.cat([torch.zeros(0, s.hidden, device=self.device), *pieces])

    def _refresh_map(self) -> None:
        """Let the map of the joint mode follow the embeddings: rounds of batch SOM at the start of an epoch."""
        s = self.settings
        shard = shard_of(self.data, self.data.rows, self.group)
        first, rounds = (None, s.som_iterations) if self.units is None else (self.units, 1)
        self.units = som(
            self.embed(self.data.rows), shard, s.grid, s.k, (self.seed,), group=self.group,
            spherical=s.kmeans == "spherical", rounds=rounds, first=first, last_radius=JOINT_RADIUS,
        ).weights  # fmt: skip

    def state(self, epoch: int) -> State:
        """Weights, optimiser and map. Random draws are keyed, so the state of no generator is part of it."""
        packed = pack_training(self.weights, self.optimizer, gradients=False)
        return State(epoch, packed | ({} if self.units is None else {"map.units": self.units}))

    def tensors(self) -> dict[str, Tensor]:
        """The weights of the network, and what new users are placed by."""
        tensors = {name: w.detach().cpu() for name, w in self.weights.items()}
        if self.settings.store_states:
            tensors |= inductive_tensors(
                self.weights, self.settings, self.data, self.client, self.group, self.seed, self.device
            )
        return tensors
