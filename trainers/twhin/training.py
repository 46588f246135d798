"""TwHIN's training: tables by part in the workers, rows fetched from their owners and gradients sent back.

A step has the same batches for any number of workers, rows are exact copies, and a table's owner adds the gradients
of all batches in batch order: any number of workers computes the same bits.

Axes: P pairs of a batch, R rows that a step needs, D width, W workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.data.types.hetero import relation_name
from ops.graph.sampling.dataset import PartitionedGraph
from ops.rng import generator
from trainers.hgt.loop import GraphTrainer, ends_of, parts_of_rank, steps
from trainers.shared import check_loss, run_epochs, sent_bytes
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
    """A batch's rows by type (unique global numbers), and its edges and uniform nodes as places among them."""

    ids: dict[str, Int64[Tensor, "_"]]
    pairs: Int64[Tensor, "2 P"]
    which: Int64[Tensor, "P"]  # relation of each pair
    uniform: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]


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
                self.parts[kind, part] = model.table(run.seed, kind, part, n, d)
                self.sums[kind, part] = torch.zeros(n)
        start = model.translations(data.labels, d)
        self.shift = torch.stack([start[relation_name(r)] for r in data.labels])
        self.shift_sums = torch.zeros(len(data.labels))
        if run.start is not None:
            self._load(run.start)

    def epoch(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; means over them."""
        before = self.group.counters
        count, total = 0, 0.0
        for together, batches in steps(self.edges, self.settings, self.group, self.seed, epoch, self.prepare):
            count += 1
            total += self._learn(batches, together, epoch)
        return {"train/loss": total / count} | sent_bytes(self.group, before, count)

    def prepare(self, turn: int, part: int, number: int) -> TableBatch:
        """Draw batch (part, number) of a pass over the edges: its edges and the nodes that corrupt them."""
        data = self.data
        pairs, which = self.client.seed_edges(data.labels, part, (self.seed, turn, number), self.settings.batch)
        draws = generator(self.seed, "negatives", turn, part, number)
        # seed edges come sorted: groups of in-batch negatives must not be neighbours of one another
        order = draws.permutation(pairs.shape[1])
        pairs, which = pairs[:, order], which[order]
        drawn = [draws.integers(data.count(kind), size=self.settings.neg_num) for kind in (data.rows, data.others)]
        ends = ends_of(data, pairs, drawn)
        ids = {kind: torch.from_numpy(numbers) for kind, numbers in ends.ids.items()}
        return TableBatch(ids, ends.pairs, torch.from_numpy(which), ends.drawn)

    def _learn(self, batches: list[TableBatch], together: int, epoch: int) -> float:
        """A step over the batches of all workers, `together` in number; returns the mean loss."""
        rows = self._fetch([batch.ids for batch in batches], together)
        results = [self._gradients(batch, have) for batch, have in zip(batches, rows, strict=True)]
        total = self.group.sum_(torch.tensor([sum(loss for loss, _, _ in results)], dtype=torch.float64))
        check_loss(float(total), epoch, "lower --lr or raise --temperature")
        none, no_ids = torch.zeros(0, self.settings.embedding_dim), torch.zeros(0, dtype=torch.int64)
        for kind in self.kinds:
            ids = self.group.gather_lists([batch.ids[kind] for batch in batches], together, no_ids)
            gradients = self.group.gather_lists([g[kind] / together for _, g, _ in results], together, none)
            self._write(kind, torch.cat(ids), torch.cat(gradients))
        shift = torch.stack(self.group.gather_lists([s / together for _, _, s in results], together, none)).sum(0)
        self.shift, self.shift_sums = model.adagrad(self.shift, shift, self.shift_sums, self.settings.lr)
        return float(total) / together

    def _gradients(self, batch: TableBatch, have: dict[str, Tensor]) -> tuple[float, dict[str, Tensor], Tensor]:
        """Loss of a batch, its gradient by type for the rows it has, and for all translations."""
        s, data = self.settings, self.data
        leaves = {kind: rows.requires_grad_() for kind, rows in have.items()}
        shift = self.shift.clone().requires_grad_()
        sums, counts = torch.zeros(2), torch.zeros(2, dtype=torch.int64)
        for i in range(len(data.labels)):
            pairs = batch.pairs[:, batch.which == i]
            if pairs.shape[1]:
                each = model.loss_terms(leaves[data.rows], leaves[data.others], shift[i], pairs, batch.uniform,
                                        s.batch_negatives, s.temperature, s.normalise)  # fmt: skip
                sums, counts = sums + each[0], counts + each[1]
        value = model.loss(sums, counts)
        gradients = torch.autograd.grad(value, [*leaves.values(), shift], materialize_grads=True, allow_unused=True)
        return float(value.detach()), dict(zip(leaves, gradients, strict=False)), gradients[-1]

    def _fetch(self, wanted: list[dict[str, Tensor]], together: int) -> list[dict[str, Tensor]]:
        """The rows of each of this worker's batches: owners fill in theirs, the sum over workers has them all."""
        no_ids = torch.zeros(0, dtype=torch.int64)
        fetched: list[dict[str, Tensor]] = [{} for _ in wanted]
        for kind in self.kinds:
            by_batch = self.group.gather_lists([ids[kind] for ids in wanted], together, no_ids)
            ids = torch.cat(by_batch)
            rows = torch.zeros(len(ids), self.settings.embedding_dim)
            for part, first, last in self._ranges(kind):
                here = (ids >= first) & (ids < last)
                rows[here] = self.parts[kind, part][ids[here] - first]
            pieces = torch.split(self.group.sum_(rows), [len(each) for each in by_batch])
            for at, batch_rows in enumerate(fetched):
                batch_rows[kind] = pieces[self.group.rank + at * self.group.world].clone()
        return fetched

    def _ranges(self, kind: str) -> list[tuple[int, int, int]]:
        offsets = self.data.manifest.nodes[kind].offsets
        return [(part, int(offsets[part]), int(offsets[part + 1])) for part in parts_of_rank(self.data, self.group)]

    def _write(self, kind: str, ids: Int64[Tensor, "R"], gradients: Float[Tensor, "R D"]) -> None:
        """Adagrad on this worker's parts, all batches' gradients in batch order."""
        for part, first, last in self._ranges(kind):
            here = (ids >= first) & (ids < last)
            model.step_rows(
                self.parts[kind, part], self.sums[kind, part], ids[here] - first, gradients[here], self.settings.lr
            )

    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """The rows of this worker's parts."""
        return torch.cat([torch.zeros(0, self.settings.embedding_dim), *(
            self.parts[kind, part] for part in parts_of_rank(self.data, self.group)
        )])  # fmt: skip

    def link(self) -> dict[str, NDArray[np.float32]]:
        """The mean translation: of a hidden pair nothing says which relation it would get."""
        return {"shift": self.shift.mean(0).numpy()}

    def state(self, epoch: int) -> State:
        """Translations are shared; tables and accumulators go by part."""
        parts: dict[int, dict[str, Tensor]] = {}
        for (kind, part), rows in self.parts.items():
            parts.setdefault(part, {})
            parts[part] |= {f"table.{kind}": rows, f"sums.{kind}": self.sums[kind, part]}
        return State(epoch, {"shift": self.shift, "shift_sums": self.shift_sums}, parts)

    def _load(self, start: State) -> None:
        self.shift, self.shift_sums = start.shared["shift"].clone(), start.shared["shift_sums"].clone()
        for kind, part in self.parts:
            stored = start.parts[part]
            self.parts[kind, part] = stored[f"table.{kind}"].clone()
            self.sums[kind, part] = stored[f"sums.{kind}"].clone()

    def tensors(self) -> dict[str, Tensor]:
        """The translations, and what new users are placed by."""
        tensors = {f"shift.{relation_name(r)}": self.shift[i].clone() for i, r in enumerate(self.data.labels)}
        if self.settings.store_states:
            tensors |= inductive_tensors(self.embed(self.data.others), self.data, self.client, self.group)
        return tensors
