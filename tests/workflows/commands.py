"""Commands run in this process through the outer edge of a workflow, as a user's shell would see them."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from ops.config.exit_codes import entry
from workflows import train

# Small, and without MLflow's writer unless a test lets a training begin.
TINY = "hsan --dataset planted:nodes=60,clusters=3 --epochs 3 --embedding-dim 8 --no-report --threads 1"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines on standard error that are errors."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


class Shell:
    """`shell("hsan --epochs 3")` in a folder of its own; `main` is another workflow's."""

    def __init__(self, capsys, monkeypatch, folder: Path) -> None:
        self.folder, self._capsys, self._monkeypatch = folder, capsys, monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def __call__(self, line: str, main=train.main, program: str = "workflows/train.py") -> Ended:
        self._monkeypatch.setattr(sys, "argv", [program, *shlex.split(line)])
        code = 0
        self._capsys.readouterr()
        try:
            entry(main)
        except SystemExit as ending:
            code = int(ending.code or 0)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


def temporary(folder: Path) -> list[str]:
    """What looks half-written below a folder."""
    paths = [p for p in folder.rglob("*") if p.name.endswith((".tmp", ".part")) or p.name in (".write-test", "tmp")]
    return [str(p.relative_to(folder)) for p in paths]
