"""The driver's copies of a search's trials that ran on other machines, by way of the bucket that the study is on."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.atomic_io import inside
from ops.errors import ServiceError, SettingsError
from ops.storage import object_store as s3
from ops.storage.mirror import is_marker, mirrored
from ops.storage.run_dir import MARK_FILE, TRIAL, lock
from ops.storage.status import HISTORY, STATUS

EVERY = 10.0  # seconds between looks


class Trials:
    """`folder` is the study here, `place` there. A trial whose image is of a folder here is left alone."""

    def __init__(self, folder: Path, place: s3.Location) -> None:
        self.folder, self.place = folder, place
        self._have: dict[str, s3.Stored] = {}  # of the copies
        self._local: dict[tuple[str, str], bool] = {}  # trial and time of its mark -> whether it is a folder's here

    def pull(self, *, records: bool = False) -> None:
        """Copy what is new, but no checkpoints; `records`: only what MLflow is sent meanwhile. Raises ServiceError."""
        trials: dict[str, dict[str, s3.Stored]] = {}
        for name, stored in s3.listing(self.place, start=TRIAL, patient=not records).items():
            trial, _, rest = name.partition("/")
            trials.setdefault(trial, {})[rest] = stored
        for trial, names in trials.items():
            if MARK_FILE not in names or self._is_local(trial, names[MARK_FILE].stamp):
                continue
            wanted = [n for n in names if mirrored(n, ("checkpoints",)) and "/checkpoints/" not in n]
            wanted = [n for n in wanted if not records or n.rpartition("/")[2] in (HISTORY, STATUS)]
            wanted = [n for n in wanted if self._have.get(f"{trial}/{n}") != names[n]]
            local = inside(self.folder, trial)
            local.mkdir(exist_ok=True)
            with suppress(SettingsError, s3.Missing), lock(local):  # else it has just begun here, or anew elsewhere
                for name in sorted(wanted, key=lambda n: (is_marker(n), n)):
                    path = inside(self.folder, f"{trial}/{name}")
                    stored = s3.download(self.place / trial / name, path, patient=not records)
                    self._have[f"{trial}/{name}"] = stored

    def _is_local(self, trial: str, stamp: str) -> bool:
        if (trial, stamp) not in self._local:
            mark, writer = s3.read(self.place / trial / MARK_FILE), None
            with suppress(OSError, ValueError):
                writer = json.loads((self.folder / trial / MARK_FILE).read_text()).get("id")
            self._local[trial, stamp] = mark is not None and mark.decode(errors="replace") == writer
        return self._local[trial, stamp]


@contextmanager
def followed(folder: Path, place: s3.Location | None, warn: Callable[[str], None]) -> Iterator[None]:
    """While inside, the trials' records come here as they grow; at the end, all that is kept of the trials.

    Raises ServiceError at the end where storage cannot be reached; before, that is told once.
    """
    if place is None:
        yield
        return
    trials, over = Trials(folder, place), threading.Event()

    def follow() -> None:
        warned = False
        while not over.wait(EVERY):
            try:
                trials.pull(records=True)
            except ServiceError as error:
                if not warned:
                    warn(f"{error.args[0].rpartition(';')[0]}; the trials go on, MLflow hears of them later")
                warned = True

    thread = threading.Thread(target=follow, name="trials", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    trials.pull()
