"""Runs on heterogeneous graphs: users are clustered, judged by recall of hidden notes and by indices.

The graph is read, its last edges are hidden (`ops.data.splits`), the rest is partitioned once and kept beside the
results. Methods get the parts; hidden edges and planted groups stay with the judges.

Axes: U users (the rows), O notes (the other end), M hidden pairs, F features.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ops import memory
from ops.api import Experiment, Judge, Result, Run
from ops.atomic_io import Arrays
from ops.clustering.kmeans import START_ROWS, kmeans
from ops.clustering.owners import Owners
from ops.config.data_settings import UserSettings
from ops.config.settings import LaunchSettings
from ops.data.hetero_load import load_hetero
from ops.data.io.ids import Lookup
from ops.data.load import refuse_preparation
from ops.data.splits import How, Split, labels_among, split, usual
from ops.datamodules.base import ALL, Baseline, DataModule, Explained, Extras, Integers
from ops.datamodules.split_parts import PartsSplit, check_judged, hidden_note
from ops.datamodules.user_rows import HiddenEdges, hide, shown_to_judges, user_rows
from ops.distributed.process_group import ProcessGroup
from ops.distributed.ray_session import check_seen
from ops.distributed.resources import Workers, on_cluster
from ops.errors import SettingsError
from ops.evaluation import recall
from ops.evaluation.explain import explain
from ops.evaluation.unlabelled import feature_indices, projection_modularity, size_indices
from ops.graph.partition.executors import RunTasks
from ops.graph.partition.manifest import MANIFEST, Manifest, has_manifest, read_manifest
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.batches import PARTITION_SEED
from ops.graph.sampling.dataset import PartitionedGraph
from ops.graph.sampling.part_service import cached
from ops.results.seed_rows import SeedRows
from ops.storage import object_store as s3
from ops.storage import run_dir
from ops.storage.object_store import is_s3

UserExperiment = Experiment[UserSettings, PartitionedGraph]
Loaded = tuple[PartitionedGraph, Integers | None, HiddenEdges | None]
SCORE, AT = "recall_at_50", "recall@50"  # as MLflow takes names, and as tables have it


def _parts_note(manifest: Manifest) -> str:
    if manifest.parts == 1:
        return "one part holds all"
    partitioner, report = manifest.partitioner, manifest.report
    return (f"{manifest.parts} parts by {partitioner['method']}: {report['cut']:.1%} of the edges lie between parts, "
            f"edges a part up to {report['stored']['imbalance']:.2f} times the mean")  # fmt: skip


def _parts_folder(launch: LaunchSettings, name: str, parts: int, words: str) -> Path:
    """The folder of a training graph's parts, by what `words` say of how they are made."""
    key = f"{name}-{parts}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"
    return run_dir.open_folder(str(run_dir.local_out(launch) / "partitions"), key)


def _hidden_pairs(
    data: PartitionedGraph, hidden: Split, order: tuple[NDArray[np.int64], ...]
) -> dict[str, NDArray[np.int64] | None]:
    """What is hidden, in the numbers of the parts; `order`: the row of each number, for both ends."""
    number = [np.argsort(rows) for rows in order]
    trained = np.zeros(data.n_rows, dtype=bool)
    for relation in data.labels:
        trained[hidden.train.edges[relation].src] = True
    pairs = {"valid": hidden.valid.T, "test": hidden.test.T}
    check_judged(data.name, data.labels, hidden.hidden, trained, pairs)
    return {name: np.stack([number[0][p[0]], number[1][p[1]]]) for name, p in pairs.items()}


def prepare(launch: LaunchSettings, s: UserSettings) -> tuple[PartitionedGraph, HiddenEdges]:
    """The training graph in parts, written once for a graph and beside it what is hidden. Needs all of the graph."""
    if s.holdout == "none":
        raise SettingsError("--holdout none: is for a graph that was partitioned before (partition_graph.py)")
    with memory.loading_within(launch.memory_limit):
        graph, groups = load_hetero(launch.dataset)
    hidden = split(graph, None if s.holdout == "auto" else s.holdout, label_relations=s.labels)
    words = f"{hidden.train.digest()} {s.parts} {s.partition} {PARTITION_SEED}"
    folder = _parts_folder(launch, hidden.train.name, s.parts, words)
    with run_dir.lock(folder, wait=True):  # of two starts on the same graph one writes
        if not has_manifest(folder):
            request = PartitionRequest(s.parts, s.partition, seed=PARTITION_SEED, simple=True)
            partition_in_memory(hidden.train, folder, request)
        manifest = read_manifest(folder)
        notes = (*hidden.train.notes, hidden_note(hidden.hidden, hidden.counts), _parts_note(manifest))
        data = PartitionedGraph(graph.name, str(folder), manifest, hidden.relations, notes)
        client, nodes = data.connect(), hidden.train.nodes
        rows, others = (Lookup(kind, nodes[kind].ids).rows(client.ids(kind)) for kind in (data.rows, data.others))
        truth = None if groups is None or data.rows not in groups else groups[data.rows][rows]
        remote = run_dir.remote(launch, "partitions") if on_cluster() else None
        return data, hide(folder, remote, _hidden_pairs(data, hidden, (rows, others)) | {"labels": truth})


def prepare_parts(launch: LaunchSettings, s: UserSettings) -> tuple[PartitionedGraph, HiddenEdges]:
    """The same of a graph that was partitioned before: its parts without what is hidden, one in memory at a time."""
    spec, manifest = launch.dataset, read_manifest(launch.dataset)
    labels = labels_among(manifest.forward, s.labels)
    how: How = s.holdout if s.holdout in ("time", "user") else usual(manifest.name)
    words = f"{PartitionedGraph(manifest.name, spec, manifest, labels).digest()} {how}"
    folder = _parts_folder(launch, manifest.name, manifest.parts, words)
    judged = folder.with_name(f"{folder.name}-judged")
    with run_dir.lock(folder, wait=True):
        if not has_manifest(folder):
            place = cached(spec, range(manifest.parts)) if is_s3(spec) else Path(spec).expanduser()
            PartsSplit(place, manifest, labels, how).write(folder, judged)
        written = read_manifest(folder)
        data = PartitionedGraph(manifest.name, str(folder), written, labels, (*written.notes, _parts_note(written)))
        return data, shown_to_judges(judged, run_dir.remote(launch, "partitions") if on_cluster() else None)


def send_parts(folder: Path, there: s3.Location) -> None:
    """Send a partition to S3, its manifest last; what is there already stays. Raises ServiceError."""
    have = s3.listing(there)
    for name, stored in read_manifest(folder).files.items():
        if name not in have or have[name].size != stored["bytes"]:
            s3.upload(folder / name, there / name)
    if MANIFEST not in have:
        s3.upload(folder / MANIFEST, there / MANIFEST)


class UserData(DataModule[UserSettings, PartitionedGraph]):
    """Users of heterogeneous graphs."""

    def load(self, launch: LaunchSettings, settings: UserSettings) -> Loaded:
        """The partitioned training graph and what is hidden, the users' groups too where they are known."""
        refuse_preparation(launch, "is for attributed graphs and feature tables; users come with their edges")
        spec, s = launch.dataset, settings
        in_parts = ("://" in spec or Path(spec).expanduser().is_dir()) and has_manifest(spec)
        if in_parts and s.holdout == "none":
            manifest = read_manifest(spec)
            note = "the graph was partitioned before and --holdout is none: nothing is hidden, recall cannot be told"
            labels, notes = labels_among(manifest.forward, s.labels), (*manifest.notes, note)
            return PartitionedGraph(manifest.name, spec, manifest, labels, notes), None, None
        make = prepare_parts if in_parts else prepare
        data, hidden = make(launch, s)
        return data, None, hidden

    def describe(self, data: PartitionedGraph) -> str:
        """Nodes by type, edges by relation, parts."""
        nodes = ", ".join(f"{n.count:,} {kind}s" for kind, n in data.manifest.nodes.items())
        edges = ", ".join(f"{data.manifest.edges[r].count:,} {r[1]}" for r in data.manifest.forward)
        return f"{nodes}; {edges}; {data.parts} part{'s' * (data.parts > 1)}"

    def offsets(self, data: PartitionedGraph, array: str = "") -> Integers | None:
        """Ranks own users, and of the array `others` the nodes at the other end; of maps and shifts rank 0 has all."""
        if array == "shift" or array.startswith("map_"):
            return None
        return np.asarray(data.manifest.nodes[data.others if array == "others" else data.rows].offsets)

    def judge(self, experiment: UserExperiment, group: ProcessGroup) -> Judge:
        """Indices in the fixed space, modularity of the user-user projection, recall of the validation pairs."""
        k, data = experiment.k, experiment.data
        if experiment.hidden is None:
            owners = Owners(np.asarray(data.manifest.nodes[data.rows].offsets), group)
            return lambda clusters, embeddings: (
                size_indices(clusters, k, owners)
                | (feature_indices(embeddings["embedding"], clusters, owners=owners) if embeddings else {})
            )
        users = user_rows(data, experiment.hidden, group)
        task, space = recall.make_task(users.train, users.valid, owners=users.owners), users.space

        def scored(clusters: NDArray[np.int64], embeddings: Arrays) -> dict[str, float]:
            scores = size_indices(clusters, k, users.owners) | feature_indices(space, clusters, owners=users.owners)
            scores["modularity"] = projection_modularity(users.train, clusters, users.owners)
            if "embedding" in embeddings:
                row = recall.u2u2i(task, embeddings["embedding"], clusters, "")
                scores[SCORE] = row.metrics[AT]
                scores["score"] = row.metrics[AT]
            return scores

        return scored

    def features(self, data: PartitionedGraph, rows: Integers | slice = ALL) -> NDArray[np.float32]:
        """The users' own, or a column of zeros where they have none."""
        numbers = np.arange(data.n_rows)[rows]
        if not data.n_features:
            return np.zeros((len(numbers), 1), np.float32)
        return data.connect().features(data.rows, numbers)

    def baselines(self, experiment: UserExperiment, group: ProcessGroup) -> Iterator[Baseline]:
        """k-means on the users' features, and on the fixed space (features at none and two steps)."""
        if experiment.hidden is None:
            return
        users = user_rows(experiment.data, experiment.hidden, group)
        k, shard = experiment.k, users.owners.shard
        spaces = ({} if users.x is None else {"kmeans": users.x}) | {"filter+kmeans": users.space}
        for name, space in spaces.items():
            for seed in experiment.seeds:
                x = torch.from_numpy(space)
                clusters = kmeans(x, k, (seed,), shard=shard, group=group, start_rows=START_ROWS).labels.numpy()
                yield name, clusters, {"embedding": space}

    def explain(self, experiment: UserExperiment, clusters: Integers, rows: Integers | slice = ALL) -> Explained:
        """Features of users by their difference between a cluster and the rest; None where they have none."""
        data = experiment.data
        if not data.n_features:
            return None
        return explain(self.features(data, rows), clusters, experiment.k, data.feature_names)

    def for_nodes(self, data: PartitionedGraph, launch: LaunchSettings) -> PartitionedGraph:
        """The parts where all nodes see them: they are sent to S3 with the results, or the folder is asked for on every
        node. Raises SettingsError where one does not see it, ServiceError.
        """
        if is_s3(data.place):
            return data
        there = run_dir.remote(launch, "partitions", Path(data.place).name)
        if there is None:
            check_seen(Path(data.place), launch.out)
            return data
        send_parts(Path(data.place), there)
        return replace(data, place=str(there))

    def serve(self, experiment: UserExperiment, workers: Workers | None) -> AbstractContextManager[PartitionedGraph]:
        """Files in process without workers, else one Ray actor a part. Raises as `for_nodes`, DataError for a damaged
        part.
        """
        data = experiment.data
        if workers is None:
            data.connect(verify=True)
            return nullcontext(data)
        if on_cluster():
            data = self.for_nodes(data, experiment.launch)
        return data.served(replicated=experiment.settings.topology == "replicated")

    def finish_seed(self, experiment: UserExperiment, run: Run, folder: Path, result: Result) -> None:
        """The seed's rows of the recall table and its link scores, by the ranks that own the users; not a trial's."""
        from ops.datamodules.users_results import score_seed

        if experiment.hidden is not None and run.seed in experiment.seeds:
            group, first = ProcessGroup(run.rank, run.world), run.seed == experiment.seeds[0]
            arrays: Arrays = {"last": result.assignment, "embedding": result.embedding, **result.more}
            score_seed(experiment, group, run.seed, arrays, folder, fixed=first)

    def finish(self, experiment: UserExperiment, rows: SeedRows, seed: int, run: RunTasks) -> Extras:
        """The recall table, link scores and the embeddings as Parquet (`users_results.py`)."""
        from ops.datamodules.users_results import finish

        return finish(experiment, rows, seed, run)
