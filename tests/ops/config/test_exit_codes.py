"""The outer edge: every ending has its exit code and its one line."""

import re

import pytest

from ops.config.exit_codes import VARIABLES, entry
from ops.errors import DataError, Interrupted, ResourceError


def ending(monkeypatch, capsys, error, argv=("train.py",)):
    def main(_):
        raise error

    monkeypatch.setattr("sys.argv", list(argv))
    with pytest.raises(SystemExit) as caught:
        entry(main)
    return caught.value.code, capsys.readouterr().err


@pytest.mark.parametrize(("error", "code", "words"), [
    (DataError("a: b"), 3, "error: a: b"),
    (ResourceError("a: b"), 4, "error: a: b"),
    (MemoryError(), 4, "error: out of memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 4, "error: out of memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate"), 4, "error: out of memory"),
    (OSError(28, "No space left on device", "x"), 4, "error: x: No space left on device"),
    (KeyboardInterrupt(), 130, "interrupted"),
])  # fmt: skip
def test_each_ending_has_its_code(monkeypatch, capsys, error, code, words):
    found, text = ending(monkeypatch, capsys, error)
    assert found == code
    assert text.startswith(words)


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch, capsys):
    def main(_):
        raise RuntimeError("ours")

    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(RuntimeError, match="ours"):
        entry(main)


@pytest.mark.parametrize("uri", [
    "http://me:secret@host:5000", "postgresql://me:it's secret@host/db", "mysql://host/db?passwd=secret",
    "mssql+pyodbc:///?odbc_connect=DRIVER={ODBC Driver 18};SERVER=host;PWD=my secret",
])  # fmt: skip
@pytest.mark.parametrize("form", ["--tracking-uri {}", "--tracking-uri={}"])
def test_no_ending_shows_a_password(monkeypatch, capsys, uri, form):
    argv = ("train.py", "--fresh", *form.replace(" ", "\0").format(uri).split("\0"))
    _, text = ending(monkeypatch, capsys, KeyboardInterrupt(), argv)
    assert "secret" not in text
    assert "--fresh" not in text
    assert re.search("resume with: python train.py '?--tracking-uri", text)
    for error in (DataError(f"{uri} is no data"), Interrupted(f"stopped at {uri}")):
        assert "secret" not in ending(monkeypatch, capsys, error)[1]


@pytest.mark.parametrize(("name", "value", "shown"), [
    ("TESSERA_DATA", "/data sets", "with TESSERA_DATA='/data sets' in the environment,\nresume with: "),
    ("AWS_PROFILE", "work", "with AWS_PROFILE=work in the environment,\nresume with: python train.py"),
    ("MLFLOW_TRACKING_URI", "http://host:5000", "with MLFLOW_TRACKING_URI=http://host:5000 in the environment,"),
    ("MLFLOW_TRACKING_URI", "http://me:secret@host:5000", "interrupted\nresume with: python train.py"),
    ("AWS_SECRET_ACCESS_KEY", "secret", "interrupted\nresume with: python train.py"),
])  # fmt: skip
def test_the_command_to_resume_with_carries_what_it_needs(monkeypatch, capsys, name, value, shown):
    for needed in VARIABLES:
        monkeypatch.delenv(needed, raising=False)
    monkeypatch.setenv(name, value)
    _, text = ending(monkeypatch, capsys, KeyboardInterrupt())
    assert shown in text
    assert "secret" not in text


def test_an_error_is_one_line_without_control_characters(monkeypatch, capsys):
    _, text = ending(monkeypatch, capsys, DataError("a\nb\x1b[2J: no such file"))
    assert text == "error: a\\nb\\x1b[2J: no such file\n"


def test_too_few_open_files_are_a_lack_of_resources(monkeypatch, capsys):
    code, text = ending(monkeypatch, capsys, OSError(24, "Too many open files", "x"))
    assert code == 4
    assert "ulimit -n" in text
