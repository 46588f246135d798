"""From the command to a method's `train` there are at most four frames of ours: a reader can follow them."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest

import ops
import trainers.hsan
from ops.errors import Interrupted
from workflows.train import main

PROJECT = Path(ops.__file__).parents[1]


def test_at_most_four_frames_lead_from_the_command_to_the_method(untracked, tmp_path, monkeypatch):
    frames = []

    def train(settings, data, run):
        frames.extend(frame.filename for frame in inspect.stack())
        raise Interrupted("seen enough")

    monkeypatch.setattr(trainers.hsan, "METHOD", replace(trainers.hsan.METHOD, train=train))
    argv = ["hsan", "--dataset", "planted:nodes=40,clusters=2", "--epochs", "1", "--out", str(tmp_path)]
    with pytest.raises(Interrupted):
        main(argv)
    above = frames[: next(i for i, name in enumerate(frames) if name.endswith("workflows/train.py"))]
    between = [name for name in above if name.startswith((str(PROJECT / "ops"), str(PROJECT / "trainers")))]
    assert len(between) + 1 <= 4  # with the method's own frame
