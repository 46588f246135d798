"""A resolved command with its data: what K is, what it will cost, and whether it can run at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ops.cluster.indices import GraphJudge
from ops.cluster.scores import Evaluator
from ops.data.load import load
from ops.data.types import AttributedGraph
from ops.data.validate import check_clusters
from ops.errors import SettingsError
from ops.run import memory, place, warm
from ops.run.cli import Resolved
from ops.run.console import Console
from ops.run.mirror import Mirror
from ops.run.seedrun import Judges
from ops.run.settings import flat
from ops.run.sizing import Share, nodes, on_cluster, room
from ops.run.tracker import check_uri, default_uri
from ops.run.types import Warm
from ops.run.workers import Workers


@dataclass
class Job:
    """A resolved command with its data loaded: everything a training needs, on this machine."""

    resolved: Resolved
    data: AttributedGraph
    labels: NDArray[np.int64] | None
    console: Console
    threads: int
    auto: dict[str, Any] | None = None  # the sweep behind `--n-clusters auto`
    warm: Warm | None = None  # the run that `--warm-start` names
    mirror: Mirror | None = None  # of the run's folder, where it belongs on S3
    workers: Workers | None = None  # None: train in this process

    @property
    def seeds(self) -> list[int]:
        """The seeds asked for."""
        launch = self.resolved.launch
        return list(range(launch.first_seed, launch.first_seed + launch.seeds))

    @property
    def identity(self) -> dict[str, Any]:
        """Of the run: one training's identity without its seed."""
        value = place.identity(self.resolved.method.NAME, flat(self.resolved.settings), self.data.digest())
        return value if self.warm is None else value | {"warm": self.warm.digest}

    @property
    def judges(self) -> Judges:
        """Who scores this job's assignments."""
        k = self.resolved.settings.k
        return Judges(GraphJudge(self.data, k), Evaluator(self.labels), k, self.data.n_nodes)

    @property
    def uri(self) -> str:
        """The MLflow store of this job."""
        launch = self.resolved.launch
        return check_uri(launch.tracking_uri or default_uri(place.local_out(launch)))

    def saved(self) -> None:
        """Something worth keeping is on disk: send it where the run belongs."""
        if self.mirror is not None:
            self.mirror.offer()


def make_job(resolved: Resolved, console: Console) -> Job:
    """Load and check the data, settle K. Raises DataError or SettingsError before any work starts."""
    launch = resolved.launch
    if launch.workers != "auto" and launch.workers < 0:
        raise SettingsError(f"--workers {launch.workers}: allowed are auto, 0 (in this process) and more")
    data, labels = load(launch.dataset, knn=launch.knn, knn_metric=launch.knn_metric)
    threads = launch.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    job = settle_clusters(Job(resolved, data, labels, console, threads))
    if launch.warm_start is not None:
        method = resolved.method
        job.warm = warm.load_warm(launch.warm_start, method.NAME, method.SHAPED, job.resolved.settings, data)
    return job


def settle_clusters(job: Job) -> Job:
    """K from the settings, the sweep (`auto`) or, said so, the number of classes. Raises SettingsError or DataError."""
    wanted = job.resolved.settings.n_clusters
    if wanted is None:
        if job.labels is None:
            raise SettingsError(f"{job.data.name} has no labels to count: give --n-clusters K or --n-clusters auto")
        wanted, source = len(np.unique(job.labels)), "labels (number of classes)"
    elif wanted == "auto":
        from ops.cluster.auto_k import sweep

        job.console.say("choosing the number of clusters without labels ...")
        job.auto = sweep(job.data)
        wanted, source = job.auto["chosen"], "auto"
        job.console.say(f"K = {wanted}: {job.auto['reason']}")
    else:
        source = job.resolved.sources.get("n_clusters", "default")
    check_clusters(wanted, job.data.n_nodes)
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
    edges = data.edge_index.shape[1]
    say = job.console.say
    say(f"{job.resolved.method.NAME} on {data.name}: {data.n_nodes:,} nodes, {data.n_features:,} features, "
        f"{edges:,} directed edges, data {data.digest()[:8]}")  # fmt: skip
    for note in (*data.notes, *job.resolved.remarks, *job.resolved.method.remarks(settings, data)):
        say(f"  {note}")
    if job.warm is not None:
        say(f"  {warm.sentence(job.warm)}")
    say(f"  K = {settings.k} (from {job.resolved.sources['n_clusters']}), {settings.epochs} epochs, "
        f"seeds {launch.first_seed}-{launch.first_seed + launch.seeds - 1}")  # fmt: skip
    disk = shutil.disk_usage(place.local_out(launch)).free
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
