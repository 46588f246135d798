"""What a finished run on users leaves besides clusters: recall table, link scores, embeddings as Parquet.

Every row is a mean over seeds, from the embeddings of each seed's last epoch and the hidden test pairs: the ranks that
own the users score a seed when it ends (`score_seed`), the run brings its seeds together (`finish`).
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.atomic_io import Arrays, save_arrays
from ops.clustering.owners import Owners
from ops.data.types.hetero import Ids
from ops.datamodules.base import Extras, unit_rows
from ops.datamodules.user_rows import UserRows, user_rows
from ops.distributed.process_group import ProcessGroup
from ops.evaluation import link_prediction, recall, recommenders
from ops.evaluation.boost import boosted
from ops.graph.partition.executors import RunTasks
from ops.results.arrays import ASSIGNMENTS, MORE, read_arrays, read_map, seed_arrays
from ops.results.schema import RecallLine, RecallTable, Scores, StoredJson
from ops.results.seed_rows import SeedRows
from ops.results.statistics import over_seeds, paired, spread
from ops.rng import generator

EMBEDDINGS, SCORED = "embeddings", "scored.json"  # the latter: a seed's SeedScores
RECALLS = "recalls.npz"  # beside it `rows` and `fixed` [rows Q]: recall@50 of every user that was asked
BOOST_QUERIES = 2000  # validation users by whom the boost is chosen: each is searched among all users
PAIRS = 20_000  # hidden test pairs whose links are scored: a keyed sample of more
Numbers = dict[str, float | None]
Rows = list[tuple["SeedRow", NDArray[np.float64]]]  # with recall@50 of every user that was asked [Q]


class SeedRow(StoredJson):
    """A seed's line of the recall table."""

    name: str
    note: str
    metrics: Numbers


class SeedScores(StoredJson):
    """What test pairs say of a seed: its rows, those that no seed changes (of the run's first), links, counts."""

    rows: list[SeedRow]
    fixed: list[SeedRow]
    links: Numbers
    queries: int
    users: int
    left_out: int


def score_seed(
    experiment: AnyExperiment, group: ProcessGroup, seed: int, arrays: Arrays, folder: Path, *, fixed: bool
) -> None:
    """Score a seed by the `arrays` of the rows that this rank owns; all ranks of `group` call it, the first writes."""
    users = user_rows(experiment.data, experiment.hidden, group)
    task, check = _tasks(users)
    rows = _rows_of(experiment, task, check, seed, arrays)
    alike = [recall.popularity(task), recall.user_knn(task)] if fixed else []
    scores = SeedScores(
        rows=[_row(row)[0] for row in rows],
        fixed=[_row(row)[0] for row in alike],
        links=dict(_links(experiment, users, arrays)),
        queries=len(task.queries), users=task.users, left_out=task.left_out,
    )  # fmt: skip
    if group.rank == 0:
        recalls = [np.array([row.recalls for row in table]) for table in (rows, alike)]
        save_arrays(folder / RECALLS, rows=recalls[0], fixed=recalls[1])
        scores.write(folder / SCORED)


def _scored(experiment: AnyExperiment, seed: int, folder: Path, *, fixed: bool) -> tuple[SeedScores, Rows, Rows]:
    """What was written of a seed, with its rows and the fixed ones; scored now if it was a search's trial."""
    stored = SeedScores.read_optional(folder / SCORED)
    if stored is None or not (folder / RECALLS).is_file() or (fixed and not stored.fixed):
        score_seed(experiment, ProcessGroup(), seed, seed_arrays(folder), folder, fixed=fixed)
        stored = SeedScores.read(folder / SCORED)
    each = read_arrays(folder / RECALLS)
    rows, alike = (list(zip(a, each[n], strict=True)) for n, a in (("rows", stored.rows), ("fixed", stored.fixed)))
    return stored, rows, alike


def finish(experiment: AnyExperiment, seed_rows: SeedRows, chosen: int, run: RunTasks) -> Extras:
    """Write embeddings.parquet of seed `chosen`; returns what `result.json` says of recall, links and the map."""
    data, folders = experiment.data, {seed: seed_rows.seed(seed) for seed in seed_rows.seeds}
    for _ in run(EMBEDDINGS, seed_rows.tasks(write_embeddings, chosen, data.ids if seed_rows.parts == 1 else None)):
        pass
    contents: Extras = {"embeddings": seed_rows.table(EMBEDDINGS)}
    if all(maps := [read_map(seed_folder) for seed_folder in folders.values()]):
        quantisation, topographic = zip(*(each["map_errors"].tolist() for each in maps), strict=True)
        contents["map"] = Scores.model_validate(
            {"quantisation": spread(quantisation), "topographic": spread(topographic)}
        )
    if experiment.hidden is None:
        return contents
    scored = [_scored(experiment, seed, each, fixed=i == 0) for i, (seed, each) in enumerate(folders.items())]
    (counts, _, fixed), of_seeds = scored[0], [rows for _, rows, _ in scored]
    if recommenders.applies(data.count(data.others)):  # by one process
        task, check = _tasks(user_rows(data, experiment.hidden, ProcessGroup()))
        quick, with_users = recommenders.rows(task, check)
        fixed = fixed + [_row(row) for row in quick]
        for rows, seed_folder in zip(of_seeds, folders.values(), strict=True):
            seed_rows.bring(f"{seed_folder.name}/{Path(ASSIGNMENTS).stem}")
            clusters = read_arrays(seed_folder / ASSIGNMENTS, "last")["last"]
            whose = f"{experiment.method.name}'s"
            rows += [_row(recommenders.inside(task, model, clusters, whose)) for model in with_users]
    ours = np.stack([rows[0][1] for rows in of_seeds])
    lines = [_line([row], ours) for row in fixed] + [_line(list(rows), ours) for rows in zip(*of_seeds, strict=True)]
    contents["recall"] = RecallTable(rows=lines, queries=counts.queries, users=counts.users, left_out=counts.left_out)
    contents["links"] = over_seeds([each.links for each, _, _ in scored])
    return contents


def _tasks(users: UserRows) -> tuple[recall.Task, recall.Task]:
    """The test pairs, and the validation pairs by which the boost is chosen."""
    task = recall.make_task(users.train, users.test, owners=users.owners)
    return task, recall.make_task(users.train, users.valid, max_queries=BOOST_QUERIES, owners=users.owners)


def write_embeddings(rows: SeedRows, part: int, seed: int, ids: Ids | None = None) -> None:
    """A part of the table: one row a user: id (the user's own), vector float32 [D], cluster, confidence.

    `ids`: of rows in one part.
    """
    import pyarrow as pa

    last, z = rows.read(seed, part), np.ascontiguousarray(rows.read(seed, part, MORE)["embedding"], np.float32)
    rows.write(EMBEDDINGS, part, {
        "id": last["id"] if ids is None else ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), z.shape[1]),
        "cluster": last["last"],
        "confidence": last["confidence"],
    })  # fmt: skip


def _rows_of(
    experiment: AnyExperiment, task: recall.Task, check: recall.Task, seed: int, arrays: Arrays
) -> list[recall.RecallRow]:
    """A seed's rows: in its clusters, in random ones of equal size, among all, boosted."""
    name, z, clusters = experiment.method.name, arrays["embedding"], arrays["last"]
    means = {"kmeans": "k-means", "som": "SOM"}[experiment.settings.cluster]
    return [
        recall.u2u2i(task, z, clusters, f"{name} + {means}"),
        recall.random_clusters(task, z, experiment.k, f"{name}, random clusters", seed),
        *boosted(task, check, lambda t: recall.near(t, z, None), clusters, f"{name}, all users"),
    ]


def _row(row: recall.RecallRow) -> tuple[SeedRow, NDArray[np.float64]]:
    return SeedRow(name=row.name, note=row.note, metrics=dict(row.metrics)), row.recalls


def _line(rows: Rows, ours: NDArray[np.float64]) -> RecallLine:
    """The line of a row of each seed, against recall@50 of the method's clusters [seeds Q]."""
    notes = dict.fromkeys(row.note for row, _ in rows if row.note)
    metrics = over_seeds([row.metrics for row, _ in rows]) or Scores()
    gain = paired(np.stack([recalls for _, recalls in rows]), ours)
    return RecallLine(name=rows[0][0].name, note="; ".join(notes), metrics=metrics, gain=gain)


def _links(experiment: AnyExperiment, users: UserRows, arrays: Arrays) -> dict[str, float]:
    """Hidden test pairs (a keyed sample of many) against drawn ones, scored by the cosine of their ends, or by
    (s + shift) . t."""
    z, others, data = arrays["embedding"], arrays["others"], experiment.data
    z, others = (z + arrays["shift"], others) if "shift" in arrays else (unit_rows(z), unit_rows(others))
    notes = Owners(np.asarray(data.manifest.nodes[data.others].offsets), users.owners.group)
    pairs = experiment.hidden.test
    if pairs.shape[1] > PAIRS:
        pairs = pairs[:, np.sort(generator(0, "link-pairs").choice(pairs.shape[1], PAIRS, replace=False))]
    interactions = users.train.copy()
    for hidden in (users.valid, users.test):
        interactions = interactions + type(interactions)((np.ones(len(hidden[0])), hidden), shape=interactions.shape)
    interactions.sort_indices()

    def score(u: NDArray[np.int64], n: NDArray[np.int64]) -> NDArray[np.floating]:
        asked, place = np.unique(n, return_inverse=True)
        return np.asarray(np.einsum("md,md->m", z[u], notes.fetch(others, asked)[place]))

    return link_prediction.link_scores((pairs[0], pairs[1]), interactions, score, owners=users.owners)
