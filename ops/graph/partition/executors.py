"""Two ways to run tasks that pass files to each other: in this process, or on Ray."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ops.errors import ServiceError, TesseraError

BuildTask = tuple[Callable[..., Any], tuple[Any, ...]]
RunTasks = Callable[[str, Sequence[BuildTask]], Iterator[Any]]  # (stage, tasks) -> results as they end
Report = Callable[[str, int, int, int], None]  # (stage, tasks done, all tasks, peak bytes of the last one)


def _silent(stage: str, done: int, count: int, size: int) -> None:
    """Report nothing."""


def in_process(report: Report = _silent) -> RunTasks:
    """Run tasks one after another in this process, with a report after each."""

    def run(stage: str, tasks: Sequence[BuildTask]) -> Iterator[Any]:
        for i, task in enumerate(tasks):
            result, size = _measured(*task)
            report(stage, i + 1, len(tasks), size)
            yield result

    return run


def on_ray(count: int, report: Report = _silent) -> RunTasks:
    """Run the tasks as Ray tasks, at most `count` at a time, within a Ray session. A lost task is tried twice more.

    Raises the TesseraError of a task, ServiceError where tasks are lost for good.
    """
    import ray

    remote = ray.remote(num_cpus=1, max_retries=2)(_measured)

    def run(stage: str, tasks: Sequence[BuildTask]) -> Iterator[Any]:
        waiting, done = list(reversed(tasks)), 0
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < count:
                running.append(remote.remote(*waiting.pop()))
            ended, running = ray.wait(running, num_returns=1)
            try:
                result, size = ray.get(ended[0])
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, TesseraError):
                    raise error.cause from None
                raise  # a bug of ours, with its traceback
            except ray.exceptions.RayError as error:
                raise ServiceError(f"a task was lost for good ({type(error).__name__}); start the same command again: "
                                   "it goes on; with fewer tasks at a time each has more memory") from None  # fmt: skip
            done += 1
            report(stage, done, len(tasks), size)
            yield result

    return run


def run_missing(run: RunTasks, stage: str, tasks: Sequence[tuple[Path, BuildTask]]) -> None:
    """Run the tasks whose folder does not exist yet."""
    for _ in run(stage, [task for folder, task in tasks if not folder.exists()]):
        pass


def _measured(task: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, int]:
    """The result of a task, and its peak memory above what its process had before, in bytes."""
    from ops import memory

    memory.reset_peak()
    before = memory.resident()
    return task(*arguments), max(memory.peak() - before, 0)
