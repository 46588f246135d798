"""The result of a training that ends with a collapsed cluster: that of the last sound evaluation before it.

`BeforeCollapse` stands between the epoch loop and a method's trainer. At every evaluation without a collapsed cluster
it copies what the trainer's result is computed from, in place of the copy before. Where the last evaluation has one,
and an earlier one had none, the copy goes back and the result is computed from it, as it would have been then.
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

EPOCH, COPY = "sound.epoch", "sound."  # in a checkpoint


class BeforeCollapse:
    """An `EpochTrainer` around another one, whose `weights` (changed in place by training) give its result.

    All workers see the same clusters, of all rows, and copy at the same evaluations.
    """

    def __init__(self, trainer: EpochTrainer, weights: Mapping[str, Tensor], n_clusters: int, run: Run) -> None:
        self.trainer, self.n_clusters, self.group = trainer, n_clusters, ProcessGroup(run.rank, run.world)
        self.weights = {name: each.detach() for name, each in weights.items()}  # they share their memory
        self.copy: dict[str, Tensor] = {}
        self.sound: int | None = None  # the epoch of the copy
        self.collapsed = False  # whether the last evaluation had a collapsed cluster
        stored = {} if run.start is None else run.start.shared
        if run.start is not None and EPOCH in stored:
            self.sound = int(stored[EPOCH])
            self.collapsed = self.sound != run.start.epoch
            missing = {name: stored[COPY + name] for name in weights} if self.collapsed else self.weights
            self.copy = {name: each.to(run.device, copy=True) for name, each in missing.items()}

    def epoch(self, epoch: int) -> dict[str, float]:
        """The trainer's."""
        return self.trainer.epoch(epoch)

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """The trainer's; the weights are copied where no cluster of it has collapsed."""
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
        """The trainer's, with the copy, unless it is of the very epoch."""
        state = self.trainer.state(epoch)
        if self.sound is None:
            return state
        copy = {} if self.sound == epoch else {COPY + name: each for name, each in self.copy.items()}
        return replace(state, shared=state.shared | {EPOCH: self.sound} | copy)

    def result(self) -> Result:
        """The trainer's after the last epoch, or after the last sound evaluation, whose epoch it then names."""
        if not self.collapsed or self.sound is None:
            return self.trainer.result()
        for name, each in self.weights.items():
            each.copy_(self.copy[name])
        self.trainer.evaluate(self.sound)  # whose clusters the result has
        return replace(self.trainer.result(), epoch=self.sound)
