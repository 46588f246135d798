"""Tracking URIs: which are taken, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from ops.config.redact import mask

from ops.config.tracking_uri import check_uri, default_uri, ui_command
from ops.errors import SettingsError


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host/x", "sqlite:///", "sqlite:///:memory:", "http:host", ""]
)
def test_a_uri_of_no_known_kind_is_refused(uri: str) -> None:
    with pytest.raises(SettingsError, match="sqlite:////absolute"):
        check_uri(uri)


def test_a_database_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        check_uri(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(SettingsError, match="cannot be written"):
        check_uri(f"sqlite:///{tmp_path}")


def test_the_default_uri_and_the_line_that_opens_the_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = default_uri(tmp_path / "a b")
    assert uri == f"sqlite:///{tmp_path}/a b/mlflow.db"
    command = f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b/mlflow.db' --host 127.0.0.1 --port 5000"
    assert ui_command(uri) == command
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@mlflow.example:5000")
    assert ui_command(default_uri(tmp_path)) == "https://***@mlflow.example:5000"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:p@ss@host:1/x", "http://***@host:1/x"),
        ("request to https://token@host failed", "request to https://***@host failed"),
        ("postgresql+psycopg://u:p@h/db?sslmode=require", "postgresql+psycopg://***@h/db?sslmode=require"),
        ("postgresql://h/db?user=u&password=p&x=1", "postgresql://h/db?user=u&password=***&x=1"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_secrets_are_masked_and_nothing_else(text: str, masked: str) -> None:
    assert mask(text) == masked
