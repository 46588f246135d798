"""Tracking URIs: which are taken, and how they are shown."""

import pytest

from ops.config.tracking_uri import check_uri, default_uri, ui_command
from ops.errors import SettingsError


@pytest.mark.parametrize(
    "uri", ["./mlruns", "file:///tmp/mlruns", "ftp://host/x", "sqlite:///", "sqlite:///:memory:", "http:host", ""]
)
def test_a_uri_of_no_known_kind_is_refused(uri):
    with pytest.raises(SettingsError, match="sqlite:////absolute"):
        check_uri(uri)


def test_a_database_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        check_uri(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(SettingsError, match="cannot be written"):
        check_uri(f"sqlite:///{tmp_path}")


def test_the_default_uri_and_the_line_that_opens_the_ui(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = default_uri(tmp_path / "a b")
    assert uri == f"sqlite:///{tmp_path}/a b/mlflow.db"
    command = f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a b/mlflow.db' --host 127.0.0.1 --port 5000"
    assert ui_command(uri) == command
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@mlflow.example:5000")
    assert ui_command(default_uri(tmp_path)) == "https://***@mlflow.example:5000"
