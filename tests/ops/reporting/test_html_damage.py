"""Runs of which there can be no report: damaged, unfinished, in a place that cannot be written; one line says why."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fabricate import make_run, make_study
from test_html import bare

from ops.config.exit_codes import entry
from ops.errors import DataError, SettingsError
from ops.reporting.html import write_report
from workflows.report import main


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def result_text(text: str) -> Callable[[Path], object]:
    return lambda run: (run / "result.json").write_text(text)


def one_array(run: Path) -> None:
    with (run / "seed-0" / "figures.npz").open("wb") as file:
        np.save(file, np.ones((3, 2)))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing folder": (shutil.rmtree, "no such folder"),
    "no run": (empty, "is not a run"),
    "unfinished": (lambda run: (run / "result.json").unlink(), "not finished"),
    "no JSON": (result_text("{"), "not readable JSON"),
    "no object": (result_text("[1]"), "Input should be an object, got [1]"),
    "other JSON": (result_text('{"method": "hsan"}'), "lacks dataset"),
    "wrong type": (lambda run: make_broken(run, last=3), "last: Input should be an object, got 3"),
    "plain settings": (
        lambda run: make_broken(run, settings={"lr": 0.1}),
        "settings.lr: Input should be an object, got 0.1",
    ),
    "damaged sweep": (lambda run: (run / "auto.json").write_text("{}"), "auto.json: lacks k, chosen"),
    "cut history": (lambda run: cut(run / "seed-0" / "history.jsonl"), "line 200"),
    "cut arrays": (lambda run: cut(run / "seed-0" / "figures.npz"), "not a readable npz"),
    "text as arrays": (lambda run: (run / "seed-0" / "figures.npz").write_text("hello"), "not a readable npz"),
    "one array": (one_array, "not a readable npz"),
}


def make_broken(run: Path, **changes: object) -> None:
    (run / "result.json").write_text(json.dumps(json.loads((run / "result.json").read_text()) | changes))


@pytest.mark.parametrize(("spoil", "problem"), BAD.values(), ids=BAD)
def test_bad_folders_end_with_one_line(tmp_path, spoil, problem, capsys, monkeypatch):
    folder = make_run(tmp_path / "run", rows=20, seeds=1)
    spoil(folder)
    monkeypatch.setattr(sys, "argv", ["report.py", str(folder)])
    with pytest.raises(SystemExit) as left, warnings.catch_warnings():
        entry(main)
    assert left.value.code == DataError.code
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_unwritable_place_is_a_settings_error(tmp_path):
    folder = bare(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        write_report(folder)
    assert not list(folder.glob("*.tmp*"))
    assert not list(folder.glob(".*.tmp"))


def test_damaged_study(tmp_path):
    study = make_study(tmp_path / "study", best=False)
    (study / "trials.json").write_text('{"trials": 3}')
    with pytest.raises(DataError, match=r"trials\.json: lacks method, dataset"):
        write_report(study)
