"""Ray sessions: the running cluster where there is one, else a small local one on the loopback address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ops.errors import SettingsError
from ops.run.console import Console

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
