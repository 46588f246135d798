"""What stands beside the last epoch in the table of a run: the consensus of a seed's evaluations and that of many
seeds, and the baselines, of a seed by the ranks that own the rows, else of all seeds at the end of a run.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment, Result
from ops.atomic_io import Arrays, plain
from ops.clustering.consensus import LARGEST, consensus, draws
from ops.clustering.label_matching import numbered_as
from ops.clustering.owners import Owners
from ops.data.types.hetero import Ids
from ops.datamodules import datamodule_of
from ops.errors import SettingsError
from ops.evaluation.labelled import LABELLED, adjusted_rand, contingency, evaluator
from ops.results import statistics
from ops.results.schema import Numbers, Scores, SeedResult
from ops.results.seed_rows import SeedRows
from ops.training.experiment import Judges, judges_of
from ops.training.seed_run import SeedRun

BASELINES, CONSENSUS = "baselines", "consensus"  # tables of a run
SEEDS = 10  # of fewer, leaving one out changes their consensus much
DRAWS, FEW = 33, 11  # of k-means on the last embedding, where there are fewer evaluations
LARGEST_ROWS = 20_000  # beyond, draws would take minutes
LARGEST_K, LARGEST_VALUES = LARGEST // FEW, 1 << 26  # of K, and of N K: the eigenvectors take 256 MiB


def applies(experiment: AnyExperiment) -> bool:
    """Whether a run has a consensus."""
    return experiment.k <= LARGEST_K and experiment.data.n_rows * experiment.k <= LARGEST_VALUES


def check_result(experiment: AnyExperiment) -> None:
    """Raise SettingsError for `--result consensus` where a run has none."""
    if experiment.launch.result == "consensus" and not applies(experiment):
        raise SettingsError(
            f"--result consensus: is for up to {LARGEST_K} clusters, and {LARGEST_VALUES:,} rows times clusters; "
            f"this run has {experiment.data.n_rows:,} rows and {experiment.k} clusters: use --result last"
        )


def consensus_of(experiment: AnyExperiment, run: SeedRun, result: Result) -> tuple[Arrays, dict[str, float] | None]:
    """(arrays `consensus` and `agreement` [n], scores) of a seed's evaluations, as `_evaluations` chooses them.

    All ranks that own rows call it. Nothing where none applies. Nodes of attributed graphs with fewer than FEW such
    evaluations have the consensus of DRAWS draws of k-means on the last embedding instead.
    """
    k, judges = experiment.k, run.judges
    assert judges is not None, "only ranks that own rows call it"
    if not applies(experiment):
        return {}, None
    clusterings, seed = _evaluations(run, result.epoch, LARGEST // k), (run.seed, DRAWS)
    quick = experiment.method.kind == "graph" and experiment.data.n_rows <= LARGEST_ROWS
    if quick and clusterings.shape[1] < FEW:
        rows = torch.from_numpy(result.embedding)
        clusterings = draws(rows, k, seed, DRAWS, judges.owners, result.spherical)
    clusters, agreement = consensus(clusterings, k, seed, judges.owners)
    scores = judges.unlabelled(clusters, {"embedding": result.embedding}) | judges.evaluator(clusters)
    if clusterings.shape[1] > 1:
        scores["ari_of_each"] = _ari_of_each(clusterings, clusters, judges.owners)
    return {"consensus": clusters, "agreement": agreement}, scores


def _ari_of_each(clusterings: NDArray[np.int64], clusters: NDArray[np.int64], owners: Owners) -> float:
    """The mean ARI of single clusterings [n, R] with their consensus [n]; of at most DRAWS of them, evenly spaced."""
    some = clusterings.T[:: -(-clusterings.shape[1] // DRAWS)]
    return float(np.mean([adjusted_rand(contingency(clusters, each, owners.group)) for each in some]))


def _evaluations(run: SeedRun, last: int | None, most: int) -> NDArray[np.int64]:
    """The clusters [n, R] of the evaluations up to epoch `last` but for the first quarter, which are of a network that
    has learnt little. Of more than `most` only so many, evenly spaced.
    """
    epochs = [epoch for epoch in run.assignments if last is None or epoch <= last]
    epochs = epochs[min(math.ceil(len(epochs) / 4), len(epochs) - 1) :]
    spaced = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), most)).round().astype(int))
    return np.stack([run.assignments[epochs[place]] for place in spaced], 1)


def consensus_of_seeds(experiment: AnyExperiment, rows: SeedRows, chosen: int) -> Scores | None:
    """The scores of what the consensuses of at least SEEDS seeds agree on, which is written as the table CONSENSUS.

    Its clusters have the numbers of the `chosen` seed's. None of rows in parts, which no process has as a whole.
    """
    if len(rows.seeds) < SEEDS or rows.parts > 1 or not applies(experiment):
        return None
    stored = {seed: rows.read(seed, 0) for seed in rows.seeds}
    if any("consensus" not in each for each in stored.values()):  # of an earlier version
        return None
    judges = _judges_of_all(experiment)
    each = np.stack([arrays["consensus"] for arrays in stored.values()], 1)
    clusters, agreement = consensus(each, experiment.k, (rows.seeds[0], DRAWS), judges.owners)
    columns = {"cluster": numbered_as(stored[chosen]["last"], clusters), "confidence": agreement}
    rows.write(CONSENSUS, 0, {"id": ids_of(experiment), **columns})
    return statistics.over_seeds([judges.unlabelled(clusters, {}) | judges.evaluator(clusters)])


def scored_again(scores: Numbers, clusters: NDArray[np.int64], labels: NDArray[np.int64] | None) -> Numbers:
    """The scores of a consensus by other labels [N]."""
    return {k: v for k, v in scores.items() if k not in LABELLED} | evaluator(labels)(clusters)


def baselines_of_seed(experiment: AnyExperiment, run: SeedRun) -> dict[str, Numbers] | None:
    """The scores of each baseline drawn by this seed, from the rows that ranks own; all ranks call it.

    None where rank 0 has all rows, and of a trial's seed.
    """
    if run.judges is None or datamodule_of(experiment.method).offsets(experiment.data) is None:
        return None
    if run.seed not in experiment.seeds:
        return None
    alone = replace(experiment, request=experiment.request.with_launch(first_seed=run.seed, seeds=1))
    return {name: plain(scores[0]) for name, scores in _scored(alone, run.judges)[0].items()}


def baselines_of(experiment: AnyExperiment, rows: SeedRows, each: list[SeedResult]) -> dict[str, Scores | None]:
    """The baselines over seeds: as the ranks that own the rows have scored them, else here.

    Here their clusters of the first seed are also written as the table BASELINES of the run: a column a baseline.
    """
    if all(e.baselines is not None for e in each):
        scored = [e.baselines or {} for e in each]
        return {name: statistics.over_seeds([scores[name] for scores in scored]) for name in scored[0]}
    of_seeds, clusters = _scored(experiment, _judges_of_all(experiment))
    if rows.parts == 1 and clusters:
        rows.write(BASELINES, 0, {"id": ids_of(experiment), **clusters})
    return {name: statistics.over_seeds(scores) for name, scores in of_seeds.items()}


def _judges_of_all(experiment: AnyExperiment) -> Judges:
    """Who scores all rows, in a process of its own."""
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    return judges


def ids_of(experiment: AnyExperiment) -> Ids:
    """The ids of the rows of data in one part, or the rows' numbers [N]."""
    return np.arange(experiment.data.n_rows) if experiment.data.ids is None else np.asarray(experiment.data.ids)


def _scored(experiment: AnyExperiment, judges: Judges) -> tuple[dict[str, list[dict[str, float]]], Arrays]:
    """The scores of every baseline, those of each seed one after the other, and its clusters of the first seed.

    All ranks call it.
    """
    scores: dict[str, list[dict[str, float]]] = {}
    first: Arrays = {}
    group = judges.owners.group
    for name, clusters, embeddings in datamodule_of(experiment.method).baselines(experiment, group):
        scores.setdefault(name, []).append(judges.unlabelled(clusters, embeddings) | judges.evaluator(clusters))
        first.setdefault(name, clusters)
    return scores, first
