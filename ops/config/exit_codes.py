"""The outer edge of every workflow: errors become one line and the documented exit code."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from ops.atomic_io import FULL
from ops.config.console import CLEAR, printable, tell
from ops.errors import Interrupted, ResourceError, TesseraError
from ops.masking import command, mask

FILES = 4096  # that a training with workers can have open
_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch's words, on the CPU and on CUDA


# What a resumed run needs of the environment. Credentials are never shown.
_NEEDED = (
    "TESSERA_DATA", "TESSERA_CACHE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "AWS_PROFILE", "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
)  # fmt: skip


def entry(main: Callable[[list[str]], None]) -> None:
    """Run `main(argv)` and leave with its exit code: 0, a TesseraError's, 130 for an interrupt, 1 for a bug of ours."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an interrupt wherever nobody listens for it
    try:
        main(sys.argv[1:])
    except (Interrupted, KeyboardInterrupt) as error:
        _end(f"{mask(str(error)) or 'interrupted'}", Interrupted.code, f"resume with: {resume_command()}")
    except TesseraError as error:
        _end(f"error: {mask(str(error))}", error.code)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        _end("error: out of memory; give smaller settings (--help) or a machine with more", ResourceError.code)
    except OSError as error:
        if error.errno not in (*FULL, errno.EMFILE, errno.ENFILE):
            raise
        where = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in FULL else f"allow more open files (ulimit -n {FILES})"
        _end(f"error: {where}{error.strerror}; {remedy} and start the same command again", ResourceError.code)


def resume_command() -> str:
    """The command that goes on with this run, with what it needs of the environment."""
    values = {name: os.environ[name] for name in _NEEDED if os.environ.get(name)}
    needed = [f"{name}={shlex.quote(value)}" for name, value in values.items() if mask(value) == value]
    return " ".join([*needed, command(["python", *(a for a in sys.argv if a != "--fresh")])])


def _end(text: str, code: int, *more: str) -> NoReturn:
    """Leave with `code` and lines on standard error; on a terminal they take the place of the live line."""
    clear = CLEAR if sys.stderr.isatty() else ""
    for line in (clear + printable(text), *map(printable, more)):
        tell(line)
    sys.exit(code)
