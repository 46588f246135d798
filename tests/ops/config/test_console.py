"""What is told where: results on standard output, progress and warnings on standard error, nothing twice."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.config.console import Clock, Console

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("quiet", "json_only", "out", "err"),
    [
        (False, False, "plan\n", "warning: careful\nepoch 10\n"),
        (False, True, "", "plan\nwarning: careful\nepoch 10\n"),
        (True, False, "", "warning: careful\n"),
        (True, True, "", "warning: careful\n"),
    ],
)
def test_where_each_word_goes(capsys, quiet, json_only, out, err):
    console = Console(quiet, json_only)
    console.say("plan")
    console.warn("careful")
    console.progress("epoch 9", milestone=False)
    console.progress("epoch 10", milestone=True)
    assert capsys.readouterr() == (out, err)


TALK = """
from ops.config.console import Console
c = Console()
c.progress("epoch 1", milestone=False)
c.progress("epoch 2", milestone=True)
c.warn("careful")
c.progress("epoch 3", milestone=False)
c.say("done")
c.say("bye")
"""


def test_on_a_terminal_one_line_is_redrawn_and_ended_before_other_words():
    ours, theirs = pty.openpty()
    made = subprocess.run([sys.executable, "-c", TALK], cwd=PROJECT, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    text = os.read(ours, 10_000).decode().replace("\r\n", "\n")
    os.close(ours)
    clear = "\r\x1b[2K"
    assert made.returncode == 0
    assert text == f"{clear}epoch 1{clear}epoch 2\nwarning: careful\n{clear}epoch 3\ndone\nbye\n"


def test_the_line_tells_loss_indices_sizes_and_what_is_left():
    clock = Clock(0, 399)
    metrics = {"train/loss": 8.12345, "cluster/silhouette": 0.1234, "cluster/modularity": 0.7104}
    metrics |= {"cluster/size_min": 98.0, "cluster/size_max": 812.0, "eval/acc": 0.9}
    clock.started -= 120  # as if 120 epochs had taken two minutes
    line = clock.line("seed 0", 119, metrics)
    assert (
        line == "seed 0  epoch 119 of 0-399  loss 8.1235  silhouette 0.123  modularity 0.710  sizes 98-812  5 min left"
    )
    assert "acc" not in line


@pytest.mark.parametrize(
    ("seconds", "left"), [(0.001, ""), (30, "  30 s left"), (600, "  10 min left"), (36_000, "  10.0 h left")]
)
def test_the_time_left_in_words(seconds, left):
    clock = Clock(10, 19)
    clock.started -= seconds
    assert clock.line("s", 14, {}) == f"s  epoch 14 of 0-19{left}"


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(-1, 2000))
def test_a_line_can_be_made_for_any_epoch(first, last, epoch):
    line = Clock(first, last).line("seed 3", epoch, {"train/loss": float("nan")})
    assert line.startswith(f"seed 3  epoch {epoch} of 0-{last}  loss nan")
    assert "\n" not in line
