"""What is told where: results on standard output, progress and warnings on standard error, nothing twice."""

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


@pytest.mark.parametrize(("quiet", "json_only", "out", "err"), [
    (False, False, "plan\n", "warning: careful\nepoch 10\n"),
    (False, True, "", "plan\nwarning: careful\nepoch 10\n"),
    (True, False, "", "warning: careful\n"),
    (True, True, "", "warning: careful\n"),
])  # fmt: skip
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
c.progress("seed 0  epoch 1", milestone=False, share=0.5)
c.warn("careful")
c.progress("seed 0  epoch 2", milestone=False, share=0.9)
c.progress("seed 0  epoch 3", milestone=True, share=1.0)
c.say("done")
c.progress("looking", milestone=False)
c.say("bye")
"""


def on_a_terminal(code: str, ends: int = 0) -> str:
    """What a process writes to a terminal of its own."""
    pytest.importorskip("rich")  # an environment made before it was a dependency
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=environment, stdout=theirs, stderr=theirs, check=False)
    os.close(theirs)
    text = os.read(ours, 10_000).decode().replace("\r\n", "\n")
    os.close(ours)
    assert done.returncode == ends, text
    return text


def test_on_a_terminal_a_block_is_redrawn_and_taken_away_before_other_words():
    blocks = on_a_terminal(TALK).split("\x1b[?25l")[1:]  # each begins where the cursor is hidden
    left = [block.split("\x1b[?25h")[1].split("\x1b[2K")[-1] for block in blocks]  # after the last cleared line
    assert left == ["warning: careful\n", "seed 0  epoch 3\ndone\n", "bye\n"]
    assert "━" in blocks[0]
    assert "━" not in blocks[2]


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


@pytest.mark.parametrize(("name", "shown"), [
    ("\x1b[2J\x07red", r"\x1b[2J\x07red"),
    ("two\nlines\r", r"two\nlines\r"),
    ("\u202eevil\u2028\x9b1m", r"\u202eevil\u2028\x9b1m"),
    ("caf\udce9", r"caf\udce9"),  # a file's name that is not UTF-8
])  # fmt: skip
def test_control_characters_of_names_are_escaped(capsys, name, shown):
    console = Console()
    console.say(f"  {name}")
    console.warn(name)
    console.progress(name, milestone=True)
    assert capsys.readouterr() == (f"  {shown}\n", f"warning: {shown}\n{shown}\n")
    console.say("a table\nof two lines", lines=True)
    assert capsys.readouterr().out == "a table\nof two lines\n"


FULL = """
import sys
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.errors import DataError
def main(argv):
    c = Console()
    c.warn("careful")
    c.progress("epoch 1", milestone=True)
    if argv:
        raise DataError("no data")
entry(main)
"""


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["fail"], 3)])
def test_a_full_disk_under_standard_error_ends_nothing(arguments, code):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-c", FULL, *arguments]
        assert subprocess.run(command, cwd=PROJECT, stderr=full, check=False).returncode == code


INTERRUPTED = """
from ops.config.console import Console
from ops.config.exit_codes import entry
from ops.errors import Interrupted
def main(argv):
    Console().progress("epoch 3  6 s left", milestone=False)
    raise Interrupted("stopped after epoch 3")
entry(main)
"""


def test_an_interrupt_on_a_terminal_leaves_a_clean_line():
    text = on_a_terminal(INTERRUPTED, 130)
    first, *_, last = text.split("\x1b[2K")[-1].splitlines()  # between them perhaps the variables that a test has set
    assert first == "stopped after epoch 3"
    assert last.startswith("resume with: ")
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is there again
