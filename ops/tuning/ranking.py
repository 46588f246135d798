"""The trials of a study as one table: their order, the best one, and what is printed of them."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from ops.config.console import Console
from ops.config.settings import LaunchSettings, SearchSettings
from ops.errors import TesseraError
from ops.evaluation.model_selection import panel
from ops.reporting.tables import result_text, trials_table
from ops.results.schema import RunResult
from ops.results.search_schema import SearchResult, TrialResult
from ops.training.trainer import where


def best_trial(search: SearchResult) -> TrialResult:
    """The best trial; where none finished, the first one's error with its exit code."""
    for trial in search.trials:
        if trial.trial == search.best:
            return trial
    error, code = next(((t.error, t.code) for t in search.trials if t.error), ("all were stopped", 1))
    kind = next((k for k in TesseraError.__subclasses__() if k.code == code), TesseraError)
    raise kind(f"no trial finished, the first says: {error}")


def rank(
    folder: Path, launch: SearchSettings, method: str, dataset: str, command: str,
    name_of: Callable[[Mapping[str, object]], str],
) -> SearchResult:  # fmt: skip
    """The table of trials: finished ones by the objective's order, then the others.

    A folder that is not named as `name_of` its settings is another search's, which had this one's name before.
    `tune/score` is settled by the panel of indices, on users by the score itself, the recall of validation pairs.
    """
    paths = sorted(folder.glob("trial-*/trial.json"))
    trials = [t for t in map(TrialResult.read, paths) if t.trial == name_of(t.settings)]
    key = launch.objective.split("/")[1]
    for trial in trials:
        trial.score = trial.metrics.get(key)
    finished = [t for t in trials if t.status == "finished"]
    rest = sorted((t for t in trials if t.status != "finished"), key=lambda t: -(t.epochs or 0))
    search = SearchResult(
        method=method, dataset=dataset, objective=launch.objective, trials=finished, best=None,
        agreement="no trial finished", command=command, asked=launch.trials, pruned=launch.prune,
        finished=None,
    )  # fmt: skip
    if finished:
        search.agreement = _sort(search)
        search.best = search.trials[0].trial
    search.trials += rest
    return search


def _sort(search: SearchResult) -> str:
    """Put the finished trials in the objective's order; returns how far score and panel agree."""
    trials = search.trials
    choice = panel([{k: math.nan if v is None else v for k, v in t.metrics.items()} for t in trials])
    chosen = trials[choice.chosen].trial
    for trial, mean_rank in zip(trials, choice.ranks, strict=True):
        trial.rank = float(mean_rank)
    if search.scored_by("recall_at_50"):
        trials.sort(key=_by_score)
        other = "the same trial" if trials[0].trial == chosen else chosen
        return f"ranked by tune/score, Recall@50 of validation pairs; cluster indices put {other} first"
    if search.objective == "tune/score":
        trials.sort(key=lambda t: (t.rank or 0.0, _by_score(t)))
        return choice.sentence()
    trials.sort(key=_by_score)
    return f"ranked by {search.objective}: TUNED WITH LABELS; {choice.sentence()}"


def _by_score(trial: TrialResult) -> float:
    return math.inf if trial.score is None else -trial.score


def print_study(folder: Path, search: SearchResult, launch: LaunchSettings, console: Console) -> None:
    """The trials' table, the best setting's results, and where to look further."""
    console.say(trials_table(search), lines=True)
    if best := RunResult.read_optional(folder / "best" / "result.json"):
        console.say(result_text(best), lines=True)
    where(folder, launch, console)
