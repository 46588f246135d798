"""How a signal ends a search, and how its trials, here or on other machines, tell that from a pruning."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.errors import ServiceError
from ops.storage import object_store as s3

INTERRUPTED = ".interrupted"


@contextmanager
def interruptible(folder: Path, there: s3.Location | None) -> Iterator[list[int]]:
    """A first SIGINT or SIGTERM has Ray Tune end the search (it listens to SIGUSR1), a second one ends it at once.

    Yields the signals so far. Ray Tune ends a trial in the same way as a pruned one; a file in the study's `folder`,
    and `there` where the study is on S3, tells the trial which.
    """
    asked: list[int] = []
    (folder / INTERRUPTED).unlink(missing_ok=True)
    if there is not None:
        s3.delete(there / INTERRUPTED)

    def handler(number: int, frame: object) -> None:
        asked.append(number)
        (folder / INTERRUPTED).touch()
        if there is not None and len(asked) == 1:
            with suppress(ServiceError):  # trials on other machines take it for the scheduler's end then
                s3.write(there / INTERRUPTED, b"", patient=False)
        if len(asked) > 1 or not callable(signal.getsignal(signal.SIGUSR1)):
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGUSR1)

    old = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)


def was_interrupted(folder: Path, there: s3.Location | None) -> bool:
    """Whether a signal has ended the search whose study is in `folder`, and `there` on S3."""
    if there is not None:
        with suppress(ServiceError):
            return s3.read(there / INTERRUPTED) is not None
    return (folder / INTERRUPTED).exists()
