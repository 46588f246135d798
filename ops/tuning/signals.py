"""How a signal ends a search, and how its trials, here or on other machines, tell that from a pruning."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ops.errors import ServiceError
from ops.storage import object_store as s3
from ops.training.trainer import stop_signals

INTERRUPTED = ".interrupted"


@contextmanager
def interruptible(folder: Path, there: s3.Location | None) -> Iterator[Callable[[], bool]]:
    """A first SIGINT or SIGTERM has Ray Tune end the search (it listens to SIGUSR1), a second one ends it at once.

    Yields whether there was one. Ray Tune ends a trial in the same way as a pruned one; a file in the study's `folder`,
    and `there` where the study is on S3, tells the trial which.
    """
    (folder / INTERRUPTED).unlink(missing_ok=True)
    if there is not None:
        s3.delete(there / INTERRUPTED)

    def first() -> None:
        (folder / INTERRUPTED).touch()
        if there is not None:
            with suppress(ServiceError):  # trials on other machines take it for the scheduler's end then
                s3.write(there / INTERRUPTED, b"", patient=False)
        if not callable(signal.getsignal(signal.SIGUSR1)):
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGUSR1)

    with stop_signals(first) as asked:
        yield asked


def was_interrupted(folder: Path, there: s3.Location | None) -> bool:
    """Whether a signal has ended the search whose study is in `folder`, and `there` on S3."""
    if there is not None:
        with suppress(ServiceError):
            return s3.read(there / INTERRUPTED) is not None
    return (folder / INTERRUPTED).exists()
