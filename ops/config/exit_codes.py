"""The outer edge of every workflow: errors become one line and the documented exit code."""

import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ops.atomic_io import FULL
from ops.config.console import printable, tell
from ops.errors import Interrupted, ResourceError, TesseraError
from ops.masking import command, mask, shown

FILES = 4096  # that a training with workers can have open
VARIABLES = (
    "TESSERA_DATA", "TESSERA_CACHE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE",
    "AWS_REGION", "AWS_DEFAULT_REGION", "RAY_ADDRESS",
)  # fmt: skip
_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch's words, on the CPU and on CUDA


def _again(argv: list[str]) -> list[str]:
    """How to go on: the command as it is given again, after the variables that it took, unless they hold a secret."""
    values = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    variables = [f"{name}={shlex.quote(value)}" for name, value in values.items() if shown(value) == value]
    program = ["tessera"] if Path(argv[0]).name == "tessera" else ["python", argv[0]]
    line = f"resume with: {command([*program, *(a for a in argv[1:] if a != '--fresh')])}"
    return [f"with {' '.join(variables)} in the environment,", line] if variables else [line]


def entry(main: Callable[[list[str]], None]) -> None:
    """Run `main(argv)` and leave with its exit code: 0, a TesseraError's, 130 for an interrupt, 1 for a bug of ours."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an interrupt wherever nobody listens for it
    try:
        main(sys.argv[1:])
    except (Interrupted, KeyboardInterrupt) as error:
        _end(mask(str(error)) or "interrupted", Interrupted.code, *_again(sys.argv))
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


def _end(text: str, code: int, *more: str) -> NoReturn:
    """Leave with `code` and lines on standard error; on a terminal they take the place of the live block."""
    for line in (text, *more):
        tell(printable(line))
    sys.exit(code)
