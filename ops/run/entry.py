"""The outer edge of every workflow: errors become one line and the documented exit code."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
import warnings
from collections.abc import Callable

from ops.errors import Interrupted, ResourceError, TesseraError


def entry(main: Callable[[list[str]], None]) -> None:
    """Run `main(argv)` and leave with its exit code: 0, a TesseraError's, 130 for an interrupt, 1 for a bug of ours."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries; ours are errors in the tests
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # an interrupt wherever nobody listens for it
    try:
        main(sys.argv[1:])
    except (Interrupted, KeyboardInterrupt) as error:
        again = shlex.join(["python", *(a for a in sys.argv if a != "--fresh")])
        print(f"{str(error) or 'interrupted'}\nresume with: {again}", file=sys.stderr)
        sys.exit(Interrupted.code)
    except TesseraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:  # the reader of our output has gone: nothing is left to say
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; free some space and start the same command again", file=sys.stderr)
        sys.exit(ResourceError.code)
