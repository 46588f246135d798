"""Whether a study, trial, run or seed is at work or has ended, and with which figures: `status.json` in its folder.

It is written when work on the folder begins and when it ends; `history.jsonl` beside it holds a seed's epochs. Both
together are the record that `ops.tracking` sends to MLflow.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from ops.atomic_io import read_json, write_json
from ops.errors import Interrupted, TesseraError

STATUS, HISTORY = "status.json", "history.jsonl"
FIELDS = {"id": str, "name": str, "params": dict, "tags": dict, "state": str, "started": int, "ended": int | None}
Status = dict[str, Any]
RunState = Literal["RUNNING", "FINISHED", "KILLED", "FAILED"]


class Ending(TypedDict, total=False):
    """What work leaves: `metrics` at `step`, the name under which its `model` is registered, further `tags`."""

    metrics: Mapping[str, float | None]
    step: int
    model: str
    tags: dict[str, str]


def begin(folder: Path, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
    """Note that work on `folder` begins or goes on. A parameter keeps its first value, as MLflow demands.

    Raises ResourceError on a full disk, SettingsError where the folder cannot be written.
    """
    old = _read(folder / STATUS) or {"id": uuid.uuid4().hex, "started": _now(), "params": {}, "tags": {}}
    params = {key: str(value) for key, value in params.items()} | old["params"]
    tags = old["tags"] | dict(tags)
    write_json(folder / STATUS, old | {"name": name, "state": "RUNNING", "ended": None, "params": params, "tags": tags})


def end(folder: Path, state: RunState, **outcome: Unpack[Ending]) -> None:
    """Note how work on `folder` ended and what it left; raises as `begin` does."""
    old = _read(folder / STATUS) or {}
    tags = old.get("tags", {}) | outcome.get("tags", {})
    write_json(folder / STATUS, {**old, **outcome, "state": state, "ended": _now(), "tags": tags})


@contextmanager
def recorded(folder: Path, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> Iterator[Ending]:
    """The folder is RUNNING while inside, then FINISHED, KILLED (by a signal or a scheduler) or FAILED.

    What the caller puts into the yielded dictionary is noted with FINISHED.
    """
    begin(folder, name, params, tags)
    outcome: Ending = {}
    try:
        yield outcome
    except BaseException as error:
        killed = isinstance(error, Interrupted) or not isinstance(error, Exception)
        with suppress(TesseraError):  # a full disk must not hide the error that ended the work
            end(folder, "KILLED" if killed else "FAILED")
        raise
    end(folder, "FINISHED", **outcome)


def finished(folder: Path) -> bool:
    """Whether work on the folder has ended well: report, files and model, which follow the results, exist too."""
    return (read_json(folder / STATUS) or {}).get("state") == "FINISHED"


def folders(root: Path) -> Iterator[tuple[Path, Status]]:
    """The folders of a study or run that have a sound status, with it: the root, trials and seeds, parents first."""
    for level in ("", "*/", "*/*/"):
        for path in sorted(root.glob(level + STATUS)):
            status = _read(path)
            if status and not linked(path, root):
                yield path.parent, status


def _read(path: Path) -> Status | None:
    """A sound status, None where there is none."""
    status = read_json(path) or {}
    metrics = status.get("metrics", {})
    sound = all(isinstance(status.get(key), kind) for key, kind in FIELDS.items()) and isinstance(metrics, dict)
    numbers = sound and all(value is None or isinstance(value, int | float) for value in metrics.values())
    return status if numbers and isinstance(status.get("step", 0), int) else None


def linked(path: Path, root: Path) -> bool:
    """Whether `path`, something in it, or a folder between it and `root` is a symbolic link."""
    return any(each.resolve() != root.resolve() / each.relative_to(root) for each in (path, *path.rglob("*")))


def _now() -> int:
    return time.time_ns() // 1_000_000
