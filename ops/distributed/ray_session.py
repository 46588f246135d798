"""Ray sessions: the running cluster where there is one, else a small local one on the loopback address."""

import logging
import os
import resource
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from ops.config.console import Clock, Console, as_typed
from ops.config.exit_codes import FILES
from ops.config.settings import LaunchSettings, SearchSettings
from ops.data.types.mapped_file import Mappable
from ops.distributed import resources
from ops.distributed.resources import Workers, on_cluster
from ops.errors import ResourceError, ServiceError, SettingsError

D = TypeVar("D")
FEW_FILES = 512  # with fewer a local cluster does not come up
ANSWERS_WITHIN, NODE_ANSWERS_WITHIN = 10.0, 120.0  # seconds: a cluster's port, a task that first starts a process

# Read by Ray when it is imported or started; a user's own value stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "120",  # a stopped trial writes its files before its actor is used again
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a search as if all trials were done
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_prestart_worker_first_driver": "0",  # a process for each CPU, of which the workers of Ray Train use none
    "RAY_worker_niceness": "0",  # by default workers give way to all other work: beside two busy processes they starve
}


@contextmanager
def ray_session(cpus: int) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one of `cpus` CPUs here; ends what it began.

    Within another session it is that one. Raises SettingsError for an address that cannot be used, ServiceError where
    no cluster answers, or none can be started here, ResourceError where the object store and its disk are full.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    _allow_files()
    import ray

    if ray.is_initialized():
        with _told_of_a_full_store():
            yield
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with nullcontext() if on_cluster() else _on_loopback_with_few_processes():
        if on_cluster():
            _connect(ray, quiet)
        else:
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process; no node is taken away here
            _start(ray, {"num_cpus": cpus, "include_dashboard": False, "_node_ip_address": "127.0.0.1", **quiet})
        try:
            with _told_of_a_full_store():
                yield
        finally:
            ray.shutdown()


@contextmanager
def _told_of_a_full_store() -> Iterator[None]:
    """Raise ResourceError where Ray's object store is full, and the disk too, while inside."""
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError

    try:
        yield
    except (ObjectStoreFullError, OutOfDiskError):
        raise ResourceError(
            "Ray's object store on this node is full, and so is the disk that takes the rest (in /tmp, or where "
            "`ray start --temp-dir` says): free some there, or start Ray with a larger --object-store-memory"
        ) from None


@contextmanager
def _on_loopback_with_few_processes() -> Iterator[None]:
    """Have Ray keep to 127.0.0.1 while inside; by itself it swaps that for the machine's address and listens there.

    Its environment variable for this is read when Ray is imported, and anybody may have imported it before. Nor does it
    start the processes for a dashboard, for the driver's copy of logs and to add nodes, which cost a second each and
    have nothing to do here; `ray start` has flags for that, `ray.init` has not.
    """
    from ray._private import ray_constants
    from ray._private.node import Node

    changes: list[tuple[Any, str, Any]] = [(ray_constants, "ENABLE_RAY_CLUSTER", False)]
    started = [f"start_{each}" for each in ("api_server", "log_monitor", "monitor")]
    changes += [(Node, name, lambda node, **how: None) for name in started if hasattr(Node, name)]  # else another Ray
    before = [getattr(where, name) for where, name, _ in changes]
    for where, name, value in changes:
        setattr(where, name, value)
    try:
        yield
    finally:
        for (where, name, _), value in zip(changes, before, strict=True):
            setattr(where, name, value)


def _allow_files() -> None:
    """Let this process and what it starts open as many files as Ray needs. Raises ResourceError where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEW_FILES <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES), hard))
    elif soft < FEW_FILES:
        raise ResourceError(f"{soft} open files are allowed, workers and trials need {FILES:,}: ulimit -n {FILES}")


def _start(ray: Any, options: dict[str, Any]) -> None:
    try:
        ray.init("local", **options)
    except (Exception, SystemExit) as error:  # Ray raises of all kinds, and plain Exception for some
        ray.shutdown()
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "AF_UNIX" in reason:
            remedy = "set TMPDIR (or RAY_TMPDIR) to a folder with a shorter path"
        else:
            logs = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "session_latest" / "logs"
            remedy = f"see {logs}, and whether memory, disk and processes are left on this machine"
        raise ServiceError(f"Ray cannot be started here ({reason}); {remedy}") from None


def _connect(ray: Any, options: dict[str, Any]) -> None:
    address = os.environ["RAY_ADDRESS"]
    if "://" in address:
        raise SettingsError(
            f"RAY_ADDRESS={address}: is for `ray job submit`; submit this command, or give HOST:PORT of the head"
        )
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for two minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
        ray.init(**options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError, SystemExit) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ServiceError(
            f"RAY_ADDRESS={address}: no Ray cluster can be used there ({reason}); start it, or unset RAY_ADDRESS"
        ) from None


@contextmanager
def cluster_session() -> Iterator[None]:
    """A session while inside where there is a running cluster; nothing where there is none."""
    with ray_session(0) if on_cluster() else nullcontext():
        yield


def check_seen(folder: Path, out: str) -> None:
    """Raise SettingsError unless all nodes with CPUs see `folder` of this one, ServiceError where one is silent."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    this_node, probe = ray.get_runtime_context().get_node_id(), folder / f".probe-{secrets.token_hex(8)}"
    others = [node for node in resources.nodes() if node.cpus and node.id != this_node]
    look = ray.remote(num_cpus=0)(_seen)
    probe.touch()
    try:
        asked = [look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(n.id, soft=False)) for n in others]
        seen = ray.get([each.remote(str(probe)) for each in asked], timeout=NODE_ANSWERS_WITHIN)
    except ray.exceptions.RayError as error:
        raise ServiceError(f"a node of the cluster does not answer ({type(error).__name__}); try again") from None
    finally:
        probe.unlink(missing_ok=True)
    if not all(seen):
        unseen = others[seen.index(False)].address
        raise SettingsError(
            f"--out {out}: several nodes take part and {unseen} does not see this folder; "
            "give s3://BUCKET/PREFIX, or a folder that all nodes share"
        )


def _seen(path: str) -> bool:
    return os.path.exists(path)


def in_object_store(data: D) -> D:
    """The data, whose mapped arrays go through Ray's object store to nodes without their files; Ray must run."""
    import ray

    return data.in_pieces(ray.put, ray.get) if isinstance(data, Mappable) else data


def has_workers(launch: LaunchSettings) -> bool:
    """Whether a training runs on workers of Ray Train, not in this process."""
    return launch.workers != 0 and (launch.workers != "auto" or on_cluster())


@contextmanager
def crew(launch: LaunchSettings, console: Console) -> Iterator[Workers | None]:
    """The workers of a training, with Ray running while inside; None: it runs in this process.

    Raises SettingsError for GPUs that no node has, ServiceError where the cluster cannot be reached.
    """
    if not has_workers(launch):
        yield None
        return
    if not on_cluster():
        workers = resources.local_workers(launch)
        with ray_session(workers.count * workers.threads + 1):
            yield workers
        return
    with ray_session(0):
        have = resources.nodes()
        workers = resources.cluster_workers(launch, have, _settled())
        if resources.places(have, workers.threads) < workers.count:
            total = sum(node.cpus for node in have)
            console.warn(f"{workers} do not fit, the cluster has {total:g} CPUs on {len(have)} nodes: "
                         "the training waits until it has grown")  # fmt: skip
        yield workers


def _settled() -> dict[str, float]:
    """What is free, once what has just ended has given it back."""
    before: dict[str, float] = {}
    for _ in range(10):
        now = resources.free()
        if now == before:
            break
        before = now
        time.sleep(0.5)
    return before


def share(launch: SearchSettings, console: Console) -> resources.Share:
    """How a search's trials share the cluster (within a `cluster_session`) or this machine."""
    if not on_cluster():
        return resources.local_share(launch)
    nodes = resources.nodes()
    each, have = resources.cluster_share(launch, nodes, resources.free()), sum(node.cpus for node in nodes)
    if each.cpus > have:
        console.warn(f"{each} need {each.cpus} CPUs, the cluster has {have:g}: the search waits until it has grown")
    return each


def trial_callback(console: Console, total: int) -> Any:
    """A Ray Tune callback that tells how the trials go, in the run's own voice."""
    from ray.tune import Callback

    clock = Clock(0, total - 1)

    class Progress(Callback):
        ended = 0

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            """The live block: how many trials have ended, and the newest result."""
            newest = (
                f"{result.get('trial')}  epoch {result.get('epoch')}  score {result.get('score', float('nan')):.4f}"
            )
            ended = [f"{self.ended} of {total} trials ended", clock.left(self.ended - 1), newest]
            console.progress("  ".join(filter(None, ended)), milestone=False, share=self.ended / total)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """One lasting line a trial."""
            self.ended += 1
            result = trial.last_result or {}
            chosen = "  ".join(f"{k} {as_typed(v)}" for k, v in trial.config.items())
            if "failed" in result:
                console.warn(f"trial {self.ended}/{total}  {chosen}  failed: {result['failed']}")
                return
            console.say(f"trial {self.ended}/{total}  {chosen}  epochs {result.get('epoch')}  "
                        f"score {result.get('score', float('nan')):.4f}")  # fmt: skip

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            """A failed trial is said at once; the search goes on."""
            console.warn(f"a trial failed: {trial.config}; see {trial.local_path}")

    return Progress()
