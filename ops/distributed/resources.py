"""What a training's workers or a search's trials take of a machine or a cluster, and how many of them run at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ops.config.settings import LaunchSettings, SearchSettings
from ops.errors import SettingsError

CPUS_A_WORKER = 4  # of `--workers auto`, and at most of a trial's workers
DRIVER_CPUS = 2  # of a trial that has workers: its driver's and a spare one, without which a full cluster may lock up


@dataclass(frozen=True)
class Node:
    """A node's own resources, whoever uses them; bytes of memory."""

    id: str
    address: str
    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Share:
    """How many trials run at a time and what each takes; `room`: bytes of memory for one training process."""

    concurrent: int
    threads: int
    gpus: float = 0.0
    workers: Workers | None = None
    room: int | None = None

    @property
    def resources(self) -> dict[str, float]:
        """Of a trial's own process, as Ray Tune takes them."""
        if self.workers is not None:
            return {"cpu": 1.0}
        return {"cpu": float(self.threads)} | ({"gpu": self.gpus} if self.gpus else {})

    @property
    def cpus(self) -> int:
        """Of all trials at a time, with a spare one each where they have workers."""
        each = self.workers.count * self.workers.threads + DRIVER_CPUS if self.workers else self.threads
        return self.concurrent * each

    def __str__(self) -> str:
        if self.workers is not None:
            count, threads = self.workers.count, self.workers.threads
            each = f"with {count} worker{'s' * (count > 1)} of {threads} thread{'s' * (threads > 1)}"
        else:
            each = f"of {self.threads} thread{'s' * (self.threads > 1)}"
            each += f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.concurrent} trial{'s' * (self.concurrent > 1)} at a time {each}"


def on_cluster() -> bool:
    """Whether a running cluster is to be used."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")


def nodes() -> list[Node]:
    """The living nodes of the cluster. Ray must be running."""
    import ray

    living = []
    for each in ray.nodes():  # type: ignore[no-untyped-call]
        have = each["Resources"]
        if each["Alive"]:
            memory = have.get("memory", 0.0) + have.get("object_store_memory", 0.0)
            node = Node(each["NodeID"], each["NodeManagerAddress"], have.get("CPU", 0.0), have.get("GPU", 0.0), memory)
            living.append(node)
    return living


def free() -> dict[str, float]:
    """What nobody uses at the moment, by name. Ray must be running."""
    import ray

    return dict(ray.available_resources())  # type: ignore[no-untyped-call]


def places(have: Sequence[Node], threads: int) -> int:
    """How many processes of `threads` CPUs the nodes hold; a process lies on one node."""
    return sum(int(node.cpus // threads) for node in have)


def threads_for(have: Sequence[Node], count: int) -> int:
    """The most threads with which `count` processes find a place, at least 1."""
    most = int(max((node.cpus for node in have), default=1))
    return next((threads for threads in range(most, 1, -1) if places(have, threads) >= count), 1)


def room(have: Sequence[Node], cpus: float, count: int) -> int | None:
    """Bytes of memory for each of `count` processes of `cpus` where a node holds as many as it can; None: unknown."""
    holds = [(node.memory, min(count, int(node.cpus // max(cpus, 1)))) for node in have]
    return min((int(memory / most) for memory, most in holds if most and memory), default=None)


def gpus_each(launch: LaunchSettings, have: float) -> float:
    """GPUs of one worker or trial. Raises SettingsError where there are none of those asked for."""
    wanted = min(have, 1) if launch.gpus_per_worker is None else launch.gpus_per_worker
    if wanted > have:
        raise SettingsError(
            f"--gpus-per-worker {wanted:g}: the {'cluster' if on_cluster() else 'machine'} has {have:g} GPUs; "
            "give 0, or none for what there is"
        )
    return wanted


def local_workers(launch: LaunchSettings) -> Workers:
    """`--workers N` on this machine."""
    wanted = 1 if launch.workers == "auto" else launch.workers
    gpus = gpus_each(launch, torch.cuda.device_count())
    return Workers(wanted, launch.threads or max(1, _cores() // wanted), gpus)


def cluster_workers(launch: LaunchSettings, have: Sequence[Node], unused: dict[str, float]) -> Workers:
    """`--workers N` as asked; auto: one a GPU, else one per 4 free CPUs, at least one."""
    gpus = gpus_each(launch, sum(node.gpus for node in have))
    if launch.workers != "auto":
        return Workers(launch.workers, launch.threads or threads_for(have, launch.workers), gpus, True)
    if gpus:
        return Workers(max(1, int(unused.get("GPU", 0) // gpus)), launch.threads or 1, gpus, True)
    each = launch.threads or min(CPUS_A_WORKER, threads_for(have, 1))
    taken = max(each, CPUS_A_WORKER)
    return Workers(max(1, min(places(have, taken), int(unused.get("CPU", 0) // taken))), each, 0.0, True)


def local_share(launch: SearchSettings) -> Share:
    """A search's trials on this machine."""
    if _has_workers(launch):
        workers = local_workers(launch)
        return Share(min(launch.concurrent or 1, launch.trials), 1, 0.0, workers)
    have = torch.cuda.device_count()
    gpus = gpus_each(launch, have)
    concurrent = min(launch.concurrent or (int(have // gpus) if gpus else _cores()), launch.trials)
    return Share(max(1, concurrent), launch.threads or max(1, _cores() // concurrent), gpus)


def cluster_share(launch: SearchSettings, have: Sequence[Node], unused: dict[str, float]) -> Share:
    """A search's trials on a cluster: as many at a time as it has free CPUs (and GPUs) for."""
    cpus, total = int(unused.get("CPU", 0)), sum(node.gpus for node in have)
    if _has_workers(launch):
        workers = cluster_workers(launch, have, unused)
        if not launch.threads:
            workers = Workers(workers.count, min(CPUS_A_WORKER, workers.threads), workers.gpus, True)
        most = cpus // (workers.count * workers.threads + DRIVER_CPUS)
        if workers.gpus:
            most = min(most, int(total // (workers.gpus * workers.count)))
        concurrent = max(1, min(launch.concurrent or most, most, launch.trials))
        processes = concurrent * workers.count
        return Share(concurrent, 1, 0.0, workers, room(have, workers.threads, processes))
    gpus = gpus_each(launch, total)
    most = min(places(have, launch.threads or 1), cpus // (launch.threads or 1))
    if gpus:
        most = min(most, int(total // gpus))
    concurrent = max(1, min(launch.concurrent or most, most, launch.trials))
    threads = launch.threads or threads_for(have, concurrent)
    return Share(concurrent, threads, gpus, None, room(have, threads, concurrent))


def _has_workers(launch: SearchSettings) -> bool:
    """Whether trials build workers; auto: the trial's own process trains."""
    return launch.workers not in ("auto", 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Workers:
    """How many, with what each; on a cluster that runs already or on one started here."""

    count: int
    threads: int
    gpus: float = 0.0
    cluster: bool = False

    def __str__(self) -> str:
        words = f"on {self.count} worker{'s' * (self.count > 1)} of {self.threads} thread{'s' * (self.threads > 1)}"
        return words + (f" and {self.gpus:g} GPU" if self.gpus else "") + (" of the cluster" if self.cluster else "")
