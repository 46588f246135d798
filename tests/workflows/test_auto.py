"""`workflows/auto.py`: a choice, a run, a method afterwards."""

import json

import pytest

from ops.errors import SettingsError
from workflows import auto


def test_a_method_that_is_none_for_graphs_is_refused_at_once():
    with pytest.raises(
        SettingsError, match="--then hadis: is no method for graphs; allowed: caegcn, degree, dmon, hsan"
    ):
        auto.main(["--dataset", "digits", "--then", "hadis"])


def test_flags_of_the_choice_do_not_reach_the_method_afterwards():
    argv = ["--then", "hsan", "--dataset", "a", "--n-clusters=3", "--seeds", "2", "--name", "x"]
    assert auto._without(argv, "--then", "--n-clusters", "--name") == ["--dataset", "a", "--seeds", "2"]


@pytest.mark.slow
def test_the_choice_is_a_run_and_a_method_follows_with_the_same_k(tmp_path, capsys):
    data = "planted:nodes=120,clusters=3"
    flags = ["--dataset", data, "--out", str(tmp_path), "--no-report", "--threads", "1", "--json"]
    auto.main([*flags, "--n-clusters", "3", "--then", "ssgc"])
    first, then = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    choice = json.loads((next(tmp_path.glob("*/choice.json"))).read_text())
    assert choice["chosen"].startswith(first["settings"].get("variant", {"value": first["method"]})["value"])
    assert first["settings"]["n_clusters"]["value"] == then["settings"]["n_clusters"]["value"] == 3
    assert then["method"] == "ssgc"
    assert first["last"]["acc"]["mean"] > 0.9
