"""Users that a trained model of a heterogeneous graph places in clusters, known or new ones, by their edges.

The model holds what it needs of the nodes it knows (`--store-states`), so neither the graph nor its service is asked.
Axes: n users, D width of their vectors.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ops.api import AnyMethod
from ops.data.io.inductive_batch import Placed, unpack_ids
from ops.data.types.hetero import relation_of
from ops.data.user_requests import Arrived, Vocabulary, read_new
from ops.errors import DataError
from ops.inference.placement import Outcome, PlacedColumns, Placement, Prediction
from ops.results.feature_scale import ColumnStatistics, statistics_of
from ops.results.model_store import StoredModel

COLUMNS = "id, cluster, confidence, vector"


def vocabulary(model: StoredModel, method: AnyMethod, owner: str) -> Vocabulary:
    """What the model knows. Raises DataError where it does not keep what users are placed by."""
    graph = model.about.graph
    packed = {k.removeprefix("ids."): v for k, v in model.tensors.items() if k.startswith("ids.")}
    ids = {kind: unpack_ids(v.cpu().numpy()) for kind, v in packed.items()}
    if graph is None or not ids:
        raise DataError(
            f"{owner}: the model keeps nothing of known nodes that users could be placed by (it was trained with "
            "--no-store-states, or by an earlier version); train it again without that flag"
        )
    relations = tuple(relation_of(name) for name in graph.relations)
    features = (model.about.n_features or 0) if method.places_by_features else 0
    return Vocabulary(owner, graph.rows, graph.others, relations, ids, features)


def place_users(prediction: Prediction) -> Placement:
    """The users of `request.data`. Raises SettingsError for flags of attributed graphs, DataError."""
    prediction.refuse_graph_flags()
    words = vocabulary(prediction.model, prediction.method, prediction.run)
    users = read_new(prediction.request.data, words)
    rows, noun = users.rows.numbers, f"{words.rows}s"
    n, n_matched = len(rows), int((rows >= 0).sum())
    remarks = [f"{n:,} {noun}: {n_matched:,} known to {prediction.run}, {n - n_matched:,} new", *users.notes]
    if n_matched:
        remarks.append(
            f"known {noun} are matched by id and placed by what is given here, not by their edges in training"
        )
    remarks += [f"new {noun}: {prediction.method.new_rows}"] if n_matched < n else []
    placed: list[Placed] = []
    pieces = _by_pieces(users, prediction, placed)
    features = ColumnStatistics() if users.rows.x is None else statistics_of(users.rows.x)
    return Placement(users.ids, rows, noun, remarks, pieces, lambda: _outcome(placed, noun), features)


def _by_pieces(users: Arrived, prediction: Prediction, placed: list[Placed]) -> Iterator[PlacedColumns]:
    """The columns for `batch_rows` users at a time; all that is placed is kept in `placed`, but for the vectors."""
    import pyarrow as pa

    rows, model = prediction.request.batch_rows, prediction.model
    for first in range(0, len(users.ids), rows):
        piece = users.rows.take(first, min(first + rows, len(users.ids)))
        result: Placed = prediction.method.predict(model.tensors, model.settings, piece)
        vectors = np.ascontiguousarray(result.vector, np.float32)
        placed.append(replace(result, vector=vectors[:0]))
        columns = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        yield {"cluster": result.cluster, "confidence": result.confidence, "vector": columns}


def _outcome(placed: list[Placed], noun: str) -> Outcome:
    """How many edges counted, and what became of users without one."""
    edges = np.concatenate([piece.edges for piece in placed])
    bare = int((edges == 0).sum())
    unplaced = sum(int((~piece.evidence).sum()) for piece in placed)
    words = [f"{bare - unplaced:,} placed by features alone"] if bare > unplaced else []
    words += [f"nothing tells where {unplaced:,} belong, their confidence is 0"] if unplaced else []
    sentences = [f"{bare:,} {noun} have no edge that counts: {'; '.join(words)}"] if bare else []
    return sentences, {"edges": int(edges.sum()), "without_edges": bare, "untold": unplaced, "columns": COLUMNS}
