"""TensorBoard's files of a seed, where `--tensorboard` asks for them: a view of history.jsonl, as MLflow's are."""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ops.errors import SettingsError


@contextmanager
def board(folder: Path) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yields what writes epochs to `folder`/tensorboard, emptied before; SettingsError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SettingsError("--tensorboard: needs its package; pip install 'tessera[tensorboard]'") from None
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    with SummaryWriter(str(folder / "tensorboard")) as writer:

        def write(record: Mapping[str, float]) -> None:
            for name, value in record.items():
                if name != "epoch" and math.isfinite(value):
                    writer.add_scalar(name, value, int(record["epoch"]), walltime=record.get("sys/time"))

        yield write
