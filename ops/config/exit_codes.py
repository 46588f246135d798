"""The outer edge of every workflow: errors become one line and the documented exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from ops.atomic_io import FULL
from ops.errors import Interrupted, ResourceError, TesseraError
from ops.masking import command, mask, shown

VARIABLES = ("TESSERA_DATA", "TESSERA_CACHE", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "RAY_ADDRESS")
_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch's words, on the CPU and on CUDA


def _again(argv: list[str]) -> str:
    """How to go on: the command as it is given again, after the variables that it took, unless they hold a secret."""
    values = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    variables = [f"{name}={shlex.quote(value)}" for name, value in values.items() if shown(value) == value]
    program = ["tessera"] if Path(argv[0]).name == "tessera" else ["python", argv[0]]
    line = f"resume with: {command([*program, *(a for a in argv[1:] if a != '--fresh')])}"
    return f"with {' '.join(variables)} in the environment,\n{line}" if variables else line


def entry(main: Callable[[list[str]], None]) -> None:
    """Run `main(argv)` and leave with its exit code: 0, a TesseraError's, 130 for an interrupt, 1 for a bug of ours."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an interrupt wherever nobody listens for it
    try:
        main(sys.argv[1:])
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{mask(str(error)) or 'interrupted'}\n{_again(sys.argv)}", file=sys.stderr)
        sys.exit(Interrupted.code)
    except TesseraError as error:
        print(f"error: {mask(str(error))}", file=sys.stderr)
        sys.exit(error.code)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        print("error: out of memory; give smaller settings (--help) or a machine with more", file=sys.stderr)
        sys.exit(ResourceError.code)
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; free some space and start the same command again", file=sys.stderr)
        sys.exit(ResourceError.code)
