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
from ops.distributed.process_group import Team
from ops.errors import DivergedError
from ops.graph.sampling.dataset import PartitionedGraph
from ops.rng import generator
from trainers.hgt.loop import check_workers, ends_of, label_edges, own_parts, run_epochs, steps
from trainers.twhin import model
from trainers.twhin.inference import kept
from trainers.twhin.settings import Settings


def train(settings: Settings, data: PartitionedGraph, run: Run) -> Result:
    """Train one seed; `run` is the only link to the outside (`ops.api`).

    Raises SettingsError for more workers than batches in a step, DivergedError, ServiceError.
    """
    return run_epochs(Training(settings, data, run), run)


@dataclass(frozen=True)
class Batch:
    """A batch's rows by type (unique global numbers), and its edges and uniform nodes as places among them."""

    ids: dict[str, Int64[Tensor, "_"]]
    pairs: Int64[Tensor, "2 P"]
    which: Int64[Tensor, "P"]  # relation of each pair
    uniform: tuple[Int64[Tensor, "_"], Int64[Tensor, "_"]]


class Training:
    """Tables, translations and accumulators of one seed between two epochs."""

    def __init__(self, settings: Settings, data: PartitionedGraph, run: Run) -> None:
        self.settings, self.data, self.seed, self.device = settings, data, run.seed, run.device
        self.team = Team(run.rank, run.world)
        check_workers(settings, run.world)
        self.client = data.connect()
        self.edges = label_edges(self.client, data)
        self.kinds = sorted({data.rows, data.others})
        d = settings.embedding_dim
        self.parts: dict[tuple[str, int], Tensor] = {}
        self.sums: dict[tuple[str, int], Tensor] = {}
        for part in own_parts(data, self.team):
            for kind in self.kinds:
                n = len(data.part_rows(kind, part))
                self.parts[kind, part] = model.table(run.seed, kind, part, n, d)
                self.sums[kind, part] = torch.zeros(n)
        made = model.translations(data.labels, d)
        self.shift = torch.stack([made[relation_name(r)] for r in data.labels])
        self.shift_sums = torch.zeros(len(data.labels))
        if run.start is not None:
            self._load(run.start)

    def step(self, epoch: int) -> dict[str, float]:
        """The steps of an epoch; means over them."""
        before = self.team.gathered, self.team.reduced
        count, total = 0, 0.0
        for together, own in steps(self.edges, self.settings, self.team, self.seed, epoch, self.prepare):
            count += 1
            total += self._learn(own, together, epoch)
        found = {"train/loss": total / count}
        if self.team.world > 1:
            found["sys/sent_bytes"] = self.team.sent_since(*before) / count
        return found

    def prepare(self, turn: int, part: int, number: int) -> Batch:
        """Draw batch (part, number) of a pass over the edges: its edges and the nodes that corrupt them."""
        data = self.data
        pairs, which = self.client.seed_edges(data.labels, part, (self.seed, turn, number), self.settings.batch)
        draws = generator(self.seed, "negatives", turn, part, number)
        # seed edges come sorted: groups of in-batch negatives must not be neighbours of one another
        order = draws.permutation(pairs.shape[1])
        pairs, which = pairs[:, order], which[order]
        drawn = [draws.integers(data.count(kind), size=self.settings.neg_num) for kind in (data.rows, data.others)]
        ends = ends_of(data, pairs, drawn)
        ids = {kind: torch.from_numpy(own) for kind, own in ends.ids.items()}
        return Batch(ids, ends.pairs, torch.from_numpy(which), ends.drawn)

    def _learn(self, own: list[Batch], together: int, epoch: int) -> float:
        """A step over the batches of all workers; returns the mean loss."""
        rows = self._fetch([batch.ids for batch in own], together)
        losses, gradients, shifts = [], [], []
        for batch, have in zip(own, rows, strict=True):
            value, by_kind, shift = self._gradients(batch, have)
            losses.append(value)
            gradients.append(by_kind)
            shifts.append(shift)
        total = self.team.sum_(torch.tensor([sum(losses)], dtype=torch.float64))
        if not torch.isfinite(total).all():
            raise DivergedError(f"epoch {epoch}: the loss is {float(total)}; lower --lr or raise --temperature")
        d = self.settings.embedding_dim
        for kind in self.kinds:
            ids = self.team.lists([batch.ids[kind] for batch in own], together, torch.zeros(0, dtype=torch.int64))
            moved = self.team.lists([g[kind] / together for g in gradients], together, torch.zeros(0, d))
            self._write(kind, torch.cat(ids), torch.cat(moved))
        shift = torch.stack(self.team.lists([s / together for s in shifts], together, torch.zeros(0, d))).sum(0)
        self.shift, self.shift_sums = model.adagrad(self.shift, shift, self.shift_sums, self.settings.lr)
        return float(total) / together

    def _gradients(self, batch: Batch, have: dict[str, Tensor]) -> tuple[float, dict[str, Tensor], Tensor]:
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
        found = torch.autograd.grad(value, [*leaves.values(), shift], allow_unused=True)
        by_kind = {kind: g for kind, g in zip(leaves, found, strict=False) if g is not None}
        return float(value.detach()), by_kind, found[-1] if found[-1] is not None else torch.zeros_like(shift)

    def _fetch(self, wanted: list[dict[str, Tensor]], together: int) -> list[dict[str, Tensor]]:
        """The rows of each own batch: owners fill in theirs, the sum over workers has them all."""
        found: list[dict[str, Tensor]] = [{} for _ in wanted]
        for kind in self.kinds:
            everyone = self.team.lists([ids[kind] for ids in wanted], together, torch.zeros(0, dtype=torch.int64))
            rows = torch.zeros(sum(map(len, everyone)), self.settings.embedding_dim)
            ids = torch.cat(everyone)
            for part, first, last in self._ranges(kind):
                mine = (ids >= first) & (ids < last)
                rows[mine] = self.parts[kind, part][ids[mine] - first]
            pieces = torch.split(self.team.sum_(rows), [len(each) for each in everyone])
            for at, own in enumerate(found):
                own[kind] = pieces[self.team.rank + at * self.team.world].clone()
        return found

    def _ranges(self, kind: str) -> list[tuple[int, int, int]]:
        offsets = self.data.manifest.nodes[kind].offsets
        return [(part, int(offsets[part]), int(offsets[part + 1])) for part in own_parts(self.data, self.team)]

    def _write(self, kind: str, ids: Int64[Tensor, "R"], gradients: Float[Tensor, "R D"]) -> None:
        """Adagrad on the own parts, all batches' gradients in batch order."""
        for part, first, last in self._ranges(kind):
            mine = (ids >= first) & (ids < last)
            model.step_rows(
                self.parts[kind, part], self.sums[kind, part], ids[mine] - first, gradients[mine], self.settings.lr
            )

    def embed(self, kind: str) -> Float32[Tensor, "n D"]:
        """The rows of this worker's parts."""
        return torch.cat([torch.zeros(0, self.settings.embedding_dim), *(
            self.parts[kind, part] for part in own_parts(self.data, self.team)
        )])  # fmt: skip

    def link(self) -> dict[str, NDArray[np.float32]]:
        """The mean translation: which relation a hidden pair would get is not known."""
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
        found = {f"shift.{relation_name(r)}": self.shift[i].clone() for i, r in enumerate(self.data.labels)}
        if self.settings.store_states:
            found |= kept(self.embed(self.data.others), self.data, self.client, self.team)
        return found
