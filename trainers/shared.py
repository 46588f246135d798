"""What the trainings of all methods share: epoch loop, steps summed over workers, batching, checks, first weights.

Axes: N nodes or images, n of them on this worker, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from ops.api import Arrays, Result, Run, State, Warm
from ops.clustering.label_matching import matched_ids
from ops.config.settings import MethodSettings, setting
from ops.device import ordered_sums, products, send
from ops.distributed.process_group import ProcessGroup
from ops.errors import DivergedError
from ops.graph.adjacency import SparseRows, sparse_product, sparse_rows

SPARSE_BELOW = 0.1  # share of features that are not 0, below which products skip the zeros


class PartSettings(MethodSettings):
    """The settings of a method that can cut a graph into parts and take some of them in each step."""

    parts: int = setting(0, "parts to cut the graph into, some of them a step; 0: none", ge=0)
    blocks: int = setting(1, "parts a step takes, with the edges between them", ge=1)
    partition: Literal["metis", "hash"] = setting("metis", "how the graph is cut; hash ignores its edges")

    def largest_step(self, n_nodes: int) -> int:
        """Nodes of the largest step; METIS keeps its parts within a few percent of each other."""
        return min(n_nodes, int(1.05 * n_nodes * self.blocks / self.parts) + 1) if self.parts else n_nodes

    @model_validator(mode="after")
    def _blocks_within_parts(self) -> PartSettings:
        if self.blocks > max(self.parts, 1):
            raise ValueError(
                f"--blocks {self.blocks} must be at most --parts, which is {self.parts}: "
                "lower --blocks or raise --parts"
            )
        return self


class TileSettings(PartSettings):
    """The settings of a method whose loss walks all pairs of a step tile by tile."""

    tile_rows: Literal["auto"] | int = setting(
        "auto", "rows of a tile of the pairwise loss, 16 to 8192; auto: 512 on a CPU, 8192 on a GPU"
    )

    @model_validator(mode="after")
    def _tiles(self) -> TileSettings:
        if isinstance(self.tile_rows, int) and not 16 <= self.tile_rows <= 8192:
            raise ValueError(f"--tile-rows {self.tile_rows}: allowed are auto or a whole number in [16, 8192]")
        return self


@dataclass(frozen=True)
class Evaluation:
    """What a run scores at an epoch: the clusters of all rows [N], further arrays to score, and further metrics."""

    assignment: NDArray[np.int64]
    embeddings: Arrays | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@runtime_checkable  # the tests check every annotation
class EpochTrainer(Protocol):
    """Model and optimiser of one seed between two epochs."""

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch; returns its metrics, means over the steps. Raises DivergedError."""

    def evaluate(self, epoch: int) -> Evaluation | None:
        """The clusters after an epoch, or None where no evaluation is due."""

    def state(self, epoch: int) -> State:
        """All that a resumed run needs. Random draws are keyed, so the state of no generator is part of it."""

    def result(self) -> Result:
        """Clusters, confidence, embedding and model after the last epoch."""


def run_epochs(trainer: EpochTrainer, run: Run, epochs: int) -> Result:
    """Train from the epoch after the checkpoint, or from the first, to the last one, and report each."""
    with ordered_sums(run.device):
        for epoch in range(run.start.epoch + 1 if run.start else 0, epochs):
            with products(run.device, run.precision):  # clusters and results are computed in float32
                metrics = trainer.epoch(epoch)
            evaluation = trainer.evaluate(epoch)
            if evaluation is None:
                run.report(epoch, metrics, None, partial(trainer.state, epoch))
            else:
                metrics |= evaluation.metrics
                run.report(epoch, metrics, evaluation.assignment, partial(trainer.state, epoch), evaluation.embeddings)
        return trainer.result()


def is_due(epoch: int, every: int, epochs: int) -> bool:
    """Whether there is an evaluation after `epoch`: after every `every`-th epoch and after the last one."""
    return epoch % every == 0 or epoch == epochs - 1


def sent_bytes(group: ProcessGroup, before: tuple[int, int, int], steps: int) -> dict[str, float]:
    """The metric of the bytes that this worker has sent in each step since its counters stood at `before`."""
    return {"sys/sent_bytes": group.sent_since(*before) / steps} if group.world > 1 else {}


def gradient_step(
    loss: Float[Tensor, ""],
    parameters: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    group: ProcessGroup,
    *,
    accumulate: bool = False,
) -> None:
    """Step the optimiser with the gradients of this worker's `loss`, summed over the workers.

    `accumulate` adds them to the gradients of all earlier steps, as the released code of HSAN does.
    """
    if not accumulate:  # before the backward pass, which needs the memory
        optimizer.zero_grad(set_to_none=True)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        group.sum_(gradient)
        parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
    optimizer.step()


def means(steps: Sequence[Mapping[str, Tensor]], last: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """The means of the metrics over an epoch's steps, and the values of `last`, those of its last step, unchanged.

    This is the only time in an epoch that the host waits for the device. Every step has the same names, each with a
    scalar.
    """
    last = last or {}
    scalars = [value.double() for step in [*steps, last] for value in step.values()]
    read = iter(torch.stack(scalars).tolist())
    rows = [[next(read) for _ in step] for step in steps]
    columns = zip(steps[0], zip(*rows, strict=True), strict=True)
    return {name: sum(column) / len(rows) for name, column in columns} | dict(zip(last, read, strict=True))


def check_loss(loss: float, epoch: int, remedy: str, stage: str = "") -> None:
    """Raise DivergedError, which names the epoch and what to do, unless the loss is finite."""
    if not math.isfinite(loss):
        raise DivergedError(f"{stage}epoch {epoch}: the loss is {loss}; {remedy}")


@dataclass(frozen=True)
class Features:
    """The rows of X that this worker has, dense or sparse, out of the `total` rows of a step."""

    x: Float[Tensor, "n F"] | SparseRows
    total: int

    def times(self, weight: Float[Tensor, "F H"]) -> Float[Tensor, "n H"]:
        """`X W`, differentiable in W."""
        return self.x @ weight if isinstance(self.x, Tensor) else sparse_product(self.x, weight[None])[0]


def features_of(x: NDArray[np.float32], group: ProcessGroup, device: torch.device) -> Features:
    """The rows of X [N, F] that this worker has. Rows of mostly zeros (bags of words) are stored as sparse rows."""
    local = x[group.shard(len(x))]
    if np.count_nonzero(x) < SPARSE_BELOW * x.size:
        return Features(sparse_rows(sp.csr_array(local), device), len(x))
    return Features(send(local, device), len(x))


def aggregate(z: Float[Tensor, "n D"], a: SparseRows, n_nodes: int, group: ProcessGroup) -> Float[Tensor, "n D"]:
    """`A Z` for this worker's rows of A; Z has the rows `z` of all workers. Differentiable in z."""
    return sparse_product(a, group.gather(z[None], n_nodes)[None])[0]


def keep_cluster_ids(result: Result, n_clusters: int, warm: Warm | None) -> Result:
    """The result with the cluster ids of the run that a warm start began from; without one the result itself.

    The ids are changed in the assignment and in the order of the centres.
    """
    if warm is None:
        return result
    ids = matched_ids(*warm.shared(result.assignment), n_clusters)
    order = torch.from_numpy(np.argsort(ids))  # the new clusters in the order of their ids
    model = result.model | {"centres": result.model["centres"][order].contiguous()}
    return replace(result, assignment=ids[result.assignment], model=model)


def linear_start(shape: Sequence[int], fan_in: int, draws: torch.Generator) -> Float[Tensor, "*shape"]:
    """The first weights and biases that torch.nn.Linear has: uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=draws)


def glorot_start(shape: Sequence[int], draws: torch.Generator) -> Float[Tensor, "*shape"]:
    """Uniform within sqrt(6 / (inputs + outputs)), which are the last two sizes (Glorot & Bengio 2010)."""
    bound = math.sqrt(6 / (shape[-2] + shape[-1]))
    return torch.empty(tuple(shape)).uniform_(-bound, bound, generator=draws)
