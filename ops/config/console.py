"""What a run tells: one live block on a terminal, plain lines elsewhere, nothing with `--quiet`."""

import atexit
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TextIO

# what moves a terminal's cursor, colours it, turns text around, or cannot be encoded; newlines apart
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
REDRAWN = 0.1  # seconds between two states of the live block


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters as escapes (`\\x1b`), so that a name of the data cannot act on a terminal.

    Newlines are escaped too, unless the text has several `lines`.
    """
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return shown if lines else shown.replace("\n", "\\n")


def tell(text: str) -> None:
    """Print to standard error; where it takes nothing (a full disk, a reader that has gone) the work goes on."""
    _block().end()
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _mute(sys.stderr)


def _mute(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Block:
    """The one live block of a process's terminal, below all other words: the newest text and a bar."""

    def __init__(self) -> None:
        self._live: Any = None
        self._drawn = 0.0

    def show(self, text: str, share: float | None) -> None:
        """Draw the newest state; `share`: how much of the work is done, where that is a number."""
        from rich.console import Console as Terminal
        from rich.console import Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if time.monotonic() - self._drawn < REDRAWN:
            return
        if self._live is None:
            self._live = Live(
                console=Terminal(stderr=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        bar = Table.grid(padding=(0, 1))
        if share is not None:
            bar.add_row(ProgressBar(total=1.0, completed=share, width=50), f"{share:.0%}")
        self._live.update(Group(bar, Text(text)), refresh=True)
        self._drawn = time.monotonic()

    def end(self) -> None:
        """Take the block away, so that other words stand on a clean line."""
        if self._live is not None:
            live, self._live, self._drawn = self._live, None, 0.0
            with suppress(OSError):
                live.stop()


@cache
def _block() -> _Block:
    block = _Block()
    atexit.register(block.end)  # the cursor is shown again, however the process ends
    return block


@dataclass
class Console:
    """Words go to standard output, or to standard error where that must stay JSON; progress goes to standard error."""

    quiet: bool = False
    json_only: bool = False

    def say(self, text: str = "", *, lines: bool = False) -> None:
        """A line of results or of the plan, or several `lines` of them."""
        if self.quiet:
            return
        text = printable(text, lines=lines)
        if self.json_only:
            tell(text)
            return
        _block().end()
        try:
            print(text, flush=True)
        except BrokenPipeError:  # its reader (`| head`) has gone; the training has not
            self.quiet = True
            _mute(sys.stdout)

    def warn(self, text: str) -> None:
        """A line that is shown even with `--quiet`."""
        tell(f"warning: {printable(text)}")

    def progress(self, text: str, *, milestone: bool, share: float | None = None) -> None:
        """Where the run stands, and the `share` that is done: the live block; elsewhere milestones are printed."""
        if self.quiet:
            return
        if sys.stderr.isatty() and share != 1:  # the end of a training stays
            with suppress(OSError):
                _block().show(printable(text), share)
        elif milestone:
            tell(printable(text))


@dataclass
class Clock:
    """Epochs done and time spent since `first`, for the estimate of what is left."""

    first: int
    last: int
    started: float = field(default_factory=time.monotonic)

    def line(self, who: str, epoch: int, metrics: Mapping[str, float]) -> str:
        """`seed 0  epoch 119 of 0-399  loss 8.1234  silhouette 0.123  modularity 0.71  sizes 98-812  3 min left`.

        The first epochs pay for the start and say nothing of the others: no estimate before the fourth.
        """
        parts = [who, f"epoch {epoch} of 0-{self.last}"]
        if "train/loss" in metrics:
            parts.append(f"loss {metrics['train/loss']:.4f}")
        parts += [
            f"{k} {metrics[f'cluster/{k}']:.3f}" for k in ("silhouette", "modularity") if f"cluster/{k}" in metrics
        ]
        if "cluster/size_min" in metrics:
            parts.append(f"sizes {metrics['cluster/size_min']:.0f}-{metrics['cluster/size_max']:.0f}")
        return "  ".join([*parts, self.left(epoch)]).rstrip()

    def left(self, epoch: int) -> str:
        """`5 min left` after an epoch; "" where that is less than a second, or not to be said yet."""
        done = epoch - self.first + 1
        left = (time.monotonic() - self.started) / done * (self.last - epoch) if done > 3 else 0
        return f"{_span(left)} left" if left >= 1 else ""

    def share(self, epoch: int) -> float:
        """How much of all epochs is done after this one, 0 to 1."""
        return (epoch + 1) / (self.last + 1)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


NOTHING = "-"


def as_typed(value: object) -> str:
    """A setting's value as a user writes it: floats in four digits at most."""
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
