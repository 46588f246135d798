"""`workflows/auto.py`: a choice, a run, a method afterwards."""

import json

import numpy as np
import pytest
from commands import Shell

from ops.data.synthetic.planted_partition import planted_graph
from ops.errors import SettingsError
from workflows import auto


@pytest.fixture
def shell(capsys, monkeypatch, tmp_path):
    return Shell(capsys, monkeypatch, tmp_path)


def test_a_method_that_is_none_for_graphs_is_refused_at_once():
    with pytest.raises(
        SettingsError, match="--then hadis: is no method for graphs; allowed: caegcn, degree, dmon, hsan"
    ):
        auto.main(["--dataset", "digits", "--then", "hadis"])


def test_flags_of_the_choice_do_not_reach_the_method_afterwards():
    argv = ["--then", "hsan", "--dataset", "a", "--n-clusters=3", "--seeds", "2", "--name", "x"]
    assert auto._without(argv, "--then", "--n-clusters", "--name") == ["--dataset", "a", "--seeds", "2"]


def test_a_dry_run_says_choice_and_plan_also_of_features_that_say_nothing(shell, tmp_path):
    graph, _ = planted_graph(60, 3)
    np.savez(tmp_path / "same.npz", x=np.ones((60, 4), np.float32), edge_index=graph.edge_index)
    flags = "--dataset same.npz --n-clusters 3 --dry-run --threads 1"
    ended = shell(flags, main=auto.main, program="workflows/auto.py")
    assert ended.code == 0, ended
    for words in ("the method was chosen without labels: ", "K = 3", "planned peak", "nothing was trained"):
        assert words in ended.out, words
    assert [path.name for path in tmp_path.iterdir()] == ["same.npz"]


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
