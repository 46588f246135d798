"""A finished run as a starting point: its model, the nodes it was trained on, and their clusters."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.data.load import load, prepared
from ops.data.types.graph import AttributedGraph
from ops.data.types.hetero import Ids
from ops.errors import DataError, SettingsError
from ops.results.arrays import table_path
from ops.results.model_store import StoredModel, read_model
from ops.results.schema import DataRecord
from ops.results.stored_run import is_search, read_result
from ops.storage.run_copy import local_folder


@dataclass(frozen=True)
class TrainedNodes:
    """The n nodes of a training: `ids` [n] (None: called by their row numbers), `clusters` int64 [n] where stored."""

    n: int
    ids: Ids | None
    clusters: NDArray[np.int64] | None
    digest: str | None
    source: DataRecord
    owner: str  # the run or model, for messages

    @cached_property
    def graph(self) -> AttributedGraph:
        """Features and edges, loaded again. Raises DataError where they are gone or no longer the same."""
        source = self.source
        if source.spec is None:
            raise DataError(f"{self.owner}: does not say where its training data is; give --known DATASET")
        try:
            graph, _ = load(source.spec, **prepared(source))
        except (DataError, SettingsError) as error:
            raise DataError(f"the training data of {self.owner}: {error}; or give --known DATASET") from None
        if self.digest is not None and graph.digest() != self.digest:
            raise DataError(
                f"{source.spec}: is not the data that {self.owner} was trained on (its hash is {graph.digest()[:8]}, "
                f"in training it was {self.digest[:8]}); give that data by --known DATASET, or the whole grown graph"
            )
        return graph


def location(dataset: str) -> str:
    """What `result.json` keeps of where the data is: paths made absolute."""
    path = os.path.expanduser(dataset)
    return os.path.abspath(path) if os.path.exists(path) else dataset


def settings_of_run(address: str) -> dict[str, object]:
    """The settings of a finished run by name, which a warm start goes on from. Raises DataError for anything else."""
    return {key: setting.value for key, setting in read_result(local_folder(address)).settings.items()}


def open_finished(address: str) -> tuple[StoredModel, TrainedNodes]:
    """The model of a finished run (of the best one of a search) and its nodes. Raises DataError for anything else."""
    folder = local_folder(address)
    result = read_result(folder)
    if is_search(folder) and not (folder / "result.json").is_file():
        folder = folder / "best"
    seed = result.seeds[0] if result.model_seed is None else result.model_seed
    ids, clusters = _assignments(table_path(folder, "assignments"), seed)
    if result.dataset.rows not in (None, len(clusters)):
        raise DataError(f"{table_path(folder, 'assignments')}: has {len(clusters):,} of the {result.dataset.rows:,} "
                        "rows of the training, a part of it is missing; run it again with --fresh")  # fmt: skip
    nodes = TrainedNodes(len(clusters), ids, clusters, result.dataset.hash, result.dataset, address)
    return read_model(folder / "model"), nodes


def _assignments(path: Path, seed: int) -> tuple[Ids | None, NDArray[np.int64]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["seed", "id", "cluster"], filters=[("seed", "==", seed)])
        clusters = table["cluster"].cast(pa.int64()).to_numpy()
        if table["id"].null_count or clusters.dtype.kind != "i" or (clusters < 0).any():
            raise KeyError("ids or clusters are missing, or clusters are no numbers from 0")
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise DataError(f"{path}: cannot be read ({reason}); run it again with --fresh") from None
    if not table.num_rows:
        raise DataError(f"{path}: has no rows of seed {seed}, the model's; run it again with --fresh")
    ids = table["id"].to_numpy()
    ids = ids.astype(np.str_) if ids.dtype.kind == "O" else ids
    is_row_number = ids.dtype.kind in "iu" and np.array_equal(ids, np.arange(len(ids)))
    return None if is_row_number else ids, clusters
