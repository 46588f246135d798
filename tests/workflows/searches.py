"""Searches by `workflows/tune_hsan.py` as a user starts them: their data, their command, what they leave running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
from processes import PROJECT, environment

from ops.data.io.builder import Raw
from ops.data.io.npz import write_npz
from ops.data.synthetic.planted_partition import planted_graph

EPOCHS, TRIALS = 30, 5


def command(folder: Path, *more: str) -> list[str]:
    return [
        "--dataset", str(folder / "data.npz"), "--out", str(folder), "--name", "study", "--embedding-dim", "16",
        "--epochs", str(EPOCHS), "--update-every", "3", "--search", "lr,temperature", "--trials", str(TRIALS),
        "--concurrent", "1", "--threads", "1", "--seeds", "2", *more,
    ]  # fmt: skip


def write_data(folder: Path, *, permuted: bool) -> None:
    data, labels = planted_graph(200, 4, separation=1.5, mixing=0.4)
    if permuted:
        labels = np.random.default_rng(1).permutation(labels)
    folder.mkdir(exist_ok=True)
    write_npz(folder / "data.npz", Raw("data", "data", data.x, data.edge_index, labels=labels))


class Search:
    """A search as a user starts it; everything that it starts in turn is found by a mark in its environment."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.mark = f"TESSERA_TEST_MARK={uuid.uuid4().hex}"
        key, _, value = self.mark.partition("=")
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROJECT / "workflows" / "tune_hsan.py"), *command(folder, *more)],
                env=environment() | {key: value}, cwd=folder, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def ended(self) -> bool:
        return self.process.poll() is not None

    def left(self) -> dict[int, str]:
        """The processes that carry the mark, with their names."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes() and int(path.name) != os.getpid():
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:150]
            except OSError:
                continue
        return found

    def wait(self, seconds: float = 150) -> int:
        return self.process.wait(seconds)

    def clean(self) -> dict[int, str]:
        """Wait for everything to end by itself; kill, and return, what has not."""
        limit = time.monotonic() + 20
        while (left := self.left()) and time.monotonic() < limit:
            time.sleep(0.2)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(30)
        return left
