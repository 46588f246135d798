"""What a prediction is given, and what the three kinds of rows (graph rows, users, images) make of it.

Axes: n rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.settings import PredictSettings
from ops.results.feature_scale import ColumnStatistics
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel

Outcome = tuple[list[str], dict[str, object]]  # sentences and further values of the summary


@dataclass(frozen=True)
class Prediction:
    """A trained model of `run` (a folder, or a model in MLflow), the rows of its training if they can be known, and
    what is asked of it."""

    run: str
    model: StoredModel
    training: TrainedNodes | None
    request: PredictSettings
    method: AnyMethod

    def on(self, data: str) -> "Prediction":
        """The same for `data` elsewhere."""
        return replace(self, request=self.request.model_copy(update={"data": data}))

    def refuse_graph_flags(self) -> None:
        """Raise SettingsError where flags that are for attributed graphs are given for another kind."""
        for flag, value in (("--known", self.request.known), ("--knn", self.request.knn)):
            if value:
                self.method.require("graph", flag)


class PlacedColumns(TypedDict):
    """The columns of the output but the id, of some rows [m]; users have a `vector`, as Arrow's list of lists."""

    cluster: NDArray[np.int64]
    confidence: NDArray[np.float32]
    vector: NotRequired[object]


@dataclass(frozen=True)
class Placement:
    """Rows on their way to clusters.

    `ids` [n]: what they are called in the output; `training_rows` int64 [n]: the row each had in training, -1 for a new
    one; `noun`: what they are, in the plural; `remarks`: sentences before the work; `pieces`: some rows at a time.
    `outcome`, once all pieces are there: what is said then; `features` has by then the statistics of the rows'
    features, if they have any.
    """

    ids: NDArray[np.generic]
    training_rows: NDArray[np.int64]
    noun: str
    remarks: list[str]
    pieces: Iterator[PlacedColumns]
    outcome: Callable[[], Outcome] = field(default=lambda: ([], {}))
    features: ColumnStatistics = field(default_factory=ColumnStatistics)
