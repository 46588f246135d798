"""What tests of `ops` share."""

import pytest


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder of the test's own with the cache below it; no data folder is set."""
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TESSERA_DATA", raising=False)
    return tmp_path
