"""The only link between a method and the world: `Run` in, `Result` out (design: "One training, as data")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class State:
    """All that a resumed run needs to end bit-identical.

    `shared` maps names to tensors or JSON values and is written by rank 0; `parts` maps a part id to its tensors,
    by part and never by rank, so that another number of workers can load it.
    """

    epoch: int
    shared: dict[str, Any]
    parts: dict[int, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Warm:
    """The finished run that a training starts from (`--warm-start`).

    `model` holds its tensors; `rows` int64 [N] has for each node of this data its row in that run, -1 for a new node;
    `clusters` int64 [N there] are that run's last clusters; `digest` names all three. `by_number`: nodes were matched
    by row number, as the data has no ids.
    """

    run: str
    model: dict[str, Tensor]
    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    digest: str
    by_number: bool = False

    @property
    def n_known(self) -> int:
        """How many nodes of this data that run knew."""
        return int((self.rows >= 0).sum())

    def shared(self, assignment: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The clusters of the shared nodes: in `assignment` [N], and in that run."""
        known = self.rows >= 0
        return assignment[known], self.clusters[self.rows[known]]

    def kept(self, assignment: NDArray[np.int64]) -> float:
        """The share of the shared nodes that are in the cluster they were in."""
        now, before = self.shared(assignment)
        return float((now == before).mean())


@runtime_checkable  # the tests check every annotation
class Run(Protocol):
    """What a method sees of its run; a plain object in tests, Ray Train's or Tune's report under Ray."""

    seed: int
    start: State | None
    warm: Warm | None
    rank: int
    world: int
    device: torch.device

    def report(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        """Tell one epoch's metrics; called equally often by all ranks.

        `assignment` [N] comes at update epochs and is scored by the run, outside the method, with the `embeddings` by
        name where the method has any to score (rank 0's count). `state` is called only when a checkpoint is due. A
        stop (scheduler, signal) arrives as an exception from this call.
        """


@dataclass(frozen=True)
class Result:
    """What training leaves: the last epoch's clusters and the model.

    Shapes: assignment int64 [N] in [0, K); confidence float32 [N] in [0, 1]; embedding float32 [N, D];
    `model` holds tensors only (safetensors), enough for the method's `predict`. `more`: further arrays by name, for
    the run to score and draw (other embeddings, a map's units).
    """

    assignment: NDArray[np.int64]
    confidence: NDArray[np.float32]
    embedding: NDArray[np.float32]
    model: dict[str, Tensor]
    more: dict[str, NDArray[Any]] = field(default_factory=dict)


class PlainRun:
    """A run without files, Ray or tracking: what estimators, notebooks and tests pass to `train`."""

    def __init__(
        self, seed: int = 0, start: State | None = None, device: str = "cpu", warm: Warm | None = None
    ) -> None:
        self.seed = seed
        self.start = start
        self.warm = warm
        self.rank = 0
        self.world = 1
        self.device = torch.device(device)
        self.history: list[dict[str, float]] = []
        self.assignments: dict[int, NDArray[np.int64]] = {}

    def report(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None,
        embeddings: Arrays | None = None,
    ) -> None:
        """Keep the metrics and assignments in memory."""
        self.history.append({"epoch": epoch, **metrics})
        if assignment is not None:
            self.assignments[epoch] = assignment


Record = dict[str, float]
