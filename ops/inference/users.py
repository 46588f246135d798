"""Clusters for users by a trained model of a heterogeneous graph, known users or new ones, from their edges.

The model holds what it needs of the nodes it knows (`--store-states`), so neither the graph nor its service is asked.
Kind-specific part of `ops.inference.predict`. Axes: n users, D width of their vectors.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.data.io.inductive_batch import Placed, unpack_ids
from ops.data.types.hetero import relation_of
from ops.data.user_requests import Arrived, Vocabulary, read_new
from ops.errors import DataError
from ops.inference.summary import refuse_graph_flags, summary
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel
from ops.storage.parquet import write_pieces

COLUMNS = "id, cluster, confidence, vector"


@dataclass
class Tally:
    """What is counted while pieces are placed: clusters so far, users without a usable edge, without anything."""

    clusters: list[NDArray[np.int64]] = field(default_factory=list)
    bare: int = 0
    untold: int = 0
    edges: int = 0

    def add(self, found: Placed) -> None:
        """One piece more."""
        self.clusters.append(found.cluster)
        self.bare += int((found.edges == 0).sum())
        self.untold += int((~found.told).sum())
        self.edges += int(found.edges.sum())

    def of_bare(self) -> str:
        """What became of users without an edge."""
        told = self.bare - self.untold
        words = [f"{told:,} placed by features alone"] if told else []
        words += [f"nothing tells where {self.untold:,} belong, their confidence is 0"] if self.untold else []
        return "; ".join(words)


def vocabulary(model: StoredModel, method: AnyMethod, owner: str) -> Vocabulary:
    """What the model knows. Raises DataError where it does not keep what users are placed by."""
    graph = model.about.get("graph")
    ids = {k.removeprefix("ids."): unpack_ids(v.numpy()) for k, v in model.tensors.items() if k.startswith("ids.")}
    if graph is None or not ids:
        raise DataError(
            f"{owner}: the model keeps nothing of known nodes that users could be placed by (it was trained with "
            "--no-store-states, or by an earlier version); train it again without that flag"
        )
    relations = tuple(relation_of(name) for name in graph["relations"])
    features = int(model.about.get("n_features") or 0) if method.places_by_features else 0
    return Vocabulary(owner, graph["rows"], graph["others"], relations, ids, features)


def predict_users(
    run: str,
    model: StoredModel,
    known: TrainedNodes | None,
    request: PredictSettings,
    method: AnyMethod,
    console: Console,
) -> dict[str, Any]:
    """Write id, cluster, confidence and vector of every user of `request.data`; returns a summary.

    Raises SettingsError for flags of attributed graphs, DataError before anything is written.
    """
    refuse_graph_flags(request, method)
    began = time.monotonic()
    words = vocabulary(model, method, run)
    new = read_new(request.data, words)
    numbers, kind = new.rows.numbers, words.rows
    n, n_known = len(numbers), int((numbers >= 0).sum())
    console.say(f"{n:,} {kind}s: {n_known:,} known to {run}, {n - n_known:,} new")
    for note in new.notes:
        console.say(note)
    if n_known:
        console.say(f"known {kind}s are matched by id and placed by what is given here, not by their edges in training")
    if n_known < n:
        console.say(f"new {kind}s: {method.new_rows}")
    tally = Tally()
    write_pieces(request.out, pieces(new, model, method, request.batch_rows, tally))
    clusters = np.concatenate(tally.clusters)
    if tally.bare:
        console.say(f"{tally.bare:,} {kind}s have no edge that counts: {tally.of_bare()}")
    found = summary(run, model, request, numbers, clusters, known, f"{kind}s", console, began)
    return found | {"edges": tally.edges, "without_edges": tally.bare, "untold": tally.untold, "columns": COLUMNS}


def pieces(new: Arrived, model: StoredModel, method: AnyMethod, rows: int, tally: Tally) -> Iterator[dict[str, Any]]:
    """The columns of the output for `rows` users at a time."""
    import pyarrow as pa

    for first in range(0, len(new.ids), rows):
        last = min(first + rows, len(new.ids))
        found: Placed = method.predict(model.tensors, model.settings, new.rows.take(first, last))
        tally.add(found)
        vectors = np.ascontiguousarray(found.vector, np.float32)
        yield {
            "id": new.ids[first:last],
            "cluster": found.cluster,
            "confidence": found.confidence,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        }
