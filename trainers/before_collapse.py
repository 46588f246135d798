"""The result of a training whose last clusters have collapsed: that of the last sound evaluation.

`BeforeCollapse` stands between the epoch loop and the trainer of a method. After every evaluation in which no cluster
has collapsed it copies the weights that the result is computed from, over the copy before. If the last evaluation has a
collapsed cluster and an earlier one had none, the copied weights are put back and the result is computed from them, as
it would have been at that epoch.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.collapse import is_collapsed
from ops.distributed.process_group import ProcessGroup
from trainers.shared import EpochTrainer, Evaluation

EPOCH, COPY = "sound.epoch", "sound."  # names in a checkpoint


class BeforeCollapse:
    """An `EpochTrainer` around another one, whose result is computed from `weights`, which training changes in place.

    All workers see the clusters of all rows, so they copy at the same evaluations.
    """

    def __init__(self, trainer: EpochTrainer, weights: Mapping[str, Tensor], n_clusters: int, run: Run) -> None:
        self.trainer, self.n_clusters, self.group = trainer, n_clusters, ProcessGroup(run.rank, run.world)
        self.weights = {name: each.detach() for name, each in weights.items()}  # these share the memory of the weights
        self.copy: dict[str, Tensor] = {}
        self.sound: int | None = None  # the epoch that the copy is of
        self.collapsed = False  # whether the last evaluation had a collapsed cluster
        stored = {} if run.start is None else run.start.shared
        if run.start is not None and EPOCH in stored:
            self.sound = int(stored[EPOCH])
            self.collapsed = self.sound != run.start.epoch
            missing = {name: stored[COPY + name] for name in weights} if self.collapsed else self.weights
            self.copy = {name: each.to(run.device, copy=True) for name, each in missing.items()}

    def epoch(self, epoch: int) -> dict[str, float]:
        """One epoch of the trainer."""
        return self.trainer.epoch(epoch)

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """The trainer's evaluation; the weights are copied where none of its clusters has collapsed."""
        evaluation = self.trainer.evaluate(epoch)
        if evaluation is not None:
            sizes = np.bincount(evaluation.assignment, minlength=self.n_clusters)
            collapsed = is_collapsed(float(sizes.min()), len(evaluation.assignment), self.n_clusters)
            self.collapsed = bool(self.group.broadcast_(torch.tensor(collapsed)))
            if not self.collapsed:
                self.sound = epoch
                for name, each in self.weights.items():
                    self.copy.setdefault(name, torch.empty_like(each)).copy_(each)
        return evaluation

    def state(self, epoch: int) -> State:
        """The trainer's state, with the copy of the weights unless that is of the same epoch."""
        state = self.trainer.state(epoch)
        if self.sound is None:
            return state
        copy = {} if self.sound == epoch else {COPY + name: each for name, each in self.copy.items()}
        return replace(state, shared=state.shared | {EPOCH: self.sound} | copy)

    def result(self) -> Result:
        """The trainer's result: of the last epoch, or of the last sound evaluation, whose epoch it then names."""
        if not self.collapsed or self.sound is None:
            return self.trainer.result()
        for name, each in self.weights.items():
            each.copy_(self.copy[name])
        self.trainer.evaluate(self.sound)  # the result has the clusters of this evaluation
        return replace(self.trainer.result(), epoch=self.sound)
