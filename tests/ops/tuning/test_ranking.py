"""A study's order of trials and what it says when none finished."""

import json

import pytest

from ops.config.cli import resolve
from ops.config.settings import SearchSettings
from ops.errors import DivergedError
from ops.reporting.tables import trials_table
from ops.tuning.ranking import best_trial, rank
from trainers import hsan


def trial(name, status, **metrics):
    values = {"silhouette": 0.1, "davies_bouldin": 1.0, "modularity": 0.1, "conductance": 0.5, "score": 0.5} | metrics
    return {"trial": name, "settings": {"name": name}, "status": status, "epochs": 3, "metrics": values}


def ranked(tmp_path, trials, *flags):
    for each in trials:
        (tmp_path / each["trial"]).mkdir()
        (tmp_path / each["trial"] / "trial.json").write_text(json.dumps(each))
    request = resolve(flags, hsan.METHOD, SearchSettings, tmp_path, "tune")
    return rank(tmp_path, request.launch, "hsan", "toy", request.command, lambda settings: settings["name"])


def test_finished_trials_come_first_by_the_panel(tmp_path):
    search = ranked(tmp_path, [trial("trial-a", "stopped", modularity=0.9), trial("trial-b", "finished"),
                              trial("trial-c", "finished", modularity=0.6, conductance=0.2)])  # fmt: skip
    assert [t.trial for t in search.trials] == ["trial-c", "trial-b", "trial-a"]
    assert search.best == best_trial(search).trial == "trial-c"
    assert search.asked == 8


def test_users_are_ranked_by_the_recall_of_validation_pairs(tmp_path):
    search = ranked(tmp_path, [trial("trial-a", "finished", recall_at_50=0.3, score=0.3),
                              trial("trial-b", "finished", recall_at_50=0.2, score=0.2, modularity=0.9)])  # fmt: skip
    assert [t.trial for t in search.trials] == ["trial-a", "trial-b"]
    agreement = "ranked by tune/score, Recall@50 of validation pairs; cluster indices put trial-b first"
    assert search.agreement == agreement


def test_a_search_without_a_finished_trial_ends_with_the_first_error(tmp_path):
    failed = trial("trial-a", "failed") | {"error": "DivergedError: the loss is nan", "code": 5}
    with pytest.raises(DivergedError, match="no trial finished, the first says: DivergedError: the loss is nan"):
        best_trial(ranked(tmp_path, [failed]))


def test_passwords_are_not_stored(tmp_path):
    search = ranked(tmp_path, [trial("trial-a", "finished")], "--tracking-uri", "http://me:secret@host")
    assert "secret" not in json.dumps(search.plain())


def test_a_forgotten_searchs_trials_are_not_ranked(tmp_path):
    other = trial("trial-b", "finished", modularity=0.9) | {"settings": {"name": "trial-c"}}
    search = ranked(tmp_path, [trial("trial-a", "finished"), other])
    assert [t.trial for t in search.trials] == ["trial-a"]


def test_the_score_of_a_trial_is_its_objectives(tmp_path):
    given = [trial("trial-a", "finished", acc=0.4, modularity=0.9), trial("trial-b", "finished", acc=0.9)]
    search = ranked(tmp_path, given, "--objective", "last/acc")
    assert [t.score for t in search.trials] == [0.9, 0.4]
    lines = trials_table(search).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("trial-")] == ["trial-b", "trial-a"]
    assert "0.900" in next(line for line in lines if line.startswith("trial-b"))
