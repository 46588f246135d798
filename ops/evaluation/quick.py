"""The quick linear methods over feature treatments and filter orders, and the choice among them without labels.

Axes: N nodes, C candidates.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ops.clustering.linear import KINDS, Kind, LinearMethod, fit
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import ProcessGroup
from ops.evaluation.model_selection import panel
from ops.evaluation.unlabelled import FIXED_ORDER, GraphJudge
from ops.graph.features import Treatment, table_of
from ops.graph.filters import smoothing_of

ORDERS = (2, 5, 10, 20)
SPACE_COLUMNS = 50  # columns of the space in which candidates are judged
DEGREE = LinearMethod("degree", 0, "raw")


@dataclass(frozen=True)
class Candidate:
    """A method, its clusters [N] by seed, its label-free indices, and its CPU seconds a seed."""

    method: LinearMethod
    clusters: dict[int, NDArray[np.int64]]
    indices: dict[str, float]
    cpu_seconds: float

    @property
    def name(self) -> str:
        """Kind, feature treatment and order, e.g. `m-s2cag, tfidf, T = 10`."""
        if self.method == DEGREE:
            return "k-means on log(degree)"
        return f"{self.method.kind}, {self.method.features}, T = {self.method.order}"

    def setting(self) -> tuple[str, dict[str, object]]:
        """The name of this method in `trainers`, and its settings there."""
        if self.method == DEGREE:
            return "degree", {}
        kind = self.method.kind
        values: dict[str, object] = {"order": self.method.order, "features": self.method.features}
        return ("s2cag", {"variant": kind, **values}) if "s2cag" in kind else (kind, values)


def methods(
    data: AttributedGraph, kinds: Sequence[Kind] = KINDS, treatments: Sequence[Treatment] = ("tfidf", "l2"),
    orders: Sequence[int] = ORDERS,
) -> list[LinearMethod]:  # fmt: skip
    """Every kind with every treatment and order; `s2cag` only where no feature is negative."""
    negative = bool(data.x.size) and float(data.x.min()) < 0
    return [
        LinearMethod(kind, order, treatment) for kind in kinds for treatment in treatments for order in orders
        if not (kind == "s2cag" and (negative or treatment == "standard"))
    ]  # fmt: skip


@dataclass
class QuickClusterings:
    """Clusterings of one graph by linear methods, judged in one space that is the same for all of them.

    The space: TF-IDF (`standard` where a feature is negative) filtered with t = 2, and of that the 50 leading singular
    vectors. With `judged=False` nothing is judged, and the space is not computed.
    """

    data: AttributedGraph
    n_clusters: int
    judged: bool = True

    def __post_init__(self) -> None:
        data, cpu = self.data, torch.device("cpu")
        self._smoothing = smoothing_of(data.edge_index, data.n_nodes, ProcessGroup(), cpu, data.weight)
        self._table = table_of(data.x)
        if not self.judged:
            return
        self._judge = GraphJudge(self.data, self.n_clusters, self.space())

    def space(self) -> NDArray[np.float32]:
        """The rows [N, 50] that candidates are judged by."""
        treatment: Treatment = "standard" if self.data.x.size and self.data.x.min() < 0 else "tfidf"
        fixed = LinearMethod("ssgc", FIXED_ORDER, treatment, alpha=0.0, components=SPACE_COLUMNS, starts=1)
        return np.ascontiguousarray(fit(fixed, self._table, self._smoothing, 1, (0, 0)).embedding.numpy())

    def cluster(self, method: LinearMethod, seed: int) -> NDArray[np.int64]:
        """Clusters [N] by a method with one seed."""
        labels: NDArray[np.int64] = fit(method, self._table, self._smoothing, self.n_clusters, (seed, 0)).labels.numpy()
        return labels

    def candidate(self, method: LinearMethod, seed: int = 0) -> Candidate:
        """The clusters of a method with one seed, and their indices."""
        began = time.process_time()
        clusters = self.cluster(method, seed)
        return Candidate(method, {seed: clusters}, self._judge(clusters), time.process_time() - began)

    def chosen(self, candidates: Sequence[Candidate]) -> tuple[Candidate, str]:
        """The candidate that the panel ranks first without labels, and how far the panel's indices agree."""
        verdict = panel([c.indices for c in candidates])
        return candidates[verdict.chosen], verdict.sentence()
