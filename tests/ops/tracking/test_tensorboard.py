"""`--tensorboard`: its files hold what history.jsonl holds; without the package one line says what to install."""

import sys

import pytest

from ops.errors import SettingsError
from ops.tracking.tensorboard import board


def test_every_epoch_is_in_the_files_once_and_again_after_a_resumption(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 3):  # a process that was killed, and the one that goes on from its history
        with board(tmp_path) as show:
            for epoch in range(epochs):
                show({"epoch": epoch, "train/loss": 2.0 - epoch, "cluster/ari": float("nan"), "sys/time": 5.0})
    (file,) = (tmp_path / "tensorboard").iterdir()
    stored = EventAccumulator(str(file)).Reload()
    assert stored.Tags()["scalars"] == ["train/loss", "sys/time"]
    assert [(each.step, each.value) for each in stored.Scalars("train/loss")] == [(0, 2.0), (1, 1.0), (2, 0.0)]


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingsError, match=r"--tensorboard: needs its package; pip install"), board(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
