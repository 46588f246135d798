"""A warm start of CaEGCN keeps the number of clusters: its weights have that shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.errors import SettingsError
from workflows import train


def test_another_number_of_clusters_is_refused(
    untracked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
    argv = ["caegcn", "--dataset", "planted:nodes=60,clusters=3", "--epochs", "2", "--pretrain-epochs", "1",
            "--widths", "8,8,8", "--no-report", "--no-explain", "--threads", "1", "--quiet",
            "--out", str(tmp_path)]  # fmt: skip
    train.main([*argv, "--name", "first"])
    run = str(tmp_path / "first")
    with pytest.raises(SettingsError, match=r"--n-clusters 4: .* was trained with 3; a warm start needs the same"):
        train.main([*argv, "--name", "second", "--warm-start", run, "--n-clusters", "4"])
