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
from test_html import bare, result_of

from ops.config.exit_codes import entry
from ops.errors import DataError, SettingsError, TesseraError
from ops.reporting.html import write_report
from ops.results.schema import read_sample
from workflows.report import main


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def arrays(**stored: np.ndarray) -> Callable[[Path], None]:
    return lambda run: np.savez(run / "seed-0" / "figures.npz", **stored)


def result_text(text: str) -> Callable[[Path], object]:
    return lambda run: (run / "result.json").write_text(text)


def one_array(run: Path) -> None:
    with (run / "seed-0" / "figures.npz").open("wb") as file:
        np.save(file, ONES)


ONES = np.ones((3, 2))
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing folder": (shutil.rmtree, "no such folder"),
    "no run": (empty, "is not a run"),
    "unfinished": (lambda run: (run / "result.json").unlink(), "not finished"),
    "no JSON": (result_text("{"), "not readable JSON"),
    "no object": (result_text("[1]"), "expected a JSON object"),
    "other JSON": (result_text('{"method": "hsan"}'), "lacks dataset"),
    "wrong type": (lambda run: make_broken(run, last=3), "last is a int"),
    "plain settings": (lambda run: make_broken(run, settings={"lr": 0.1}), "setting lr"),
    "damaged sweep": (lambda run: (run / "auto.json").write_text("{}"), "lacks k"),
    "cut history": (lambda run: cut(run / "seed-0" / "history.jsonl"), "line 200"),
    "cut arrays": (lambda run: cut(run / "seed-0" / "figures.npz"), "not a readable npz"),
    "text as arrays": (lambda run: (run / "seed-0" / "figures.npz").write_text("hello"), "not a readable npz"),
    "one array": (one_array, "not a readable npz"),
    "lacking arrays": (arrays(before=ONES), "lacks after, cluster"),
    "other lengths": (arrays(before=ONES, after=np.ones((4, 2)), cluster=ONES[:, 0]), "do not fit"),
    "not finite": (arrays(before=ONES, after=ONES * np.nan, cluster=ONES[:, 0]), "NaN or infinity"),
}


def make_broken(run: Path, **changes: object) -> None:
    (run / "result.json").write_text(json.dumps(result_of(run) | changes))


@pytest.mark.parametrize(("spoil", "told"), BAD.values(), ids=BAD)
def test_bad_folders_end_with_one_line(
    tmp_path: Path,
    spoil: Callable[[Path], object],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = make_run(tmp_path / "run", rows=20, seeds=1)
    spoil(folder)
    monkeypatch.setattr(sys, "argv", ["report.py", str(folder)])
    with pytest.raises(SystemExit) as left, warnings.catch_warnings():
        entry(main)
    assert left.value.code == DataError.code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_arrays_that_hold_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "figures.npz", before=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a readable npz"):
        read_sample(tmp_path)


def test_unwritable_place_is_a_settings_error(tmp_path: Path) -> None:
    folder = bare(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        write_report(folder)
    assert not list(folder.glob("*.tmp*"))
    assert not list(folder.glob(".*.tmp"))


def test_damaged_study(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", best=False)
    (study / "trials.json").write_text('{"trials": 3}')
    with pytest.raises(TesseraError, match="lacks a list of trials"):
        write_report(study)
