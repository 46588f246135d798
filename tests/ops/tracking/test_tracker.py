"""The driver's side: URIs, secrets, a server that is required and one that is away at the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow_world import MlflowServer, Study, until

from ops.errors import ServiceError, SettingsError
from ops.tracking import tracker as driver
from ops.tracking.mlflow_sink import Tracker, check_uri, default_uri, fit


@pytest.mark.slow
def test_a_required_server_that_is_away_is_exit_6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PATIENCE", 3.0)
    server = MlflowServer(tmp_path)
    uri = server.uri.replace("http://", "http://me:geheim@")
    said: list[str] = []
    tracker = Tracker(tmp_path / "run", uri, require=True, say=said.append)
    with pytest.raises(ServiceError, match=r"cannot be reached .*--require-tracking") as error:
        tracker.start()
    assert error.value.code == 6
    assert tracker._process is not None
    assert tracker._process.poll() is not None, "no writer is left behind"
    everything = [str(error.value), *said, *(p.read_text() for p in (tmp_path / "run").rglob("*") if p.is_file())]
    assert "geheim" not in "".join(everything)


@pytest.mark.slow
def test_closing_does_not_wait_long_for_a_server_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "GRACE", 2.0)
    study = Study(tmp_path).start().epochs(3).end()
    said: list[str] = []
    tracker = Tracker(study.root, MlflowServer(tmp_path).uri, say=said.append)
    tracker.start()
    until(lambda: said)
    began = time.monotonic()
    left = tracker.close(600)
    assert (left.records, left.reason) == (36 + 5, "connection refused")
    assert time.monotonic() - began < 300, "a server that is away is given GRACE seconds, not all that there are"
    assert len(said) == 1


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host/x", "sqlite:///", "sqlite:///:memory:", "http:host", ""]
)
def test_a_uri_of_no_known_kind_is_refused_before_work(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="sqlite:////absolute"):
        Tracker(tmp_path / "run", uri)
    assert not (tmp_path / "run").exists()


def test_a_database_that_cannot_be_written_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        check_uri(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(SettingsError, match="cannot be written"):
        check_uri(f"sqlite:///{tmp_path}")


def test_the_default_uri_and_the_line_that_opens_the_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = default_uri(tmp_path / "a b")
    assert uri == f"sqlite:///{tmp_path}/a b/mlflow.db"
    assert (
        Tracker.ui_command(uri) == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b/mlflow.db'"
        " --host 127.0.0.1 --port 5000"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@mlflow.example:5000")
    assert Tracker.ui_command(default_uri(tmp_path)) == "https://***@mlflow.example:5000"


@pytest.mark.parametrize(
    "uri",
    [
        "me:geheim@host/mlflow", "sqlite://me:geheim@host", "ftp://me:geheim@host/x",
        "mongodb://host/?password=geheim", "postgresql:u:geheim@host",
    ],
)  # fmt: skip
def test_a_refused_uri_is_not_printed_with_its_secrets(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        check_uri(uri)
    assert "geheim" not in str(error.value)


def test_a_long_value_says_that_it_was_cut() -> None:
    assert fit("x" * 6000) == "x" * 6000
    assert fit("x" * 6001).endswith("x ... [cut, 6001 characters]")
    assert len(fit("x" * 6001)) == 6000
