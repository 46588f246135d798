"""A finished run as a starting point: its model, the nodes it was trained on, and their clusters."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.config.settings import LaunchSettings
from ops.data.load import load
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError
from ops.results.model_store import StoredModel, read_model
from ops.results.schema import is_study, read_result
from ops.storage.run_address import local_folder


@dataclass(frozen=True)
class DatasetSpec:
    """Where training data came from, enough to load it again."""

    spec: str | None
    knn: int = 0
    knn_metric: str = "euclidean"


@dataclass
class TrainingRows:
    """The N nodes of a training: `ids` [N] (None: called by their row numbers), `clusters` int64 [N] where stored."""

    n: int
    ids: NDArray[Any] | None
    clusters: NDArray[np.int64] | None
    digest: str | None
    source: DatasetSpec
    owner: str  # the run or model, for messages

    @cached_property
    def graph(self) -> AttributedGraph:
        """Features and edges, loaded again. Raises DataError where they are gone or no longer the same."""
        if self.source.spec is None:
            raise DataError(f"{self.owner}: does not say where its training data is; give --known DATASET")
        try:
            graph, _ = load(self.source.spec, knn=self.source.knn, knn_metric=self.source.knn_metric)
        except (DataError, SettingsError) as error:
            raise DataError(f"the training data of {self.owner}: {error}; or give --known DATASET") from None
        if self.digest is not None and graph.digest() != self.digest:
            raise DataError(
                f"{self.source.spec}: is not the data that {self.owner} was trained on (hash {graph.digest()[:8]} "
                f"there, {self.digest[:8]} in training); give that data by --known DATASET, or the whole grown graph"
            )
        return graph

    def with_graph(self, source: DatasetSpec) -> TrainingRows:
        """The same nodes, their data read from elsewhere (`--known`)."""
        return TrainingRows(self.n, self.ids, self.clusters, self.digest, source, self.owner)


def record(launch: LaunchSettings) -> dict[str, Any]:
    """What `result.json` keeps of where the data is, for `DatasetSpec`: paths made absolute."""
    path = os.path.expanduser(launch.dataset)
    spec = os.path.abspath(path) if os.path.exists(path) else launch.dataset
    return {"spec": spec, "knn": launch.knn, "knn_metric": launch.knn_metric}


def settings_of_run(address: str) -> dict[str, Any]:
    """The settings of a finished run by name, which a warm start goes on from. Raises DataError for anything else."""
    return {key: each["value"] for key, each in read_result(local_folder(address))["settings"].items()}


def open_run(address: str) -> tuple[StoredModel, TrainingRows]:
    """The model of a finished run (of the best one of a study) and its nodes. Raises DataError for anything else."""
    run = local_folder(address)
    result = read_result(run)
    folder = run / "best" if is_study(run) and not (run / "result.json").is_file() else run
    data = result["dataset"]
    source = DatasetSpec(data.get("spec"), int(data.get("knn", 0)), data.get("knn_metric", "euclidean"))
    ids, clusters = _assignments(folder / "assignments.parquet", int(result.get("model_seed", result["seeds"][0])))
    return read_model(folder / "model"), TrainingRows(len(clusters), ids, clusters, data.get("hash"), source, address)


def _assignments(path: Path, seed: int) -> tuple[NDArray[Any] | None, NDArray[np.int64]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["seed", "id", "cluster"], filters=[("seed", "==", seed)])
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise DataError(f"{path}: cannot be read ({reason}); run it again with --fresh") from None
    if not table.num_rows:
        raise DataError(f"{path}: has no rows of seed {seed}, the model's; run it again with --fresh")
    ids = table["id"].to_numpy()
    ids = ids.astype(np.str_) if ids.dtype.kind == "O" else ids
    plain = ids.dtype.kind in "iu" and np.array_equal(ids, np.arange(len(ids)))
    return None if plain else ids, table["cluster"].to_numpy().astype(np.int64)
