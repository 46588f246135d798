"""Searches by `workflows/tune_hsan.py` as a user starts them: their data, their command, what they leave running."""

import uuid
from pathlib import Path

import numpy as np
from processes import MARK, RAY, Nursery, end_marked

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

    def __init__(self, nursery: Nursery, folder: Path, *more: str) -> None:
        self.mark = uuid.uuid4().hex
        variables = {MARK: self.mark}
        self.pid = nursery.start(
            command(folder, *more), program="tune_hsan", imports=RAY, folder=folder, variables=variables
        )

    def left_behind(self) -> dict[int, str]:
        """What it has started and left running, which is killed."""
        return end_marked(self.mark, 60)
