"""What a finished run on users leaves besides clusters: recall table, link scores, embeddings as Parquet.

Every row is a mean over seeds, from the stored embeddings of each seed's last epoch and the hidden test pairs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.datamodules.user_rows import UserRows, user_rows
from ops.distributed.process_group import ProcessGroup
from ops.evaluation import link_prediction, recall, recommenders
from ops.evaluation.boost import boosted as boosted_rows
from ops.results.arrays import seed_arrays, write_table
from ops.results.statistics import over_seeds, spread

EMBEDDINGS = "embeddings.parquet"
BOOST_QUERIES = 2000  # validation users by whom the boost is chosen: each is searched among all users
Row = dict[str, Any]


def finish(experiment: AnyExperiment, folder: Path, folders: Mapping[int, Path], chosen: int) -> dict[str, Any]:
    """Write embeddings.parquet of seed `chosen`; returns what `result.json` says of recall, links and the map."""
    each = {seed: seed_arrays(seed_folder) for seed, seed_folder in folders.items()}
    data = experiment.data
    offsets = np.asarray(data.manifest.nodes[data.rows].offsets)
    table = write_embeddings(folder / EMBEDDINGS, data.ids, each[chosen], offsets)
    contents: dict[str, Any] = {"embeddings": table}
    if "map_errors" in each[chosen]:
        quantisation, topographic = zip(*(e["map_errors"].tolist() for e in each.values()), strict=True)
        contents["map"] = {"quantisation": spread(quantisation), "topographic": spread(topographic)}
    hidden = experiment.hidden
    if hidden is None:
        return contents
    users = user_rows(experiment.data, hidden, ProcessGroup())
    task = recall.make_task(users.train, users.test)
    check = recall.make_task(users.train, users.valid, max_queries=BOOST_QUERIES)
    small = recommenders.applies(task.train)
    plain = recommenders.rows(task, check) if small else []
    factors = recommenders.user_factors(task.train) if small else None
    rows = [_fixed(row) for row in (recall.popularity(task), recall.user_knn(task), *plain)]
    rows += _over_seeds([_rows_of(experiment, task, check, seed, arrays, factors) for seed, arrays in each.items()])
    counts = {"queries": len(task.queries), "users": task.users, "left_out": task.left_out}
    scored = [_links(users, arrays) for arrays in each.values()]
    return contents | {"recall": {"rows": rows, **counts}, "links": over_seeds(scored)}


def write_embeddings(
    path: Path, ids: NDArray[Any], arrays: Mapping[str, NDArray[Any]], offsets: NDArray[np.int64] | None = None
) -> str:
    """One row a user: id (the user's own), vector float32 [D], cluster, confidence; returns the name of the table."""
    import pyarrow as pa

    z = np.ascontiguousarray(arrays["embedding"], np.float32)

    def columns(rows: slice) -> dict[str, Any]:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(z[rows].ravel()), z.shape[1])
        last = {"cluster": arrays["last"][rows], "confidence": arrays["confidence"][rows]}
        return {"id": ids[rows], "vector": vectors, **last}

    return write_table(path, offsets, columns)


def _rows_of(
    experiment: AnyExperiment, task: recall.Task, check: recall.Task, seed: int, arrays: Mapping[str, Any],
    factors: NDArray[np.float32] | None,
) -> list[Any]:  # fmt: skip
    """A seed's rows: in its clusters, in random ones of equal size, among all, boosted; `factors` in its clusters."""
    name, z, clusters = experiment.method.name, arrays["embedding"], arrays["last"]
    k = experiment.k
    means = {"kmeans": "k-means", "som": "SOM"}[experiment.settings.cluster]
    boosted = boosted_rows(task, check, lambda t: recall.near(t, z, None), clusters, f"{name}, all users")
    rows = [
        recall.u2u2i(task, z, clusters, f"{name} + {means}"),
        recall.random_clusters(task, z, k, f"{name}, random clusters", seed),
        *boosted.rows,
    ]
    if factors is not None:
        rows.append(recall.u2u2i(task, factors, clusters, f"singular vectors of the interactions, {name}'s clusters"))
    return rows


def _fixed(row: recall.RecallRow) -> Row:
    return {"name": row.name, "note": row.note, "metrics": {k: spread([v]) for k, v in row.metrics.items()}}


def _over_seeds(each: list[list[recall.RecallRow]]) -> list[Row]:
    lines = []
    for rows in zip(*each, strict=True):
        notes = dict.fromkeys(row.note for row in rows if row.note)
        metrics = over_seeds([row.metrics for row in rows])
        lines.append({"name": rows[0].name, "note": "; ".join(notes), "metrics": metrics})
    return lines


def _links(users: UserRows, arrays: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Hidden test pairs against drawn ones, scored by the cosine of their ends, or by (s + shift) . t."""
    z, notes = arrays["embedding"], arrays["others"]
    z, notes = (z + arrays["shift"], notes) if "shift" in arrays else (_unit(z), _unit(notes))
    interactions = users.train.copy()
    for pairs in (users.valid, users.test):
        interactions = interactions + type(interactions)((np.ones(len(pairs[0])), pairs), shape=interactions.shape)
    interactions.sort_indices()
    return link_prediction.link_scores(users.test, interactions, lambda u, n: np.einsum("md,md->m", z[u], notes[n]))


def _unit(z: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return unit
