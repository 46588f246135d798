"""What a run tells: one live line on a terminal, plain lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

# what moves a terminal's cursor, colours it, turns text around, or cannot be encoded; newlines apart
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
CLEAR = "\r\x1b[2K"  # empties the terminal's line


def printable(text: str, *, lines: bool = False) -> str:
    """The text with control characters as escapes (`\\x1b`), so that a name of the data cannot act on a terminal.

    Newlines are escaped too, unless the text has several `lines`.
    """
    shown = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return shown if lines else shown.replace("\n", "\\n")


def tell(text: str, end: str = "\n") -> None:
    """Print to standard error; where it takes nothing (a full disk, a reader that has gone) the work goes on."""
    try:
        print(text, end=end, file=sys.stderr, flush=True)
    except OSError:
        _mute(sys.stderr)


def _mute(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass
class Console:
    """Words go to standard output, or to standard error where that must stay JSON; progress goes to standard error."""

    quiet: bool = False
    json_only: bool = False
    _live: bool = field(default=False, init=False)

    def say(self, text: str = "", *, lines: bool = False) -> None:
        """A line of results or of the plan, or several `lines` of them."""
        if self.quiet:
            return
        self._end_line()
        text = printable(text, lines=lines)
        if self.json_only:
            tell(text)
            return
        try:
            print(text, flush=True)
        except BrokenPipeError:  # its reader (`| head`) has gone; the training has not
            self.quiet = True
            _mute(sys.stdout)

    def warn(self, text: str) -> None:
        """A line that is shown even with `--quiet`."""
        self._end_line()
        tell(f"warning: {printable(text)}")

    def progress(self, text: str, *, milestone: bool) -> None:
        """Where the run stands: each call redraws the live line; elsewhere only milestones are printed."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            tell(f"{CLEAR}{printable(text)}", end="")
            self._live = True
        elif milestone:
            tell(printable(text))

    def _end_line(self) -> None:
        if self._live:
            tell("")
            self._live = False


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
        done = epoch - self.first + 1
        left = (time.monotonic() - self.started) / done * (self.last - epoch) if done > 3 else 0
        parts = [who, f"epoch {epoch} of 0-{self.last}"]
        if "train/loss" in metrics:
            parts.append(f"loss {metrics['train/loss']:.4f}")
        parts += [
            f"{k} {metrics[f'cluster/{k}']:.3f}" for k in ("silhouette", "modularity") if f"cluster/{k}" in metrics
        ]
        if "cluster/size_min" in metrics:
            parts.append(f"sizes {metrics['cluster/size_min']:.0f}-{metrics['cluster/size_max']:.0f}")
        return "  ".join([*parts, f"{_span(left)} left" if left >= 1 else ""]).rstrip()


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


NOTHING = "-"


def plain(value: Any) -> str:
    """A setting's value as a user writes it: floats in four digits at most."""
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
