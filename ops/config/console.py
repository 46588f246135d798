"""What a run tells: one live line on a terminal, plain lines elsewhere, nothing with `--quiet`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Console:
    """Words go to standard output, or to standard error where that must stay JSON; progress goes to standard error."""

    quiet: bool = False
    json_only: bool = False
    _live: bool = field(default=False, init=False)

    def say(self, text: str = "") -> None:
        """A line of results or of the plan."""
        if self.quiet:
            return
        self._end_line()
        try:
            print(text, file=sys.stderr if self.json_only else sys.stdout, flush=True)
        except BrokenPipeError:  # its reader (`| head`) has gone; the training has not
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def warn(self, text: str) -> None:
        """A line that is shown even with `--quiet`."""
        self._end_line()
        print(f"warning: {text}", file=sys.stderr, flush=True)

    def progress(self, text: str, *, milestone: bool) -> None:
        """Where the run stands: each call redraws the live line; elsewhere only milestones are printed."""
        if self.quiet:
            return
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
            self._live = True
        elif milestone:
            print(text, file=sys.stderr, flush=True)

    def _end_line(self) -> None:
        if self._live:
            print(file=sys.stderr, flush=True)
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
