"""`workflows/tune_hsan.py` with a real Ray: killed, interrupted, ended; blind to labels; nothing of Ray stays."""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import PROJECT, history, lines, tree, until
from searches import EPOCHS, TRIALS, Search, command, write_data

from ops.config.cli import resolve
from ops.config.console import Console
from ops.config.settings import SearchSettings
from ops.reporting.html import write_report
from ops.reporting.tables import trials_table
from ops.training.experiment import build_experiment
from ops.tuning.ranking import rank
from ops.tuning.search_space import trial_names
from trainers import hsan

pytestmark = pytest.mark.slow


def trial_files(study: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in study.glob("trial-*/trial.json")}


@dataclass
class Disturbed:
    """What the disturbed search left."""

    study: Path
    said: str


@pytest.fixture(scope="module")
def disturbed(nursery, tmp_path_factory):
    """A search that is killed after a trial, started again, interrupted after another, and started again."""
    folder = tmp_path_factory.mktemp("disturbed")
    write_data(folder, permuted=False)
    study = folder / "study"

    killed = Search(nursery, folder)
    until(lambda: len(trial_files(study)) >= 1 or nursery.ended())
    until(lambda: sum(map(lines, study.glob("trial-*/seed-0/history.jsonl"))) % EPOCHS > 4 or nursery.ended())
    os.kill(killed.pid, signal.SIGKILL)
    ended = nursery.wait()
    assert ended.code == -signal.SIGKILL, ended
    before = trial_files(study)

    stopped = Search(nursery, folder)
    until(lambda: len(trial_files(study)) > len(before) or nursery.ended())
    os.kill(stopped.pid, signal.SIGINT)
    ended = nursery.wait()
    assert ended.code == 130, ended
    assert "resume with: python " in ended.err.splitlines()[-1]
    assert not (study / "best").exists()
    assert not (study / "trials.json").exists()
    middle = trial_files(study)
    assert len(middle) < TRIALS
    whole = {p: t for p, t in middle.items() if json.loads(p.read_text())["status"] != "interrupted"}
    assert before.items() <= whole.items(), "an ended trial was trained again"

    last = Search(nursery, folder)
    ended = nursery.wait()
    assert ended.code == 0, ended
    assert whole.items() <= trial_files(study).items(), "an ended trial was trained again"
    assert [search.left_behind() for search in (killed, stopped, last)] == [{}] * 3, "processes stayed behind"
    return Disturbed(study, ended.out)


def test_disturbed_search_ends_whole(disturbed):
    study = disturbed.study
    stored = json.loads((study / "trials.json").read_text())
    trials = stored["trials"]
    assert len(trials) == TRIALS
    assert stored["finished"]
    assert stored["objective"] == "tune/score"
    assert {t["status"] for t in trials} <= {"finished", "stopped"}
    assert {p.name for p in study.glob("trial-*")} == {t["trial"] for t in trials}
    finished = [t for t in trials if t["status"] == "finished"]
    assert trials[: len(finished)] == finished
    ranks = [t["rank"] for t in finished]
    assert ranks == sorted(ranks)
    assert stored["best"] == trials[0]["trial"]
    for trial in trials:
        assert set(trial["settings"]) == {"lr", "temperature"}
        epochs = [r["epoch"] for r in history(study / trial["trial"] / "seed-0")]
        assert epochs == list(range(len(epochs)))
        assert trial["epochs"] == EPOCHS if trial["status"] == "finished" else trial["epochs"] < EPOCHS
    best = json.loads((study / "best" / "result.json").read_text())
    assert best["seeds"] == [0, 1]
    assert {k: best["settings"][k]["value"] for k in ("lr", "temperature")} == trials[0]["settings"]
    assert {best["settings"][k]["source"] for k in ("lr", "temperature")} == {"trial"}
    assert best["last"]["acc"]["values"][0] == trials[0]["metrics"]["acc"], "seed 0 is the trial's own"
    histories = [study / part / "seed-0" / "history.jsonl" for part in ("best", trials[0]["trial"])]
    assert histories[0].read_bytes() == histories[1].read_bytes(), "with its times: it was not trained again"
    page = (study / "report.html").read_text()
    assert all(t["trial"] in page for t in trials)
    assert trials[0]["trial"] in disturbed.said


def test_disturbed_search_is_nested_in_mlflow(disturbed):
    study = disturbed.study
    stored = json.loads((study / "trials.json").read_text())
    runs = tree(study.parent / "mlflow.db")
    expected: dict[str, str | None] = {"study": None, "study/best": "study"}
    expected |= {f"study/best/seed-{s}": "study/best" for s in (0, 1)}
    for trial in stored["trials"]:
        key = f"study/{trial['trial']}"
        expected |= {key: "study", f"{key}/seed-0": key}
        for name, value in trial["settings"].items():
            assert float(runs[key]["params"][name]) == value
            assert float(runs[f"{key}/seed-0"]["params"][name]) == value
        assert ("tune/score", trial["epochs"] - 1) in runs[key]["metrics"]
    assert {key: run["parent"] for key, run in runs.items()} == expected
    assert runs["study"]["params"]["searched"] == "lr,temperature"
    pruned = {f"study/{t['trial']}/seed-0" for t in stored["trials"] if t["status"] == "stopped"}
    assert {k: r["status"] for k, r in runs.items()} == {k: "KILLED" if k in pruned else "FINISHED" for k in runs}
    for key, run in runs.items():
        assert set(run["metrics"].values()) <= {1}, f"{key}: a metric stands twice"


def test_permuted_labels_change_nothing(nursery, disturbed, tmp_path):
    write_data(tmp_path, permuted=True)
    search = Search(nursery, tmp_path, "--seeds", "0", "--no-report")
    ended = nursery.wait()
    assert ended.code == 0, ended
    assert search.left_behind() == {}, "processes stayed behind"
    one = json.loads((disturbed.study / "trials.json").read_text())
    other = json.loads((tmp_path / "study" / "trials.json").read_text())
    kept = ("trial", "status", "epochs", "score", "settings")
    assert [{k: t[k] for k in kept} for t in one["trials"]] == [{k: t[k] for k in kept} for t in other["trials"]]
    assert one["best"] == other["best"]
    assert one["agreement"] == other["agreement"]
    assert one["trials"][0]["metrics"]["acc"] != other["trials"][0]["metrics"]["acc"], "the labels are others"


def test_tuning_with_labels_is_marked(disturbed, tmp_path):
    argv = [*command(disturbed.study.parent), "--objective", "last/acc"]
    resolved = resolve(argv, hsan.METHOD, SearchSettings, PROJECT / "workflows" / "presets", "workflows/tune_hsan.py")
    assert isinstance(resolved.launch, SearchSettings)
    copy = tmp_path / "study"
    shutil.copytree(disturbed.study, copy, ignore=shutil.ignore_patterns("ray"))
    experiment = build_experiment(hsan.METHOD, resolved, Console(quiet=True))
    trials = rank(copy, resolved.launch, "hsan", experiment.data.name, resolved.command, trial_names(experiment))
    assert trials.agreement.startswith("ranked by last/acc: TUNED WITH LABELS")
    acc = [t.metrics["acc"] for t in trials.trials if t.status == "finished"]
    assert acc == sorted(acc, reverse=True)
    assert "TUNED WITH LABELS" in trials_table(trials)
    trials.write(copy / "trials.json")
    page = write_report(copy).read_text()
    assert "TUNED WITH LABELS" in page
    assert "pruned by tune/score, which sees no label, then ranked by last/acc" in page
