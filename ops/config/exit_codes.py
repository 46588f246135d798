"""The outer edge of every workflow: errors become one line and the documented exit code."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable

from ops.atomic_io import FULL
from ops.errors import Interrupted, ResourceError, TesseraError
from ops.masking import command, mask

_NO_MEMORY = ("can't allocate memory", "out of memory")  # torch's words, on the CPU and on CUDA


def entry(main: Callable[[list[str]], None]) -> None:
    """Run `main(argv)` and leave with its exit code: 0, a TesseraError's, 130 for an interrupt, 1 for a bug of ours."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an interrupt wherever nobody listens for it
    try:
        main(sys.argv[1:])
    except (Interrupted, KeyboardInterrupt) as error:
        again = command(["python", *(a for a in sys.argv if a != "--fresh")])
        print(f"{mask(str(error)) or 'interrupted'}\nresume with: {again}", file=sys.stderr)
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
