"""The clusters of a run one by one, as the report's cards tell them.

All numbers of clusters are those of the model's seed; clusters of other seeds are matched to them.

Axes: N rows.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ops.errors import DataError
from ops.evaluation.explain import FeatureDifference
from ops.results.arrays import table_path
from ops.results.stored_run import StoredRun

CARDS = 60  # the largest clusters; more would be a list, not a page
IDS, ODD = 5, 10  # of a card, of all rows


@dataclass(frozen=True)
class Assignments:
    """Ids [N], clusters int64 [N] and confidence float [N] of the model's seed; `others`: clusters of other seeds."""

    ids: NDArray[np.generic]
    clusters: NDArray[np.int64]
    confidence: NDArray[np.floating]
    others: list[NDArray[np.int64]]


@dataclass(frozen=True)
class Card:
    """A cluster: `stability` is the share of its rows that have its number in another seed, on average."""

    cluster: int
    rows: int
    confidence: float | None = None
    stability: float | None = None
    typical: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    features: list[FeatureDifference] | None = None


def read_assignments(run: StoredRun) -> Assignments | None:
    """The assignments of a run, None where there is none. Raises DataError where it is damaged."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.parquet as pq

    from ops.clustering.label_matching import numbered_as

    path = table_path(run.path, "assignments")
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=["seed", "id", "cluster", "confidence"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    by_seed = {seed: table.filter(pa.compute.equal(table["seed"], seed)) for seed in run.result.seeds}
    mine = by_seed.pop(run.seed)
    if not len(mine):
        return None
    clusters = mine["cluster"].to_numpy().astype(np.int64)
    same = [each["cluster"].to_numpy().astype(np.int64) for each in by_seed.values() if len(each) == len(mine)]
    others = [numbered_as(clusters, each) for each in same]
    return Assignments(mine["id"].to_numpy(), clusters, mine["confidence"].to_numpy(), others)


def oddest(stored: Assignments | None) -> list[tuple[str, int, float]]:
    """Id, cluster and confidence of the least confident rows: at most ten, a twentieth of all."""
    if stored is None:
        return []
    rows = np.argsort(stored.confidence, kind="stable")[: min(ODD, len(stored.ids) // 20)]
    return [(str(stored.ids[i]), int(stored.clusters[i]), float(stored.confidence[i])) for i in rows]


def farthest_rows(run: StoredRun, stored: Assignments | None) -> list[tuple[str, int, float]]:
    """Id, cluster, and distance from its mean in median ones, of the rows that are like no cluster: at most ten."""
    far = [(each.row, c.cluster, each.times) for c in run.explained for each in c.far]
    far = sorted((each for each in far if stored and each[0] < len(stored.ids)), key=lambda each: -each[2])[:ODD]
    return [(str(stored.ids[row]), cluster, times) for row, cluster, times in far] if stored else []


def cards(run: StoredRun, assignments: Assignments | None) -> list[Card]:
    """A card a cluster, the largest first; of what a run has not stored the cards say nothing."""
    features = {each.cluster: each.features for each in run.explained}
    counts = {each.cluster: each.rows for each in run.explained}
    if assignments is not None:
        counts = {**dict.fromkeys(features, 0), **Counter(assignments.clusters.tolist())}
    largest = sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:CARDS]
    return [_card(assignments, cluster, rows, features.get(cluster)) for cluster, rows in largest]


def _card(stored: Assignments | None, cluster: int, rows: int, features: list[FeatureDifference] | None) -> Card:
    if stored is None or not rows:
        return Card(cluster, rows, features=features)
    members = np.flatnonzero(stored.clusters == cluster)
    confidence = stored.confidence[members]
    order = members[np.argsort(-confidence, kind="stable")]
    shares = [float((other[members] == cluster).mean()) for other in stored.others]
    typical = [str(each) for each in stored.ids[order[:IDS]]]
    doubtful = [str(each) for each in stored.ids[order[::-1][:IDS]]] if rows > 2 * IDS else []
    stability = float(np.mean(shares)) if shares else None
    return Card(cluster, rows, float(confidence.mean()), stability, typical, doubtful, features)
