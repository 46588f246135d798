"""The trials of a study as one table: their order, the best one, and what is printed of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ops.atomic_io import read_json
from ops.config.console import Console
from ops.config.settings import LaunchSettings, SearchSettings
from ops.errors import TesseraError
from ops.evaluation.model_selection import panel
from ops.reporting.tables import by_recall
from ops.training.trainer import where


def best_trial(trials: Mapping[str, Any]) -> Mapping[str, Any]:
    """The best trial; where none finished, the first one's error with its exit code."""
    for trial in trials["trials"]:
        if trial["trial"] == trials["best"]:
            return dict(trial)
    failed = next((t for t in trials["trials"] if "error" in t), {"error": "all were stopped", "code": 1})
    kind = next((k for k in TesseraError.__subclasses__() if k.code == failed["code"]), TesseraError)
    raise kind(f"no trial finished, the first says: {failed['error']}")


def rank(
    folder: Path, launch: SearchSettings, method: str, dataset: str, command: str,
    name_of: Callable[[Mapping[str, Any]], str],
) -> dict[str, Any]:  # fmt: skip
    """The table of trials: finished ones by the objective's order, then the others.

    A folder that is not named as `name_of` its settings is another search's, which had this one's name before.
    `tune/score` is settled by the panel of indices, on users by the score itself, the recall of validation pairs.
    """
    found = [t for p in sorted(folder.glob("trial-*/trial.json")) if (t := read_json(p))]
    found = [t for t in found if t["trial"] == name_of(t["settings"])]
    finished = [t for t in found if t["status"] == "finished"]
    rest = sorted((t for t in found if t["status"] != "finished"), key=lambda t: -t["epochs"])
    agreement, best = "no trial finished", None
    if finished:
        verdict = panel([t["metrics"] for t in finished])
        key = launch.objective.split("/")[1]
        for trial, mean_rank in zip(finished, verdict.ranks, strict=True):
            trial["rank"] = float(mean_rank)
        agreement = verdict.sentence()
        if by_recall({"trials": finished, "objective": launch.objective}):
            theirs = finished[verdict.chosen]["trial"]
            finished.sort(key=lambda t: -t["metrics"]["score"])
            other = "the same trial" if finished[0]["trial"] == theirs else theirs
            agreement = f"ranked by tune/score, Recall@50 of validation pairs; cluster indices put {other} first"
        elif launch.objective == "tune/score":
            finished.sort(key=lambda t: (t["rank"], -t["metrics"]["score"]))
        else:
            finished.sort(key=lambda t: -t["metrics"].get(key, float("-inf")))
            agreement = f"ranked by {launch.objective}: TUNED WITH LABELS; " + agreement
        best = finished[0]["trial"]
    for trial in found:
        trial["score"] = trial["metrics"].get(launch.objective.split("/")[1])
    return {
        "method": method, "dataset": dataset, "objective": launch.objective,
        "trials": finished + rest, "best": best, "agreement": agreement, "command": command,

        "asked": launch.trials, "pruned": launch.prune, "finished": None,
    }  # fmt: skip


def print_study(folder: Path, trials: dict[str, Any], launch: LaunchSettings, console: Console) -> None:
    """The trials' table, the best setting's results, and where to look further."""
    from ops.reporting.html import summary_table, trials_table
    from ops.reporting.recall_table import hidden_text

    console.say(trials_table(trials))
    best = read_json(folder / "best" / "result.json")
    if best:
        console.say(summary_table(best))
        for text in hidden_text(best):
            console.say(text)
        console.say(best["verdict"])
    where(folder, launch, console)
