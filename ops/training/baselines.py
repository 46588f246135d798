"""The scores of baselines: of a seed by the ranks that own the rows, else of all seeds at the end of a run."""

from dataclasses import replace

from ops.api import AnyExperiment
from ops.atomic_io import plain
from ops.datamodules import datamodule_of
from ops.results import statistics
from ops.results.schema import Numbers, Scores, SeedResult
from ops.training.experiment import judges_of
from ops.training.seed_run import Judges, SeedRun


def baselines_of_seed(experiment: AnyExperiment, run: SeedRun) -> dict[str, Numbers] | None:
    """The scores of each baseline drawn by this seed, from the rows that ranks own; all ranks call it.

    None where rank 0 has all rows, and of a trial's seed.
    """
    if run.judges is None or datamodule_of(experiment.method).offsets(experiment.data) is None:
        return None
    if run.seed not in experiment.seeds:
        return None
    alone = replace(experiment, request=experiment.request.with_launch(first_seed=run.seed, seeds=1))
    return {name: plain(scores[0]) for name, scores in _scored(alone, run.judges).items()}


def baselines_of(experiment: AnyExperiment, each: list[SeedResult]) -> dict[str, Scores | None]:
    """The baselines over seeds: as the ranks that own the rows have scored them, else here."""
    if all(e.baselines is not None for e in each):
        scored = [e.baselines or {} for e in each]
        return {name: statistics.over_seeds([scores[name] for scores in scored]) for name in scored[0]}
    judges = judges_of(experiment)
    assert judges is not None, "a process of its own has all rows"
    of_seeds = _scored(experiment, judges)
    return {name: statistics.over_seeds(scores) for name, scores in of_seeds.items()}


def _scored(experiment: AnyExperiment, judges: Judges) -> dict[str, list[dict[str, float]]]:
    """The scores of every baseline, those of each seed one after the other; all ranks call it."""
    rows: dict[str, list[dict[str, float]]] = {}
    group = judges.owners.group
    for name, clusters, embeddings in datamodule_of(experiment.method).baselines(experiment, group):
        rows.setdefault(name, []).append(judges.unlabelled(clusters, embeddings) | judges.evaluator(clusters))
    return rows
