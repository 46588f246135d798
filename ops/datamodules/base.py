"""What a run does differently for each kind of data: how it is loaded, judged, described and finished.

A method names its kind (`KIND`); everything else of a run is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ops.api import Arrays
from ops.config.settings import LaunchSettings, MethodSettings
from ops.data.types.graph import Data
from ops.errors import SettingsError

if TYPE_CHECKING:
    from ops.training.experiment import Job

WORDS = {"graph": "attributed graphs", "images": "images"}
Judge = Callable[[NDArray[np.int64], Arrays], dict[str, float]]


@runtime_checkable
class Kind(Protocol):
    """A module of this package that knows one kind of data."""

    def load(self, launch: LaunchSettings, settings: MethodSettings) -> tuple[Data, NDArray[np.int64] | None, Any]:
        """The data a method may see, the labels of its rows, and what else only judges may see."""

    def describe(self, data: Any) -> str:
        """Its sizes in words, for the plan."""

    def sweep(self, data: Any) -> dict[str, Any]:
        """The choice of K without labels (`--n-clusters auto`)."""

    def judge(self, job: Job) -> Judge:
        """Scores an assignment, and embeddings where there are any, without labels."""

    def features(self, data: Any) -> NDArray[Any]:
        """The input [N F] of the rows, for figures: float32, or pixels as bytes."""

    def baselines(self, job: Job) -> Iterator[tuple[str, dict[str, float]]]:
        """Name and label-free indices with scores of every baseline, one a seed."""

    def explain(self, job: Job, clusters: NDArray[np.int64]) -> list[dict[str, Any]] | None:
        """Which features set each cluster apart; None where there are none."""

    def serve(self, job: Job) -> AbstractContextManager[Any]:
        """The data as workers get it, while it is served."""

    def finish(self, job: Job, folder: Path, folders: Mapping[int, Path], chosen: int) -> dict[str, Any]:
        """Write what is this kind's own; returns what `result.json` says of it."""


def kind_of(method: ModuleType) -> Kind:
    """The kind of data that a method takes."""
    from ops.datamodules import graph, images, users

    kinds: dict[str, Any] = {"graph": graph, "images": images, "users": users}
    kind: Kind = kinds[getattr(method, "KIND", "graph")]
    return kind


def only(kind: str, method: ModuleType, flag: str) -> None:
    """Raise SettingsError where `flag` is for methods of one kind of data and this is none."""
    if getattr(method, "KIND", "graph") != kind:
        raise SettingsError(f"{flag}: is for {WORDS[kind]}; {method.NAME} does not take it")
