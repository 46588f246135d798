"""TwHIN's training: tables split by part over the workers; rows come from their owners and gradients go back to them.

Ids go to the owners, rows come back, gradients go to the owners, each by one all-to-all, so that what a worker sends
grows with its own batches and not with the number of workers.

A step has the same batches for any number of workers, rows are exact copies, and the owner of a table adds the
gradients of all batches in the order of the batches. So any number of workers computes the same bits.

Axes: P pairs of a batch, R rows that a worker's batches need, Q rows that it is asked for, D width, W workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.data.types.hetero import relation_name
from ops.device import send
from ops.graph.sampling.dataset import PartitionedGraph, Which
from ops.rng import generator
from trainers.hgt.loop import GraphTrainer, ends_of, parts_of_rank, steps
from trainers.shared import check_loss, means, run_epochs, sent_bytes
from trainers.twhin import model
from trainers.twhin.inference import inductive_tensors
from trainers.twhin.settings import Settings


def train(settings: Settings, data: PartitionedGraph, run: Run) -> Result:
    """Train one seed; `run` is the only link to the outside (`ops.api`).

    Raises SettingsError for more workers than batches in a step, DivergedError, ServiceError.
    """
    return run_epochs(TwhinTrainer(settings, data, run), run, settings.epochs)


@dataclass(frozen=True)
class TableBatch:
    """A batch: its rows by type (`ids`, unique global numbers on the CPU), its edges by relation, and uniform nodes.

    Edges and uniform nodes are on the device, as places among the ids.
    """

    ids: dict[str, Int64[Tensor, "_"]]
    pairs: tuple[Int64[Tensor, "2 _"], ...]
    uniform: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]


@dataclass(frozen=True)
class Route:
    """How a step's rows of one type travel: from their owners to this worker, and from this worker to others.

    `lengths`: how many rows each of its batches needs. `order` [R] sorts these rows by owner, and `sent` is how many
    each owner is asked for. `asked` [Q]: the rows that workers ask this one for, `received` from each, with the number
    of the `batch` [Q].
    """

    lengths: list[int]
    order: Int64[Tensor, "R"]
    sent: list[int]
    received: list[int]
    asked: Int64[Tensor, "Q"]
    batch: Int64[Tensor, "Q"]


class TwhinTrainer(GraphTrainer):
    """Tables, translations and accumulators of one seed between two epochs."""

    def __init__(self, settings: Settings, data: PartitionedGraph, run: Run) -> None:
        super().__init__(settings, data, run)
        self.settings: Settings = settings
        self.kinds = sorted({data.rows, data.others})
        d = settings.embedding_dim
        self.parts: dict[tuple[str, int], Tensor] = {}
        self.sums: dict[tuple[str, int], Tensor] = {}
        for part in parts_of_rank(data, self.group):
            for kind in self.kinds:
                n = len(data.part_rows(kind, part))
                self.parts[kind, part] = model.table(run.seed, kind, part, n, d).to(run.device)
                self.sums[kind, part] = torch.zeros(n, device=run.device)
        start = model.translations(data.labels, d)
        self.shift = torch.stack([start[relation_name(r)] for r in data.labels]).to(run.device)
        self.shift_sums = torch.zeros(len(data.labels), device=run.device)
        if run.start is not None:
            self._load(run.start)

    def epoch(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; returns means over them."""
        before = self.group.counters
        losses: list[dict[str, Tensor]] = []
        for together, batches in steps(self.edges, self.settings, self.group, self.seed, epoch, self.prepare):
            losses.append({"train/loss": self._learn(batches, together)})
        metrics = means(losses)
        check_loss(metrics["train/loss"], epoch, "lower --lr or raise --temperature")
        return metrics | sent_bytes(self.group, before, len(losses))

    def prepare(self, group: list[Which]) -> list[TableBatch]:
        """Draw batches of a pass over the edges: their edges, and the nodes that replace an end of these."""
        return [self._drawn(*each) for each in group]

    def _drawn(self, turn: int, part: int, number: int) -> TableBatch:
        data = self.data
        pairs, which = self.client.seed_edges(data.labels, part, (self.seed, turn, number), self.settings.batch)
        draws = generator(self.seed, "negatives", turn, part, number)
        # seed edges come sorted: without this a group of in-batch negatives would be of neighbouring nodes
        order = draws.permutation(pairs.shape[1])
        pairs, which = pairs[:, order], which[order]
        drawn = [draws.integers(data.count(kind), size=self.settings.neg_num) for kind in (data.rows, data.others)]
        ends = ends_of(data, pairs, drawn)
        ids = {kind: torch.from_numpy(numbers) for kind, numbers in ends.ids.items()}
        relations = torch.from_numpy(which)
        by_relation = [ends.pairs[:, relations == i] for i in range(len(data.labels))]
        first, second = (send(each, self.device) for each in ends.drawn)
        sent = send(torch.cat(by_relation, 1), self.device)
        return TableBatch(ids, torch.split(sent, [each.shape[1] for each in by_relation], 1), (first, second))

    def _learn(self, batches: list[TableBatch], together: int) -> Float64[Tensor, ""]:
        """A step over the batches of all workers, of which there are `together`; returns the mean loss."""
        routes = {kind: self._route(kind, [batch.ids[kind] for batch in batches]) for kind in self.kinds}
        by_kind = {kind: self._fetch(kind, route) for kind, route in routes.items()}
        rows = [{kind: by_kind[kind][at] for kind in self.kinds} for at in range(len(batches))]
        results = [self._gradients(batch, have) for batch, have in zip(batches, rows, strict=True)]
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for value, _, _ in results:
            total += value
        self.group.sum_(total)
        none = torch.zeros(0, self.settings.embedding_dim, device=self.device)
        for kind, route in routes.items():
            self._write(kind, route, torch.cat([none, *(g[kind] / together for _, g, _ in results)]))
        shift = torch.stack(self.group.gather_lists([s / together for _, _, s in results], together, none)).sum(0)
        self.shift, self.shift_sums = model.adagrad(self.shift, shift, self.shift_sums, self.settings.lr)
        return total / together

    def _gradients(self, batch: TableBatch, have: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of a batch, its gradients by type for the rows in `have`, and its gradient for all translations."""
        s, data = self.settings, self.data
        leaves = {kind: rows.requires_grad_() for kind, rows in have.items()}
        shift = self.shift.clone().requires_grad_()
        sums, counts = shift.new_zeros(2), shift.new_zeros(2, dtype=torch.int64)
        for i, pairs in enumerate(batch.pairs):
            if pairs.shape[1]:
                each = model.loss_terms(leaves[data.rows], leaves[data.others], shift[i], pairs, batch.uniform,
                                        s.batch_negatives, s.temperature, s.normalise)  # fmt: skip
                sums, counts = sums + each[0], counts + each[1]
        value = model.loss(sums, counts)
        gradients = torch.autograd.grad(value, [*leaves.values(), shift], materialize_grads=True, allow_unused=True)
        return value.detach(), dict(zip(leaves, gradients, strict=False)), gradients[-1]

    def _route(self, kind: str, wanted: list[Tensor]) -> Route:
        """Ask the owners for the rows `wanted` by each of this worker's batches; every worker has to call it."""
        group = self.group
        ids = torch.cat([torch.zeros(0, dtype=torch.int64), *wanted])
        numbers = [group.rank + at * group.world for at in range(len(wanted))]
        lengths = torch.tensor([len(each) for each in wanted], dtype=torch.int64)
        batch = torch.repeat_interleave(torch.tensor(numbers, dtype=torch.int64), lengths)
        owner = (torch.searchsorted(self._offsets(kind), ids, right=True) - 1) % group.world
        order = torch.argsort(owner, stable=True)
        sent = torch.bincount(owner, minlength=group.world).tolist()
        received = group.exchange_lengths(sent)
        asked = group.exchange(torch.stack([ids, batch], 1)[order], sent, received)
        return Route([len(each) for each in wanted], order, sent, received, asked[:, 0], asked[:, 1])

    def _fetch(self, kind: str, route: Route) -> list[Tensor]:
        """The rows of each of this worker's batches, as exact copies from their owners."""
        rows = torch.zeros(len(route.asked), self.settings.embedding_dim, device=self.device)
        for part, at, numbers in self._here(kind, route.asked):
            rows[send(at, self.device)] = self.parts[kind, part][send(numbers, self.device)]
        answers = self.group.exchange(rows, route.received, route.sent)
        fetched = torch.empty_like(answers)
        fetched[send(route.order, self.device)] = answers
        return [each.clone() for each in torch.split(fetched, route.lengths)]

    def _write(self, kind: str, route: Route, gradients: Float[Tensor, "R D"]) -> None:
        """Send this worker's gradients to the owners of the rows, which run Adagrad in the order of the batches."""
        sent = gradients[send(route.order, self.device)]
        received = self.group.exchange(sent, route.sent, route.received)
        in_order = torch.argsort(route.batch, stable=True)
        ids, summed = route.asked[in_order], received[send(in_order, self.device)]
        for part, at, numbers in self._here(kind, ids):
            local = summed[send(at, self.device)]
            model.step_rows(self.parts[kind, part], self.sums[kind, part], numbers, local, self.settings.lr)

    def _here(self, kind: str, ids: Int64[Tensor, "R"]) -> Iterator[tuple[int, Int64[Tensor, "_"], Int64[Tensor, "_"]]]:
        """For each of this worker's parts: which of `ids` are its nodes, and their rows in its table."""
        offsets = self._offsets(kind).tolist()
        for part in parts_of_rank(self.data, self.group):
            at = torch.nonzero((ids >= offsets[part]) & (ids < offsets[part + 1])).flatten()
            yield part, at, ids[at] - offsets[part]

    def _offsets(self, kind: str) -> Int64[Tensor, "_"]:
        return torch.from_numpy(np.asarray(self.data.manifest.nodes[kind].offsets, dtype=np.int64))

    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """The rows of this worker's parts, which are the embeddings."""
        return torch.cat([torch.zeros(0, self.settings.embedding_dim, device=self.device), *(
            self.parts[kind, part] for part in parts_of_rank(self.data, self.group)
        )])  # fmt: skip

    def link(self) -> dict[str, NDArray[np.float32]]:
        """The mean translation, since nothing says which relation a hidden pair would have."""
        return {"shift": self.shift.mean(0).cpu().numpy()}

    def state(self, epoch: int) -> State:
        """The translations, which all workers share, and the tables and accumulators by part."""
        parts: dict[int, dict[str, Tensor]] = {}
        for (kind, part), rows in self.parts.items():
            parts.setdefault(part, {})
            parts[part] |= {f"table.{kind}": rows, f"sums.{kind}": self.sums[kind, part]}
        return State(epoch, {"shift": self.shift, "shift_sums": self.shift_sums}, parts)

    def _load(self, start: State) -> None:
        taken = partial(torch.Tensor.to, device=self.device, copy=True)
        self.shift, self.shift_sums = taken(start.shared["shift"]), taken(start.shared["shift_sums"])
        for kind, part in self.parts:
            stored = start.parts[part]
            self.parts[kind, part] = taken(stored[f"table.{kind}"])
            self.sums[kind, part] = taken(stored[f"sums.{kind}"])

    def tensors(self) -> dict[str, Tensor]:
        """The translations, and what new users are placed by."""
        tensors = {f"shift.{relation_name(r)}": self.shift[i].cpu().clone() for i, r in enumerate(self.data.labels)}
        if self.settings.store_states:
            tensors |= inductive_tensors(self.embed(self.data.others), self.data, self.client, self.group)
        return tensors
