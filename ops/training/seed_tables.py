"""The clusters of all seeds as one table, how far the seeds agree by counts that parts add up to, what explains them.

Axes: n rows of a part, S seeds, K clusters.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.data.types.hetero import Ids
from ops.datamodules import datamodule_of
from ops.evaluation.labelled import adjusted_rand
from ops.graph.partition.executors import RunTasks
from ops.results.seed_rows import SeedRows
from ops.results.stored_run import Explanation
from ops.rng import generator

CONFIDENCE = {"last": "confidence", "consensus": "agreement"}  # of each result
TABLE = "assignments"
EXPLAINED = 1 << 20  # rows in parts, of more a sample


def write_assignments(
    rows: SeedRows, run: RunTasks, chosen: int, result: str, n_clusters: int, ids: Ids | None
) -> float | None:
    """`assignments.parquet`: seed, id (the user's own), cluster, confidence of the last epoch; returns the stability.

    That is the mean adjusted Rand index of two seeds, None for a single one. Rows in parts are files of a folder
    `assignments`; `ids` are those of rows in one part. With `consensus` as the result they are its clusters, and the
    confidence is their agreement. Clusters have the numbers of the `chosen` seed, the model's; those of
    other seeds take the number of the cluster there that they share most rows with. Raises as `SeedRows` does.
    """
    tables = reduce(np.add, run("agreement", rows.tasks(_count, chosen, result, n_clusters)))
    numbers = {seed: _numbers(table) for seed, table in zip(rows.seeds, tables, strict=False)}
    for _ in run(TABLE, rows.tasks(_write, result, numbers, ids)):
        pass
    agreements = [adjusted_rand(table) for table in tables[len(rows.seeds) :]]
    return float(np.mean(agreements)) if agreements else None


def _count(rows: SeedRows, part: int, chosen: int, result: str, k: int) -> NDArray[np.int64]:
    """Counts of each seed's clusters against the chosen one's, and of each pair of seeds: [S + S (S - 1) / 2, K, K]."""
    stored = {seed: rows.read(seed, part) for seed in rows.seeds}
    clusters = [each[result] for each in stored.values()]
    against = [_counts(each, stored[chosen]["last"], k) for each in clusters]
    return np.stack(against + [_counts(a, b, k) for i, a in enumerate(clusters) for b in clusters[:i]])


def _counts(a: NDArray[np.int64], b: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    return np.bincount(k * a + b, minlength=k * k).reshape(k, k)


def _numbers(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each cluster of a seed by its counts against the chosen one's: `numbered_as` of the rows."""
    from scipy.optimize import linear_sum_assignment

    k = int(np.flatnonzero(table.any(0) | table.any(1)).max()) + 1
    clusters, partners = linear_sum_assignment(-table[:k, :k])
    shared = table[clusters, partners] > 0
    numbers = np.full(k, -1, dtype=np.int64)
    numbers[clusters[shared]] = partners[shared]
    numbers[numbers < 0] = np.setdiff1d(np.arange(k), numbers)
    return numbers


def _write(rows: SeedRows, part: int, result: str, numbers: Mapping[int, NDArray[np.int64]], ids: Ids | None) -> None:
    """One part of the table."""
    stored = {seed: rows.read(seed, part) for seed in rows.seeds}
    ids = next(iter(stored.values()))["id"] if ids is None else ids
    rows.write(TABLE, part, {
        "seed": np.repeat(np.array(rows.seeds), len(ids)),
        "id": np.tile(ids, len(stored)),
        "cluster": np.concatenate([numbers[seed][each[result]] for seed, each in stored.items()]),
        "confidence": np.concatenate([each[CONFIDENCE[result]] for each in stored.values()]),
    })  # fmt: skip


def write_explanation(experiment: AnyExperiment, rows: SeedRows, seed: int, sizes: list[int]) -> None:
    """Write which features set the clusters of the model's seed apart, where the data has features that can.

    Of rows in parts at most EXPLAINED, drawn by a key, are looked at.
    """
    module, result = datamodule_of(experiment.method), experiment.launch.result
    if rows.parts == 1:
        explained = module.explain(experiment, rows.read(seed, 0)[result])
    else:
        offsets, total = module.offsets(experiment.data), experiment.data.n_rows
        assert offsets is not None, "only then rows lie in parts"
        numbers = np.sort(generator(0, "explained").choice(total, min(total, EXPLAINED), replace=False))
        ends = np.searchsorted(numbers, offsets)
        pieces = [
            rows.read(seed, part)[result][numbers[a:b] - offsets[part]] for part, (a, b) in enumerate(pairwise(ends))
        ]
        explained = module.explain(experiment, np.concatenate(pieces), numbers)
        explained = explained and [
            replace(each, rows=sizes[each.cluster], far=[replace(f, row=int(numbers[f.row])) for f in each.far])
            for each in explained
        ]
    if explained is not None:
        Explanation(seed=seed, clusters=explained).write(rows.folder / "explain.json")
