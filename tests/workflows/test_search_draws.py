"""What `workflows/tune_hsan.py` draws trials from: keys it refuses, few choices drawn often, more trials asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import PROJECT
from searches import command, write_data

from ops.errors import SettingsError
from workflows import tune_hgt, tune_hsan

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("key", "hint"),
    [("temprature", "nearest known: temperature"), ("update_every", "can be searched: "), ("seeds", "")],
)
def test_what_cannot_be_searched_is_refused_before_any_work(tmp_path: Path, key: str, hint: str) -> None:
    write_data(tmp_path, permuted=False)
    with pytest.raises(SettingsError, match=f"--search {key}: has no search domain.*{hint}") as error:
        tune_hsan.main([*command(tmp_path), "--search", f"lr,{key}"])
    assert error.value.code == 2
    assert "\n" not in str(error.value)
    assert not (tmp_path / "study").exists()


def test_a_setting_that_others_exclude_is_not_searched(tmp_path: Path) -> None:
    argv = ["--dataset", "planted:users=60,clusters=3", "--loss", "softmax", "--out", str(tmp_path), "--name", "none"]
    with pytest.raises(SettingsError, match=r"^--search hardness: .*; search without it .--search temperature,"):
        tune_hgt.main(argv)
    assert not (tmp_path / "none").exists()


def test_without_labels_nothing_is_ranked_by_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", x=np.random.default_rng(0).random((40, 5), np.float32))
    argv = ["--dataset", str(tmp_path / "plain.npz"), "--knn", "3", "--n-clusters", "2", "--out", str(tmp_path)]
    with pytest.raises(SettingsError, match="--objective last/acc: plain has no labels to rank by"):
        tune_hsan.main([*argv, "--objective", "last/acc", "--name", "none"])
    assert not (tmp_path / "none").exists()


def test_other_seeds_are_another_search(tmp_path: Path) -> None:
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--epochs", "2", "--embedding-dim", "8", "--threads", "1"]
    argv += ["--trials", "1", "--seeds", "1", "--no-report", "--name", "seeds", "--out", str(tmp_path), "--quiet"]
    command = [sys.executable, str(PROJECT / "workflows" / "tune_hsan.py"), *argv]
    subprocess.run(command, capture_output=True, check=True, timeout=240)
    with pytest.raises(SettingsError, match=r"is another run: first_seed \(not set there, 7 now\) differ"):
        tune_hsan.main([*argv, "--first-seed", "7"])


def test_equal_draws_and_more_trials(tmp_path: Path) -> None:
    """Two choices drawn four times: fewer folders than trials, a finished study, and a best one that may change."""
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--epochs", "4", "--update-every", "2", "--threads", "1"]
    argv += ["--search", "low-pass-order", "--concurrent", "2", "--seeds", "1", "--no-report", "--name", "draws"]
    argv += ["--embedding-dim", "8", "--out", str(tmp_path)]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROJECT / "workflows" / "tune_hsan.py"), *argv, *more]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)

    assert "finished on" not in run("--trials", "12").stdout
    stored = json.loads((tmp_path / "draws" / "trials.json").read_text())
    assert len(stored["trials"]) < 12
    assert stored["asked"] == 12
    assert "finished on" in run("--trials", "12").stdout
    best = tmp_path / "draws" / "best" / "run.json"
    value = json.loads(best.read_text())
    best.write_text(json.dumps(value | {"settings": value["settings"] | {"low_pass_order": 99}}))
    assert "training the best setting" in run("--trials", "13").stdout  # the old best is replaced, not refused
    assert json.loads(best.read_text()) == value
