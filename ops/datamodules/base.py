"""What a run does differently for one kind of data; each kind has a module of its own beside this one."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Generic, TypedDict

import numpy as np
from numpy.typing import NDArray

from ops.api import D, Experiment, Judge, Result, Run, S, Sweep
from ops.atomic_io import Arrays
from ops.config.settings import LaunchSettings
from ops.distributed.process_group import ProcessGroup
from ops.distributed.ray_session import in_object_store
from ops.distributed.resources import Workers
from ops.errors import SettingsError
from ops.evaluation.explain import ExplainedCluster
from ops.graph.partition.executors import RunTasks
from ops.results.schema import RecallTable, Scores
from ops.results.seed_rows import SeedRows

Integers = NDArray[np.int64]
Baseline = tuple[str, Integers, Arrays]  # its name, clusters and embeddings
Explained = list[ExplainedCluster] | None
ALL = slice(None)


def unit_rows(z: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows [n, D] at unit length, those of zeros as they are."""
    unit: NDArray[np.float32] = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return unit


class Extras(TypedDict, total=False):
    """The fields of a `RunResult` that only some kinds of data have."""

    embeddings: str
    recall: RecallTable
    links: Scores | None
    map: Scores


class DataModule(Generic[S, D]):
    """What a run does differently for one kind of data: how it is loaded, judged, described, served and finished."""

    def load(self, launch: LaunchSettings, settings: S) -> tuple[D, Integers | None, object]:
        """The data that a method may see, the labels of its rows (or None), and what else only judges may see.

        What only judges may see has the labels where it has `labels`. Over workers another process calls it.
        """
        raise NotImplementedError

    def describe(self, data: D) -> str:
        """Its sizes in words, for the plan."""
        raise NotImplementedError

    def describe_labels(self, labels: Integers | None, hidden: Any) -> list[str]:
        """What the plan says of the labels [N] and of what else only judges may see; the method never sees it."""
        return []

    def choose_k(self, data: D) -> Sweep:
        """The choice of K without labels (`--n-clusters auto`); SettingsError where this kind of data has none."""
        raise SettingsError(f"--n-clusters auto: is for attributed graphs; give --n-clusters K for {data.name}")

    def offsets(self, data: D, array: str = "") -> Integers | None:
        """The first row of each part of the rows [P + 1] of which part p belongs to rank p % W; None: rank 0 has all.

        `array`: of that name in a `Result`, whose rows may be others. Data in parts gives the `part_ids` of its rows.
        """
        return None

    def judge(self, experiment: Experiment[S, D], group: ProcessGroup) -> Judge:
        """A function that scores an assignment, and embeddings where there are any, without labels.

        With `offsets` all ranks of the `group` make one and call it, each with its own rows; rank 0's scores count.
        """
        raise NotImplementedError

    def features(self, data: D, rows: Integers | slice = ALL) -> NDArray[np.number]:
        """The input [N, F] of the rows (or of some of them), for figures: float32, or pixels as bytes."""
        raise NotImplementedError

    def baselines(self, experiment: Experiment[S, D], group: ProcessGroup) -> Iterator[Baseline]:
        """Name, assignment int64 [N] and embeddings of every baseline, one a seed; with `offsets` of a rank's rows."""
        raise NotImplementedError

    def explain(self, experiment: Experiment[S, D], clusters: Integers, rows: Integers | slice = ALL) -> Explained:
        """Which features set each cluster of these rows apart; None where features explain nothing."""
        return None

    def for_nodes(self, data: D, launch: LaunchSettings) -> D:
        """The data as all nodes of the running cluster can read them; by default by Ray's object store.

        Arrays in files travel as the files' names; nodes write those that they do not have of what is in the store.
        """
        return in_object_store(data)

    def serve(self, experiment: Experiment[S, D], workers: Workers | None) -> AbstractContextManager[D]:
        """The data as a method gets it, while it is served; by default nothing serves it."""
        cluster = workers is not None and workers.cluster
        return nullcontext(self.for_nodes(experiment.data, experiment.launch) if cluster else experiment.data)

    def finish_seed(self, experiment: Experiment[S, D], run: Run, folder: Path, result: Result) -> None:
        """Write what `finish` needs of a seed to its `folder`; with `offsets` all ranks call it with their rows."""

    def finish(self, experiment: Experiment[S, D], rows: SeedRows, seed: int, run: RunTasks) -> Extras:
        """Write what only this kind of data leaves in a run's folder, embeddings of the model's `seed`, by tasks that
        `run` does; returns what `result.json` says of it."""
        return {}
