"""The result of a training whose clusters have become worse: that of the last sound evaluation.

An evaluation is sound where no cluster has collapsed and the modularity has not fallen (`ops.clustering.soundness`).
`LastSound` stands between the epoch loop and the trainer of a method. After every sound evaluation it copies the
weights that the result is computed from, over the copy before. If the last evaluation is not sound and an earlier one
was, the copied weights are put back and the result is computed from them, as it would have been at that epoch.

Axes: N nodes, E directed edges.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops.api import Result, Run, State
from ops.clustering.soundness import has_fallen, is_collapsed
from ops.config.settings import MethodSettings
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.unlabelled import structure_indices
from trainers.shared import EpochTrainer, Evaluation, run_epochs

EPOCH, HIGHEST, COPY = "sound.epoch", "sound.modularity", "sound."  # names in a checkpoint


def train_to_last_sound(
    trainer: EpochTrainer, weights: Mapping[str, Tensor], settings: MethodSettings, data: AttributedGraph, run: Run
) -> Result:
    """Train all epochs; the result is that of the last sound evaluation, or of the last one where none is sound.

    It is computed from `weights`, which are the trainer's own and change in place.
    """
    return run_epochs(LastSound(trainer, weights, data.edge_index, settings.k, run), run, settings.epochs)


class LastSound:
    """An `EpochTrainer` around another one, whose result is computed from `weights`, which training changes in place.

    All workers see the clusters of all nodes, so they copy at the same evaluations.
    """

    def __init__(
        self, trainer: EpochTrainer, weights: Mapping[str, Tensor], edge_index: NDArray[np.int64], n_clusters: int,
        run: Run,
    ) -> None:  # fmt: skip
        self.trainer, self.edge_index, self.n_clusters = trainer, edge_index, n_clusters
        self.group = ProcessGroup(run.rank, run.world)
        self.weights = {name: each.detach() for name, each in weights.items()}  # these share the memory of the weights
        self.copy: dict[str, Tensor] = {}
        self.sound: int | None = None  # the epoch that the copy is of
        self.highest = -1.0  # modularity of the sound evaluations
        self.worse = False  # whether the last evaluation was not sound
        stored = {} if run.start is None else run.start.shared
        if run.start is not None and EPOCH in stored:
            self.sound, self.highest = int(stored[EPOCH]), float(stored.get(HIGHEST, -1.0))  # old checkpoints have none
            self.worse = self.sound != run.start.epoch
            kept = {name: stored[COPY + name] for name in weights} if self.worse else self.weights
            self.copy = {name: each.to(run.device, copy=True) for name, each in kept.items()}

    def epoch(self, epoch: int) -> dict[str, float]:
        """One epoch of the trainer."""
        return self.trainer.epoch(epoch)

    @torch.no_grad()
    def evaluate(self, epoch: int) -> Evaluation | None:
        """The trainer's evaluation; the weights are copied where it is sound."""
        evaluation = self.trainer.evaluate(epoch)
        if evaluation is not None:
            modularity = structure_indices(self.edge_index, evaluation.assignment)["modularity"]
            sound = self._is_sound(evaluation.assignment, modularity)
            self.worse = not self.group.broadcast_(torch.tensor(sound))
            if not self.worse:
                self.sound, self.highest = epoch, max(self.highest, modularity)
                for name, each in self.weights.items():
                    self.copy.setdefault(name, torch.empty_like(each)).copy_(each)
        return evaluation

    def _is_sound(self, clusters: NDArray[np.int64], modularity: float) -> bool:
        """Whether the clusters [N] are no worse than those of earlier evaluations."""
        smallest = np.bincount(clusters, minlength=self.n_clusters).min()
        collapsed = is_collapsed(float(smallest), len(clusters), self.n_clusters)
        return not collapsed and not has_fallen(modularity, self.highest)

    def state(self, epoch: int) -> State:
        """The trainer's state, with the copy of the weights unless that is of the same epoch."""
        state = self.trainer.state(epoch)
        if self.sound is None:
            return state
        copy = {} if self.sound == epoch else {COPY + name: each for name, each in self.copy.items()}
        return replace(state, shared=state.shared | {EPOCH: self.sound, HIGHEST: self.highest} | copy)

    def result(self) -> Result:
        """The trainer's result: of the last epoch, or of the last sound evaluation, whose epoch it then names."""
        if not self.worse or self.sound is None:
            return self.trainer.result()
        for name, each in self.weights.items():
            each.copy_(self.copy[name])
        self.trainer.evaluate(self.sound)  # the result has the clusters of this evaluation
        return replace(self.trainer.result(), epoch=self.sound)
