"""The types that all parts of the program share: a method, what a run was asked for, and what passes between the two.

A method is a frozen `Method`. A training gets `(settings, data, run)` and returns a `Result`. `Run` is its only link to
the outside: files, Ray, tracking and labels are behind it.

Axes: N rows, D embedding width, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops import atomic_io
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import LaunchSettings, MethodSettings
from ops.data.types.graph import Data
from ops.device import Precision
from ops.errors import SettingsError

S = TypeVar("S", bound=MethodSettings)
S_contra = TypeVar("S_contra", bound=MethodSettings, contravariant=True)
D = TypeVar("D", bound=Data)

Arrays = atomic_io.Arrays
Record = dict[str, float]
Judge = Callable[[NDArray[np.int64], Arrays], dict[str, float]]


@dataclass(frozen=True)
class State:
    """All that a resumed run needs to end with the same bits.

    `shared` maps names to tensors or JSON values and is written by rank 0. `parts` maps the number of a part to its
    tensors. Tensors go by part and never by rank, so that another number of workers can load them.
    """

    epoch: int
    shared: dict[str, Any]
    parts: dict[int, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Warm:
    """The finished run that a training starts from (`--warm-start`).

    `model` has its tensors. `rows` int64 [N] has for each node of this data its row in that run, -1 for a new node.
    `clusters` int64 are the last clusters of that run, one for each of its nodes. `digest` identifies all three.
    `by_number`: nodes were matched by row number, as the data has no ids.
    """

    run: str
    model: dict[str, Tensor]
    rows: NDArray[np.int64]
    clusters: NDArray[np.int64]
    digest: str
    by_number: bool = False

    @property
    def n_known(self) -> int:
        """How many nodes of this data were in that run."""
        return int((self.rows >= 0).sum())

    def shared(self, assignment: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The clusters of the shared nodes: in `assignment` [N], and in that run."""
        is_shared = self.rows >= 0
        return assignment[is_shared], self.clusters[self.rows[is_shared]]

    def kept(self, assignment: NDArray[np.int64]) -> float:
        """The share of the shared nodes that are in the same cluster as before."""
        now, before = self.shared(assignment)
        return float((now == before).mean())


@runtime_checkable  # the tests check every annotation
class Run(Protocol):
    """What a method sees of its run: a plain object in tests, the reports of Ray Train or Tune under Ray."""

    seed: int
    start: State | None
    warm: Warm | None
    rank: int
    world: int
    device: torch.device
    precision: Precision

    def report(
        self, epoch: int, metrics: Mapping[str, float], assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None, embeddings: Arrays | None = None,
    ) -> None:  # fmt: skip
        """Report the metrics of one epoch; all ranks call it equally often.

        `assignment` [N] is given at epochs with an evaluation. The run scores it, outside of the method, together with
        any `embeddings` by name. For users (`DataModule.offsets`) every rank gives its own rows [n]; otherwise all
        ranks have the same rows and those of rank 0 count. `state` is called only when a checkpoint is due. A stop (by
        a scheduler or a signal) arrives as an exception.
        """


@dataclass(frozen=True)
class Result:
    """What a training returns of its last epoch or an earlier one; for users the rows [n] that this rank has.

    Shapes: assignment int64 [N] in [0, K), confidence float32 [N] in [0, 1], embedding float32 [N, D]. `model` has
    tensors only (safetensors), enough for the method's `predict`. `more`: further arrays by name, which the run scores
    and draws (other embeddings, the units of a map). `epoch`: the earlier one. `spherical`: k-means takes rows at unit
    length.
    """

    assignment: NDArray[np.int64]
    confidence: NDArray[np.float32]
    embedding: NDArray[np.float32]
    model: dict[str, Tensor]
    more: Arrays = field(default_factory=dict)
    epoch: int | None = None
    spherical: bool = False


class PlainRun:
    """A run without files, Ray or tracking: what estimators, notebooks and tests pass to `train`."""

    def __init__(
        self, seed: int = 0, start: State | None = None, device: str = "cpu", warm: Warm | None = None,
        precision: Precision = "float32",
    ) -> None:  # fmt: skip
        self.seed = seed
        self.start = start
        self.warm = warm
        self.rank = 0
        self.world = 1
        self.device = torch.device(device)
        self.precision = precision
        self.history: list[dict[str, float]] = []
        self.assignments: dict[int, NDArray[np.int64]] = {}

    def report(
        self, epoch: int, metrics: Mapping[str, float], assignment: NDArray[np.int64] | None = None,
        state: Callable[[], State] | None = None, embeddings: Arrays | None = None,
    ) -> None:  # fmt: skip
        """Keep the metrics and assignments in memory."""
        self.history.append({"epoch": epoch, **metrics})
        if assignment is not None:
            self.assignments[epoch] = assignment


class Sweep(TypedDict):
    """The choice of K without labels: candidates `k`, each index over them, their mean `rank`, the `chosen` K."""

    k: list[int]
    indices: dict[str, list[float]]
    rank: list[float]
    chosen: int
    confidence: float
    reason: str


@dataclass(frozen=True)
class Experiment(Generic[S, D]):
    """What a run was asked for, resolved once: the method, its settings with K, the data, and what only judges may see.

    `labels` int64 [N] and `hidden` (hidden edges, names of classes) never reach the method. `k_choice` is the sweep
    behind `--n-clusters auto`. `warm` is the run that `--warm-start` names.
    """

    method: Method[S, D]
    request: Request[S, LaunchSettings]
    data: D
    labels: NDArray[np.int64] | None
    hidden: Any
    console: Console
    threads: int
    k_choice: Sweep | None = None
    warm: Warm | None = None

    @property
    def settings(self) -> S:
        """The method's settings."""
        return self.request.settings

    @property
    def launch(self) -> LaunchSettings:
        """The launch settings: where and how the run is made."""
        return self.request.launch

    @property
    def k(self) -> int:
        """K, the number of clusters."""
        return self.settings.k

    @property
    def seeds(self) -> list[int]:
        """The seeds that were asked for."""
        return list(range(self.launch.first_seed, self.launch.first_seed + self.launch.seeds))

    def with_settings(self, source: str, **values: Any) -> Experiment[S, D]:
        """The same experiment with some of the method's settings replaced, e.g. by those of a trial."""
        return replace(self, request=self.request.with_settings(source, **values))


def _no_remarks(settings: Any, data: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class Method(Generic[S, D]):
    """A clustering method: its settings, its functions, and the words that a run says about it.

    `train(settings, data, run)` returns a `Result`. `predict(model, settings, rows...)` places rows by the tensors of a
    trained model. `estimate(settings, data, world)` is the planned peak in bytes of one of `world` workers, `exchanged`
    the bytes that it sends in a step. `remarks` are sentences for the plan. `searched` are the settings that a search
    varies by default, `fixed` those that a warm start cannot change. `filter_order` is the order of the filter in the
    baseline filter + k-means. `precisions` are those that a GPU's products may have, first the choice of `--precision
    auto`.

    The texts: `weights` (what the weights of edges do), `new_rows` (how rows that the training has not seen are
    placed), `save_memory` and `avoid_collapse` (which settings help).
    """

    name: str
    summary: str
    settings: type[S]
    kind: Literal["graph", "images", "users"]  # the kind of data
    train: Callable[[S, D, Run], Result]
    predict: Callable[..., Any]
    estimate: Callable[[S, D, int], int]
    exchanged: Callable[[S, D, int], int]
    new_rows: str
    save_memory: str
    avoid_collapse: str = "lower --lr"
    searched: tuple[str, ...] = ("lr",)
    fixed: tuple[str, ...] = ()
    remarks: Callable[[S, D], list[str]] = _no_remarks
    filter_order: Callable[[S], int] | None = None
    embed: Callable[..., Tensor] | None = None
    places_by_features: bool = True
    precisions: tuple[Precision, ...] = ("tf32", "float32")
    weights: str = "are not used"

    def require(self, kind: str, flag: str) -> None:
        """Raise SettingsError where `flag` is for another kind of data than that of this method."""
        if self.kind != kind:
            titles = {"graph": "attributed graphs", "images": "images", "users": "users of heterogeneous graphs"}
            raise SettingsError(f"{flag}: is for {titles[kind]}; {self.name} does not take it")


AnyMethod = Method[Any, Any]
AnyExperiment = Experiment[Any, Any]
