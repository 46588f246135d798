"""Work that needs all rows at once, in a process of its own: the driver's memory stays what it was before."""

import signal
from collections.abc import Callable
from typing import Any, TypeVar

from ops.errors import ResourceError

T = TypeVar("T")


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` by a new process of this machine, which then ends: returns or raises what it does.

    Raises ResourceError where the process was killed, as a machine out of memory does.
    """
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise ResourceError(
                f"the process for {function.__name__} was killed, perhaps as the machine ran out of memory; "
                "give the same command again on a larger machine, or less data"
            ) from None
