"""What a finished run on users leaves besides clusters: recall table, link scores, embeddings as Parquet.

Every row is a mean over seeds, from the stored embeddings of each seed's last epoch and the hidden test pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.atomic_io import replacing
from ops.evaluation import link_prediction, recall
from ops.results.arrays import seed_arrays
from ops.results.statistics import over_seeds, spread

EMBEDDINGS = "embeddings.parquet"
BOOST_QUERIES = 2000  # validation users by whom the boost is chosen: each is searched among all users
Row = dict[str, Any]


def finish(experiment: AnyExperiment, folder: Path, folders: Mapping[int, Path], chosen: int) -> dict[str, Any]:
    """Write embeddings.parquet of seed `chosen`; returns what `result.json` says of recall, links and the map."""
    each = {seed: seed_arrays(seed_folder) for seed, seed_folder in folders.items()}
    write_embeddings(folder / EMBEDDINGS, experiment.data.ids, each[chosen])
    contents: dict[str, Any] = {"embeddings": EMBEDDINGS}
    if "map_errors" in each[chosen]:
        quantisation, topographic = zip(*(e["map_errors"].tolist() for e in each.values()), strict=True)
        contents["map"] = {"quantisation": spread(quantisation), "topographic": spread(topographic)}
    hidden = experiment.hidden
    if hidden is None:
        return contents
    task = recall.make_task(hidden.train, (hidden.test[0], hidden.test[1]))
    check = recall.make_task(hidden.train, (hidden.valid[0], hidden.valid[1]), max_queries=BOOST_QUERIES)
    rows = [_fixed(recall.popularity(task)), _fixed(recall.user_knn(task))]
    rows += _over_seeds([_rows_of(experiment, task, check, seed, arrays) for seed, arrays in each.items()])
    counts = {"queries": len(task.queries), "users": task.users, "left_out": task.left_out}
    scored = [_links(hidden, arrays) for arrays in each.values()]
    return contents | {"recall": {"rows": rows, **counts}, "links": over_seeds(scored)}


def write_embeddings(path: Path, ids: NDArray[Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """One row a user: id (the user's own), vector float32 [D], cluster, confidence; whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    z = np.ascontiguousarray(arrays["embedding"], np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), z.shape[1])
    columns = {"id": ids, "vector": vectors, "cluster": arrays["last"], "confidence": arrays["confidence"]}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def _rows_of(
    experiment: AnyExperiment, task: recall.Task, check: recall.Task, seed: int, arrays: Mapping[str, Any]
) -> list[Any]:
    """A seed's rows: in its clusters, in random ones of equal size, among all, and boosted."""
    name, z, clusters = experiment.method.name, arrays["embedding"], arrays["last"]
    k = experiment.k
    means = {"kmeans": "k-means", "som": "SOM"}[experiment.settings.cluster]
    boosted = recall.boosted(task, check, lambda t: recall.near(t, z, None), clusters, f"{name}, all users")
    return [
        recall.u2u2i(task, z, clusters, f"{name} + {means}"),
        recall.random_clusters(task, z, k, f"{name}, random clusters", seed),
        *boosted.rows,
    ]


def _fixed(row: recall.RecallRow) -> Row:
    return {"name": row.name, "note": row.note, "metrics": {k: spread([v]) for k, v in row.metrics.items()}}


def _over_seeds(each: list[list[recall.RecallRow]]) -> list[Row]:
    lines = []
    for rows in zip(*each, strict=True):
        notes = dict.fromkeys(row.note for row in rows if row.note)
        metrics = over_seeds([row.metrics for row in rows])
        lines.append({"name": rows[0].name, "note": "; ".join(notes), "metrics": metrics})
    return lines


def _links(hidden: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Hidden test pairs against drawn ones, scored by the cosine of their ends, or by (s + shift) . t."""
    users, notes = arrays["embedding"], arrays["others"]
    users, notes = (users + arrays["shift"], notes) if "shift" in arrays else (_unit(users), _unit(notes))
    interactions = hidden.train.copy()
    for pairs in (hidden.valid, hidden.test):
        interactions = interactions + type(interactions)(
            (np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=interactions.shape
        )
    interactions.sort_indices()
    return link_prediction.link_scores(
        (hidden.test[0], hidden.test[1]), interactions, lambda u, n: np.einsum("md,md->m", users[u], notes[n])
    )


def _unit(z: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return unit
