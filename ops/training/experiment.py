"""From a request to an `Experiment`: data are loaded and checked, K is settled, the plan says what it will cost."""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray

from ops import memory
from ops.api import D, Experiment, Judge, Method, Record, S
from ops.clustering.owners import Owners
from ops.clustering.shards import BLOCK_ROWS
from ops.config.cli import Request
from ops.config.console import Console
from ops.config.settings import LaunchSettings, SearchSettings, flat
from ops.config.tracking_uri import check_uri, default_uri
from ops.data.io.readers import cache_file
from ops.data.io.validate import MOST, check_clusters
from ops.data.types.graph import AttributedGraph
from ops.data.types.mapped_file import Mappable, is_mapped
from ops.datamodules import datamodule_of
from ops.device import check_card, precision_on
from ops.distributed import ray_session
from ops.distributed.apart import apart
from ops.distributed.process_group import ProcessGroup
from ops.distributed.resources import Share, Workers, nodes, on_cluster, room
from ops.errors import DivergedError, SettingsError
from ops.evaluation.labelled import Evaluator, evaluator
from ops.results.feature_scale import rows_alike
from ops.results.statistics import ALIKE
from ops.storage import run_dir
from ops.training import warm_start
from ops.training.checkpoint import WorkerCheckpoints

MOST_WORKERS, LOCAL_WORKERS = 10_000, 64  # of a cluster; of a machine with fewer CPUs than that


@dataclass(frozen=True)
class Judges:
    """Who scores the assignment of this rank's rows: `unlabelled` gives indices by name, `evaluator` needs labels."""

    unlabelled: Judge
    evaluator: Evaluator
    n_clusters: int
    owners: Owners


@dataclass(frozen=True)
class Hooks:
    """Who hears of a seed: `stop` is asked after each epoch, `record` gets each, `saved` follows a checkpoint.

    A true answer of `stop` writes a checkpoint and raises Interrupted.
    """

    stop: Callable[[], bool] = lambda: False
    record: Callable[[Record], None] = lambda record: None
    saved: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Worker:
    """Which of `count` workers of Ray Train this process is (0: none), and where they keep checkpoints."""

    rank: int = 0
    count: int = 0
    threads: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    checkpoints: WorkerCheckpoints | None = None


@dataclass(frozen=True)
class Session(Generic[D]):
    """Where an experiment trains: `data` as the method gets it, its workers (None: in this process), and what to call
    when something worth keeping is on disk.
    """

    data: D
    workers: Workers | None = None
    saved: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class _Loaded(Mappable):
    """What `DataModule.load` returns, where large `labels` may be a map of a file too."""

    data: Any
    labels: NDArray[np.int64] | None
    hidden: object


def build_experiment(method: Method[S, D], request: Request[S, LaunchSettings], console: Console) -> Experiment[S, D]:
    """Load and check the data, settle K. Raises DataError, SettingsError or ServiceError before any work starts."""
    launch = request.launch
    most = MOST_WORKERS if on_cluster() else max(LOCAL_WORKERS, os.cpu_count() or 1)
    if launch.workers != "auto" and not 0 <= launch.workers <= most:
        where = "of a cluster" if on_cluster() else "of this machine"
        raise SettingsError(
            f"--workers {launch.workers}: allowed are auto, 0 (in this process) and up to {most:,} {where}"
        )
    if launch.skip_damaged:
        method.require("images", "--skip-damaged")
    run_dir.check_remote(launch)
    loaded = apart(_load_in_files, method, request) if ray_session.has_workers(launch) else _load(method, request)
    threads = launch.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    labels = labels_to_judge_by(loaded.labels, loaded.hidden)
    experiment = _settle_k(Experiment(method, request, loaded.data, labels, loaded.hidden, console, threads))
    return warm_start.with_warm_start(experiment) if launch.warm_start is not None else experiment


def labels_to_judge_by(labels: NDArray[np.int64] | None, hidden: object) -> NDArray[np.int64] | None:
    """The labels [N], or those in the files of what only judges may see: by name these go to another process."""
    return labels if labels is not None else getattr(hidden, "labels", None)


def _load(method: Method[S, D], request: Request[S, LaunchSettings]) -> _Loaded:
    with memory.loading_within(request.launch.memory_limit):
        return _Loaded(*datamodule_of(method).load(request.launch, request.settings))


def _load_in_files(method: Method[S, D], request: Request[S, LaunchSettings]) -> _Loaded:
    """The same in another process: what is large it leaves in files, which the driver and the workers map."""
    loaded, folder = _load(method, request), cache_file("x").parent / "arrays"
    if isinstance(loaded.data, Mappable):
        loaded = replace(loaded, data=loaded.data.in_files(folder))
    return loaded.in_files(folder)


def _settle_k(experiment: Experiment[S, D]) -> Experiment[S, D]:
    """K from the settings, the sweep (`auto`) or, said so, the number of classes. Raises SettingsError or DataError."""
    data, say = experiment.data, experiment.console.say
    asked, choice = experiment.settings.n_clusters, None
    if asked is None:
        if experiment.labels is None:
            raise SettingsError(f"{data.name} has no labels to count: give --n-clusters K or --n-clusters auto")
        k, source = _classes(experiment.labels), "labels (number of classes)"
    elif asked == "auto":
        say(f"choosing the number of clusters of {data.name} without labels ...")
        _tell(experiment.console, data.notes)  # before K is chosen by what they warn of
        choose = datamodule_of(experiment.method).choose_k
        choice = apart(choose, data) if is_mapped(data) else choose(data)
        k, source = choice["chosen"], "auto"
        say(f"K = {k}: {choice['reason']}")
    else:
        k, source = asked, experiment.request.sources.get("n_clusters", "default")
    check_clusters(k, data.n_rows)
    return replace(experiment.with_settings(source, n_clusters=k), k_choice=choice)


def _classes(labels: NDArray[np.int64]) -> int:
    """How many classes there are in labels that may be mapped from a file: read block by block."""
    seen = np.zeros(0, dtype=np.int64)
    for first in range(0, len(labels), BLOCK_ROWS):
        seen = np.union1d(seen, labels[first : first + BLOCK_ROWS])
    return int(np.sum(seen >= 0))


def identity(experiment: Experiment[S, D]) -> dict[str, object]:
    """What makes two runs the same but for their seeds: method, settings, data and the model of a warm start."""
    value = run_dir.identity(experiment.method.name, flat(experiment.settings), experiment.data.digest())
    return value if experiment.warm is None else value | {"warm": experiment.warm.digest}


def judges_of(experiment: Experiment[S, D], group: ProcessGroup | None = None) -> Judges | None:
    """Who scores the assignments of an experiment on this rank of a `group`; None where rank 0 does that for it."""
    module, group, labels = datamodule_of(experiment.method), group or ProcessGroup(), experiment.labels
    offsets = module.offsets(experiment.data)
    if offsets is None and group.rank:
        return None
    owners = Owners.alone(experiment.data.n_rows) if offsets is None else Owners(offsets, group)
    scored = evaluator(None if labels is None else labels[owners.shard.numbers()], owners.group)
    return Judges(module.judge(experiment, owners.group), scored, experiment.k, owners)


def tracking_uri(launch: LaunchSettings) -> str:
    """The MLflow store of a run."""
    return check_uri(launch.tracking_uri or default_uri(run_dir.local_out(launch)))


def plan(experiment: Experiment[S, D], workers: Workers | None, share: Share | None = None) -> int:
    """Print what will run and where; returns the planned peak bytes. Raises ResourceError where it does not fit.

    `share`: how the trials of a search share the memory; else the `workers` do.
    """
    method, settings, launch, data = experiment.method, experiment.settings, experiment.launch, experiment.data
    workers = share.workers if share else workers
    gpus = workers.gpus if workers else share.gpus if share else float(torch.cuda.is_available())
    precision = precision_on("cuda" if gpus else "cpu", launch.precision, method.precisions)
    needed = method.estimate(settings, data, workers.count if workers else 1)
    planned = memory.preload() + needed
    say = experiment.console.say
    say(f"{method.name} on {data.name}: {datamodule_of(method).describe(data)}, data {data.digest()[:8]}")
    classes = datamodule_of(method).describe_labels(experiment.labels, experiment.hidden)
    notes = () if experiment.k_choice else data.notes  # K was chosen behind them
    weighted = isinstance(data, AttributedGraph) and data.weight is not None
    notes = (*notes, *([f"the weights of edges {method.weights}; indices count edges"] if weighted else ()))
    _tell(experiment.console, (*notes, *classes, *experiment.request.remarks, *method.remarks(settings, data)))
    _check_features(experiment)
    if experiment.warm is not None:
        say(f"  {warm_start.sentence(experiment.warm)}")
    say(f"  K = {experiment.k} (from {experiment.request.sources['n_clusters']}), {settings.epochs} epochs, "
        f"seeds {launch.first_seed}-{launch.first_seed + max(launch.seeds, 1) - 1}")  # fmt: skip
    out = run_dir.local_out(launch)  # not made by a dry run
    disk = shutil.disk_usage(next(folder for folder in (out, *out.parents) if folder.exists())).free
    limit = launch.memory_limit or _available(workers, share) / 2**30
    say(f"  {_where(experiment, workers, share)}; planned peak {planned / 2**30:.2f} GiB"
        f"{' each' if workers or share else ''} of {limit:.1f}, free disk {disk / 2**30:.0f} GiB")  # fmt: skip
    memory.check_fits(planned, limit, method.save_memory)
    if not (workers and workers.cluster):  # a cluster's GPUs are not this machine's
        card = check_card(needed - memory.THREADS_AND_KERNELS, gpus, method.save_memory)
        if card:
            say(f"  {card}")
    if gpus:
        say(f"  products in {precision} (from {experiment.request.sources.get('precision', 'default')})")
    return planned


def _tell(console: Console, notes: Iterable[str]) -> None:
    """A line a note; that most nodes have no edge is a warning."""
    for note in notes:
        if MOST in note:
            console.warn(note)
        else:
            console.say(f"  {note}")


def dry_run(experiment: Experiment[S, D]) -> None:
    """Say what a training or a search would do (`--dry-run`). Raises as they do before work.

    Nothing is written but the parts of a graph of users, from which the plan is made.
    """
    launch, console = experiment.launch, experiment.console
    if isinstance(launch, SearchSettings):
        with ray_session.cluster_session():
            plan(experiment, None, ray_session.share(launch, console))
    else:
        with ray_session.crew(launch, console) as workers:
            plan(experiment, workers)
    parts = getattr(experiment.data, "place", "")
    console.say("nothing was trained (--dry-run)" + (f"; the training will take the parts in {parts}" if parts else ""))


def _check_features(experiment: Experiment[S, D]) -> None:
    """Warn where all rows have the same features (of users only their results tell it: these may not fit the memory).

    Raises DivergedError instead where the user asked to stop at a collapse.
    """
    if experiment.method.kind == "users" or not rows_alike(datamodule_of(experiment.method).features(experiment.data)):
        return
    text = f"{experiment.data.name}: {ALIKE}, nothing in them tells one from another; look at how they were made"
    if experiment.launch.stop_on_collapse:
        raise DivergedError(text)
    experiment.console.warn(text)


def _available(workers: Workers | None, share: Share | None) -> float:
    """Bytes of memory for one training process, where all are at work."""
    if on_cluster() and share:
        return share.room or memory.available()
    if on_cluster() and workers:
        return room(nodes(), workers.threads, workers.count) or memory.available()
    return memory.available() / ((share.concurrent if share else 1) * (workers.count if workers else 1))


def _where(experiment: Experiment[S, D], workers: Workers | None, share: Share | None) -> str:
    """Where the training runs, and what its workers will send each other."""
    if share is not None:
        return f"{share}{' on the cluster' if on_cluster() else ''}"
    if workers is None:
        return f"in this process on {'cuda' if torch.cuda.is_available() else 'cpu'}, {experiment.threads} threads"
    sent = experiment.method.exchanged(experiment.settings, experiment.data, workers.count)
    return f"{workers}, each sends {sent / 2**20:.1f} MiB a step"
