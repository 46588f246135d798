"""What stands beside the last epoch in the table of a run: the consensus of many k-means draws on its embedding, and
the baselines, of a seed by the ranks that own the rows, else of all seeds at the end of a run.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.atomic_io import Arrays, plain
from ops.clustering.consensus import DRAWS, consensus
from ops.data.types.hetero import Ids
from ops.datamodules import datamodule_of
from ops.errors import SettingsError
from ops.evaluation.labelled import LABELLED, evaluator
from ops.results import statistics
from ops.results.schema import Numbers, Scores, SeedResult
from ops.results.seed_rows import SeedRows
from ops.training.experiment import Judges, judges_of
from ops.training.seed_run import SeedRun

BASELINES = "baselines"  # the table of a run
LARGEST_ROWS, LARGEST_K = 20_000, 100  # beyond, draws would take minutes


def applies(experiment: AnyExperiment) -> bool:
    """Whether a run has a consensus: nodes of attributed graphs, where the draws take seconds."""
    return experiment.method.kind == "graph" and experiment.data.n_rows <= LARGEST_ROWS and experiment.k <= LARGEST_K


def check_result(experiment: AnyExperiment) -> None:
    """Raise SettingsError for `--result consensus` where a run has none."""
    if experiment.launch.result == "consensus" and not applies(experiment):
        raise SettingsError(
            f"--result consensus: is for attributed graphs of up to {LARGEST_ROWS:,} nodes and {LARGEST_K} clusters; "
            f"{experiment.method.name} on {experiment.data.name} has --result last"
        )


def consensus_of(
    experiment: AnyExperiment, seed: int, embedding: NDArray[np.float32]
) -> tuple[Arrays, dict[str, float] | None]:
    """(arrays `consensus` and `agreement` [N], scores) of the last embedding [N, D]; nothing where none applies."""
    if not applies(experiment):
        return {}, None
    clusters, agreement = consensus(torch.from_numpy(embedding), experiment.k, (seed, DRAWS))
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    return {"consensus": clusters, "agreement": agreement}, judges.unlabelled(clusters, {}) | judges.evaluator(clusters)


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
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    of_seeds, clusters = _scored(experiment, judges)
    if rows.parts == 1 and clusters:
        rows.write(BASELINES, 0, {"id": ids_of(experiment), **clusters})
    return {name: statistics.over_seeds(scores) for name, scores in of_seeds.items()}


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
