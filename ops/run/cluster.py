"""Ray sessions: the running cluster where there is one, else a small local one on the loopback address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ops.errors import SettingsError
from ops.run.console import Console
from ops.run.settings import LaunchSettings
from ops.run.workers import Workers

CPUS_A_WORKER = 4  # of `--workers auto`

# Read by Ray when it is imported or started; a user's own value stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a stopped trial writes its files before its actor is used again
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a search as if all trials were done
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def ray_session(cpus: int, *, shared: bool = False) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one of `cpus` CPUs here; ends what it began.

    Raises SettingsError for a cluster of several nodes unless the results' place is `shared` by them.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    local = not os.environ.get("RAY_ADDRESS")
    if local:  # without it Ray swaps 127.0.0.1 for the machine's address and listens there
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    began = not ray.is_initialized()
    if began:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if local:
            ray.init("local", num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        else:
            ray.init(**quiet)
    try:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        if sum(node["Alive"] for node in nodes) > 1 and not shared:
            raise SettingsError(
                "--out: the cluster has several nodes, which need a shared place; give s3://BUCKET/PREFIX"
            )
        yield
    finally:
        if began:
            ray.shutdown()


def on_cluster() -> bool:
    """Whether a running cluster is to be used."""
    return bool(os.environ.get("RAY_ADDRESS"))


@contextmanager
def crew(launch: LaunchSettings, console: Console) -> Iterator[Workers | None]:
    """The workers of a training, with Ray running while inside; None: it runs in this process.

    Raises SettingsError for GPUs that no node has.
    """
    if launch.workers == 0 or (launch.workers == "auto" and not on_cluster()):
        yield None
        return
    cores = len(os.sched_getaffinity(0))
    wanted = 1 if launch.workers == "auto" else launch.workers
    threads = launch.threads or max(1, cores // wanted)
    with ray_session(wanted * threads + 1, shared=True):  # the driver alone touches the results
        workers = _sized(launch, threads)
        have = resources().get("CPU", 0)
        if workers.count * workers.threads > have:
            console.warn(f"{workers} need {workers.count * workers.threads} CPUs, the cluster has {have:g}: "
                         "the training waits until it has grown")  # fmt: skip
        yield workers


def resources(*, free: bool = False) -> dict[str, float]:
    """What the cluster has, by name; `free`: what nobody uses at the moment. Ray must be running."""
    import ray

    found: dict[str, float] = (ray.available_resources if free else ray.cluster_resources)()  # type: ignore[no-untyped-call]
    return found


def gpus_each(launch: LaunchSettings) -> float:
    """GPUs of one worker or trial. Raises SettingsError where the cluster has none of those asked for."""
    have = resources().get("GPU", 0)
    wanted = min(have, 1) if launch.gpus_per_worker is None else launch.gpus_per_worker
    if wanted > have:
        raise SettingsError(
            f"--gpus-per-worker {wanted:g}: the cluster has {have:g} GPUs; give 0, or none for what there is"
        )
    return wanted


def _sized(launch: LaunchSettings, threads: int) -> Workers:
    """`--workers N` as asked; auto: one a GPU, else one per 4 free CPUs, at least one."""
    cluster, gpus = on_cluster(), gpus_each(launch)
    if launch.workers != "auto":
        cpus = int(resources().get("CPU", 1)) if cluster else threads
        return Workers(launch.workers, launch.threads or min(threads, max(1, cpus // launch.workers)), gpus, cluster)
    if gpus:
        return Workers(max(1, int(resources(free=True).get("GPU", 0) // gpus)), launch.threads or 1, gpus, cluster)
    cpus = int(resources(free=True).get("CPU", 0))
    each = launch.threads or min(CPUS_A_WORKER, max(1, cpus))
    return Workers(max(1, cpus // max(each, CPUS_A_WORKER)), each, 0.0, cluster)


def trial_callback(console: Console, total: int) -> Any:
    """A Ray Tune callback that tells how the trials go, in the run's own voice."""
    from ray.tune import Callback

    class Told(Callback):
        ended = 0

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            """One live line a result."""
            line = f"{result.get('trial')}  epoch {result.get('epoch')}  score {result.get('score', float('nan')):.4f}"
            console.progress(line, milestone=False)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """One lasting line a trial."""
            self.ended += 1
            result = trial.last_result or {}
            chosen = "  ".join(f"{k} {v:.4g}" for k, v in trial.config.items())
            console.say(f"trial {self.ended}/{total}  {chosen}  epochs {result.get('epoch')}  "
                        f"score {result.get('score', float('nan')):.4f}")  # fmt: skip

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """A failed trial is said at once; the search goes on."""
            console.warn(f"a trial failed: {trial.config}; see {trial.local_path}")

    return Told()
