"""What `workflows/tune_hsan.py` draws trials from: keys it refuses, few choices drawn often, more trials asked for."""

import json

import numpy as np
import pytest
from processes import RAY

from ops.errors import SettingsError
from workflows import tune_hgt, tune_hsan

pytestmark = pytest.mark.slow


def test_a_setting_that_others_exclude_is_not_searched(tmp_path):
    argv = ["--dataset", "planted:users=60,clusters=3", "--loss", "softmax", "--out", str(tmp_path), "--name", "none"]
    with pytest.raises(SettingsError, match=r"^--search hardness: .*; search without it .--search temperature,"):
        tune_hgt.main(argv)
    assert not (tmp_path / "none").exists()


def test_without_labels_nothing_is_ranked_by_them(tmp_path):
    np.savez(tmp_path / "plain.npz", x=np.random.default_rng(0).random((40, 5), np.float32))
    argv = ["--dataset", str(tmp_path / "plain.npz"), "--knn", "3", "--n-clusters", "2", "--out", str(tmp_path)]
    with pytest.raises(SettingsError, match="--objective last/acc: plain has no labels to rank by"):
        tune_hsan.main([*argv, "--objective", "last/acc", "--name", "none"])
    assert not (tmp_path / "none").exists()


def test_a_trial_whose_settings_do_not_fit_the_data_is_one_line_and_the_search_goes_on(nursery, tmp_path):
    """S2CAG divides by sums of the features, which are negative here; M-S2CAG does not."""
    argv = ["s2cag", "--dataset", "planted:nodes=60,clusters=3", "--search", "variant", "--features", "raw"]
    argv += ["--trials", "6", "--threads", "1", "--seeds", "0", "--no-report", "--name", "s", "--out", str(tmp_path)]
    ended = nursery.run(argv, program="tune", imports=RAY)
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err + ended.out
    failed = [line for line in ended.err.splitlines() if "failed" in line]
    assert failed
    for line in failed:
        assert line.startswith("warning: trial ")
        assert line.endswith("give --variant m-s2cag")
    trials = json.loads((tmp_path / "s" / "trials.json").read_text())["trials"]
    assert [trial["status"] for trial in trials] == ["finished", "failed"]


def test_equal_draws_more_trials_and_other_seeds(nursery, tmp_path):
    """Eight choices drawn twelve times: fewer folders than trials, a finished study, and a best one that may change."""
    argv = ["--dataset", "planted:nodes=60,clusters=3", "--epochs", "4", "--update-every", "2", "--threads", "1"]
    argv += ["--search", "low-pass-order", "--concurrent", "2", "--seeds", "1", "--no-report", "--name", "draws"]
    argv += ["--no-explain", "--embedding-dim", "8", "--out", str(tmp_path)]

    def run(*more: str) -> str:
        ended = nursery.run([*argv, *more], program="tune_hsan", imports=RAY)
        assert ended.code == 0, ended
        return ended.out

    assert "finished on" not in run("--trials", "12")
    stored = json.loads((tmp_path / "draws" / "trials.json").read_text())
    assert len(stored["trials"]) < 12
    assert stored["asked"] == 12
    assert "finished on" in run("--trials", "12")
    best = tmp_path / "draws" / "best" / "run.json"
    value = json.loads(best.read_text())
    best.write_text(json.dumps(value | {"settings": value["settings"] | {"low_pass_order": 99}}))
    assert "training the best setting" in run("--trials", "13")  # the old best is replaced, not refused
    first = json.loads((tmp_path / "draws" / "trials.json").read_text())["trials"][0]  # all are alike: an id decides
    assert json.loads(best.read_text()) == value | {"settings": value["settings"] | first["settings"]}
    with pytest.raises(SettingsError, match=r"is another run: first_seed \(not set there, 7 now\) differ"):
        tune_hsan.main([*argv, "--trials", "13", "--first-seed", "7"])
