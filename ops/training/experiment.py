"""A resolved command with its data: what K is, what it will cost, and whether it can run at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops import memory
from ops.api import Warm
from ops.config.cli import Resolved
from ops.config.console import Console
from ops.config.settings import flat
from ops.config.tracking_uri import check_uri, default_uri
from ops.data.io.validate import check_clusters
from ops.datamodules.base import Kind, kind_of, only
from ops.distributed.resources import Share, Workers, nodes, on_cluster, room
from ops.errors import SettingsError
from ops.evaluation.labelled import Evaluator
from ops.storage import run_dir
from ops.storage.mirror import Mirror
from ops.training import warm_start
from ops.training.seed_run import Judges


@dataclass
class Job:
    """A resolved command with its data loaded: everything a training needs, on this machine."""

    resolved: Resolved
    data: Any  # ops.data.types.graph.Data, and what the kind's own functions know of it
    labels: NDArray[np.int64] | None
    console: Console
    threads: int
    auto: dict[str, Any] | None = None  # the sweep behind `--n-clusters auto`
    warm: Warm | None = None  # the run that `--warm-start` names
    mirror: Mirror | None = None  # of the run's folder, where it belongs on S3
    workers: Workers | None = None  # None: train in this process
    held: Any = None  # what only judges may see besides the labels
    served: Any = None  # the data as the method gets it

    @property
    def seeds(self) -> list[int]:
        """The seeds asked for."""
        launch = self.resolved.launch
        return list(range(launch.first_seed, launch.first_seed + launch.seeds))

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run: one training's identity without its seed."""
        value = run_dir.identity(self.resolved.method.NAME, flat(self.resolved.settings), self.data.digest())
        return value if self.warm is None else value | {"warm": self.warm.digest}

    @property
    def kind(self) -> Kind:
        """What depends on the kind of data."""
        return kind_of(self.resolved.method)

    @property
    def judges(self) -> Judges:
        """Who scores this job's assignments."""
        return Judges(self.kind.judge(self), Evaluator(self.labels), self.resolved.settings.k, self.data.n_rows)

    @property
    def uri(self) -> str:
        """The MLflow store of this job."""
        launch = self.resolved.launch
        return check_uri(launch.tracking_uri or default_uri(run_dir.local_out(launch)))

    def saved(self) -> None:
        """Something worth keeping is on disk: send it where the run belongs."""
        if self.mirror is not None:
            self.mirror.offer()


def make_job(resolved: Resolved, console: Console) -> Job:
    """Load and check the data, settle K. Raises DataError, SettingsError or ServiceError before any work starts."""
    launch = resolved.launch
    if launch.workers != "auto" and launch.workers < 0:
        raise SettingsError(f"--workers {launch.workers}: allowed are auto, 0 (in this process) and more")
    if launch.skip_damaged:
        only("images", resolved.method, "--skip-damaged")
    run_dir.check_remote(launch)
    data, labels, held = kind_of(resolved.method).load(launch, resolved.settings)
    threads = launch.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    job = settle_clusters(Job(resolved, data, labels, console, threads, held=held, served=data))
    if launch.warm_start is not None:
        method = resolved.method
        only("graph", method, f"--warm-start {launch.warm_start}")
        job.warm = warm_start.load_warm(launch.warm_start, method.NAME, method.SHAPED, job.resolved.settings, job.data)
    return job


def settle_clusters(job: Job) -> Job:
    """K from the settings, the sweep (`auto`) or, said so, the number of classes. Raises SettingsError or DataError."""
    wanted = job.resolved.settings.n_clusters
    if wanted is None:
        if job.labels is None:
            raise SettingsError(f"{job.data.name} has no labels to count: give --n-clusters K or --n-clusters auto")
        wanted, source = len(np.unique(job.labels)), "labels (number of classes)"
    elif wanted == "auto":
        job.console.say("choosing the number of clusters without labels ...")
        job.auto = job.kind.sweep(job.data)
        wanted, source = job.auto["chosen"], "auto"
        job.console.say(f"K = {wanted}: {job.auto['reason']}")
    else:
        source = job.resolved.sources.get("n_clusters", "default")
    check_clusters(wanted, job.data.n_rows)
    job.resolved = job.resolved.with_settings(source, n_clusters=wanted)
    return job


def plan(job: Job, share: Share | None = None) -> int:
    """Print what will run and where; returns the planned peak bytes. Raises ResourceError where it does not fit.

    `share`: how the trials of a search share the memory; else `job.workers` do.
    """
    settings, launch, data = job.resolved.settings, job.resolved.launch, job.data
    workers = share.workers if share else job.workers
    world = workers.count if workers else 1
    planned: int = memory.preload() + job.resolved.method.estimate(settings, data, world)
    say = job.console.say
    say(f"{job.resolved.method.NAME} on {data.name}: {job.kind.describe(data)}, data {data.digest()[:8]}")
    for note in (*data.notes, *job.resolved.remarks, *job.resolved.method.remarks(settings, data)):
        say(f"  {note}")
    if job.warm is not None:
        say(f"  {warm_start.sentence(job.warm)}")
    say(f"  K = {settings.k} (from {job.resolved.sources['n_clusters']}), {settings.epochs} epochs, "
        f"seeds {launch.first_seed}-{launch.first_seed + launch.seeds - 1}")  # fmt: skip
    disk = shutil.disk_usage(run_dir.local_out(launch)).free
    limit = launch.memory_limit or _room(job, share) / 2**30
    say(f"  {_place(job, share)}; planned peak {planned / 2**30:.2f} GiB{' each' if workers or share else ''} "
        f"of {limit:.1f}, free disk {disk / 2**30:.0f} GiB")  # fmt: skip
    memory.check_fits(planned, limit, job.resolved.method.ADVICE)
    return planned


def _room(job: Job, share: Share | None) -> float:
    """Bytes of memory for one training process, where all are at work."""
    if on_cluster() and (share or job.workers):
        if share:
            return share.room or memory.available()
        assert job.workers is not None
        return room(nodes(), job.workers.threads, job.workers.count) or memory.available()
    at_once = share.concurrent if share else 1
    workers = share.workers if share else job.workers
    return memory.available() / (at_once * (workers.count if workers else 1))


def _place(job: Job, share: Share | None) -> str:
    """Where the training runs, and what its workers will send each other."""
    if share is not None:
        return f"{share}{' on the cluster' if on_cluster() else ''}"
    if job.workers is None:
        return f"in this process on {'cuda' if torch.cuda.is_available() else 'cpu'}, {job.threads} threads"
    sent = job.resolved.method.exchanged(job.resolved.settings, job.data, job.workers.count)
    return f"{job.workers}, each sends {sent / 2**20:.1f} MiB a step"
