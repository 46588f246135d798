"""Work that needs all rows at once, in a process of its own: the driver's memory stays what it was before."""

import signal
from collections.abc import Callable
from typing import Any, TypeVar

from ops.errors import ResourceError

T = TypeVar("T")
POLL_SECONDS = 0.5  # between two looks at whether the time is over


def apart(function: Callable[..., T], *arguments: Any, over: Callable[[], bool] = lambda: False) -> T:
    """`function(*arguments)` by a new process of this machine, which then ends: returns or raises what it does.

    Raises ResourceError where the process was killed, as a machine out of memory does, or here once `over()`.
    """
    from concurrent.futures import ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        future = pool.submit(function, *arguments)
        try:
            while not wait([future], POLL_SECONDS).done:
                for process in list(pool._processes.values()) if over() else ():
                    process.kill()
            return future.result()
        except BrokenProcessPool:
            raise ResourceError(
                f"the process for {function.__name__} was killed, perhaps as the machine ran out of memory; "
                "give the same command again on a larger machine, or less data"
            ) from None
