"""Runs on heterogeneous graphs: users are clustered, judged by recall of hidden notes and by indices.

The graph is read, its last edges are hidden (`ops.data.splits`), the rest is partitioned once and kept beside the
results. Methods get the parts; hidden edges and planted groups stay with the judges.

Axes: U users (the rows), O notes (the other end), M hidden pairs, F features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from ops.api import Arrays, DataModule, Experiment, Judge
from ops.clustering.kmeans import START_ROWS, kmeans
from ops.config.data_settings import UserSettings
from ops.config.settings import LaunchSettings
from ops.data.hetero_load import load_hetero
from ops.data.io.ids import Lookup
from ops.data.load import refuse_preparation
from ops.data.splits import Split, split
from ops.data.types.hetero import HeteroGraph, find_relations
from ops.distributed.ray_session import check_seen
from ops.distributed.resources import Workers, on_cluster
from ops.errors import DataError
from ops.evaluation import recall
from ops.evaluation.projection import projection_modularity
from ops.evaluation.unlabelled import feature_indices, size_indices
from ops.graph.partition.manifest import MANIFEST, Manifest, has_manifest, read_manifest
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.batches import PARTITION_SEED
from ops.graph.sampling.dataset import PartitionedGraph
from ops.rng import generator
from ops.storage import object_store as s3
from ops.storage import run_dir
from ops.storage.object_store import is_s3

UserExperiment = Experiment[UserSettings, PartitionedGraph]
PROJECTED = 64  # random directions that stand for features where users have none
SCORED, AT = "recall_at_50", "recall@50"  # as MLflow takes names, and as tables have it


@dataclass(frozen=True)
class HiddenEdges:
    """What only judges see: training interactions [U O] (0 / 1), hidden pairs [2 M], a fixed space [U F]."""

    train: sp.csr_array
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    x: NDArray[np.float32] | None

    @cached_property
    def space(self) -> NDArray[np.float32]:
        """Features of users and of users at two steps, half each: a space that no setting moves.

        Without features, random directions (keyed) of the interactions stand for them.
        """
        b = self.train.astype(np.float32)
        scale = [1 / np.sqrt(np.maximum(np.diff(m.indptr), 1)) for m in (b, b.T.tocsr())]
        b = sp.csr_array(sp.diags_array(scale[0]) @ b @ sp.diags_array(scale[1]))
        if self.x is None:
            drawn = generator(0, "fixed space").standard_normal((b.shape[1], PROJECTED)).astype(np.float32)
            return np.asarray(b @ drawn, np.float32)
        return np.asarray((self.x + b @ (b.T @ self.x)) / 2, np.float32)


def _stored(spec: str, manifest: Manifest, s: UserSettings) -> PartitionedGraph:
    relations = find_relations(manifest.forward, s.labels)
    labels = tuple(r for r in relations if (r[0], r[2]) == (relations[0][0], relations[0][2]))
    note = "the graph was partitioned before: nothing is hidden, recall cannot be told"
    return PartitionedGraph(manifest.name, spec, manifest, labels, (*manifest.notes, note))


def _hidden_note(hidden: Split) -> str:
    c = hidden.counts
    return (f"hidden {hidden.hidden}: {c['valid pairs']:,} pairs for validation, {c['test pairs']:,} for the test; "
            f"{c['train pairs']:,} are left to train on")  # fmt: skip


def _parts_note(manifest: Manifest) -> str:
    if manifest.parts == 1:
        return "one part holds all"
    partitioner, report = manifest.partitioner, manifest.report
    return (f"{manifest.parts} parts by {partitioner['method']}: {report['cut']:.1%} of the edges lie between parts, "
            f"edges a part up to {report['stored']['imbalance']:.2f} times the mean")  # fmt: skip


def _key(graph: HeteroGraph, s: UserSettings) -> str:
    words = f"{graph.digest()} {s.parts} {s.partition} {PARTITION_SEED}"
    return f"{graph.name}-{s.parts}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def _hidden_edges(data: PartitionedGraph, hidden: Split, order: tuple[NDArray[np.int64], ...], x: Any) -> HiddenEdges:
    """What is hidden, in the numbers of the parts; `order`: the row of each number, for both ends."""
    number = [np.argsort(rows) for rows in order]
    shape = data.n_rows, data.count(data.others)
    edges = [hidden.train.edges[r] for r in data.labels]
    users, notes = (np.concatenate([getattr(e, end) for e in edges]) for end in ("src", "dst"))
    ones = np.ones(len(users))
    train = sp.csr_array((ones, (number[0][users], number[1][notes])), shape=shape)
    train.data[:] = 1
    valid, test = (np.stack([number[0][p[:, 0]], number[1][p[:, 1]]]) for p in (hidden.valid, hidden.test))
    for pairs, what in ((valid, "validation"), (test, "test")):
        if not np.isin(pairs[0], np.flatnonzero(np.diff(train.indptr))).any():
            raise DataError(
                f"{data.name}: no {data.rows} has both training and hidden {data.others}s for the {what}, hidden "
                f"{hidden.hidden}: recall cannot be told; give more edges, or another --holdout"
            )
    return HiddenEdges(train, valid, test, x)


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

    def load(
        self, launch: LaunchSettings, settings: UserSettings
    ) -> tuple[PartitionedGraph, NDArray[np.int64] | None, HiddenEdges | None]:
        """The partitioned training graph, the users' groups where they are known, and what is hidden.

        A folder of shards is taken as it is: nothing is hidden, so nothing is recalled.
        """
        refuse_preparation(launch, "is for attributed graphs and feature tables; users come with their edges")
        spec, s = launch.dataset, settings
        if ("://" in spec or Path(spec).expanduser().is_dir()) and has_manifest(spec):
            return _stored(spec, read_manifest(spec), s), None, None
        graph, groups = load_hetero(spec)
        hidden = split(graph, None if s.holdout == "auto" else s.holdout, label_relations=s.labels)
        folder = run_dir.open_folder(str(run_dir.local_out(launch) / "partitions"), _key(hidden.train, s))
        with run_dir.lock(folder, wait=True):  # of two starts on the same graph one writes
            if not has_manifest(folder):
                request = PartitionRequest(s.parts, s.partition, seed=PARTITION_SEED, simple=True)
                partition_in_memory(hidden.train, folder, request)
        manifest = read_manifest(folder)
        data = PartitionedGraph(
            graph.name,
            str(folder),
            manifest,
            hidden.relations,
            (*hidden.train.notes, _hidden_note(hidden), _parts_note(manifest)),
        )
        client, nodes = data.connect(), hidden.train.nodes
        rows, others = (Lookup(kind, nodes[kind].ids).rows(client.ids(kind)) for kind in (data.rows, data.others))
        truth = None if groups is None or data.rows not in groups else groups[data.rows][rows]
        x = nodes[data.rows].x
        return data, truth, _hidden_edges(data, hidden, (rows, others), None if x is None else x[rows])

    def describe(self, data: PartitionedGraph) -> str:
        """Nodes by type, edges by relation, parts."""
        nodes = ", ".join(f"{n.count:,} {kind}s" for kind, n in data.manifest.nodes.items())
        edges = ", ".join(f"{data.manifest.edges[r].count:,} {r[1]}" for r in data.manifest.forward)
        return f"{nodes}; {edges}; {data.parts} part{'s' * (data.parts > 1)}"

    def judge(self, experiment: UserExperiment) -> Judge:
        """Indices in the fixed space, modularity of the user-user projection, recall of the validation pairs."""
        hidden_edges: HiddenEdges | None = experiment.hidden
        k = experiment.k
        task = (
            None
            if hidden_edges is None
            else recall.make_task(hidden_edges.train, (hidden_edges.valid[0], hidden_edges.valid[1]))
        )

        def scored(clusters: NDArray[np.int64], embeddings: Arrays) -> dict[str, float]:
            scores = size_indices(clusters, k)
            if hidden_edges is None:
                return scores | feature_indices(embeddings["embedding"], clusters)
            scores |= feature_indices(hidden_edges.space, clusters)
            scores["modularity"] = projection_modularity(hidden_edges.train, clusters)
            if task is not None and "embedding" in embeddings:
                row = recall.u2u2i(task, embeddings["embedding"], clusters, "")
                scores[SCORED] = row.metrics[AT]
                scores["score"] = row.metrics[AT]
            return scores

        return scored

    def features(self, data: PartitionedGraph) -> NDArray[np.float32]:
        """The users' own, or a column of zeros where they have none."""
        if not data.n_features:
            return np.zeros((data.n_rows, 1), np.float32)
        return data.connect().features(data.rows, np.arange(data.n_rows))

    def baselines(self, experiment: UserExperiment) -> Iterator[tuple[str, NDArray[np.int64], Arrays]]:
        """k-means on the users' features, and on the fixed space (features at none and two steps)."""
        hidden_edges: HiddenEdges | None = experiment.hidden
        spaces = {} if hidden_edges is None or hidden_edges.x is None else {"kmeans": hidden_edges.x}
        spaces |= {} if hidden_edges is None else {"filter+kmeans": hidden_edges.space}
        for name, space in spaces.items():
            for seed in experiment.seeds:
                x = torch.from_numpy(space)
                clusters = kmeans(x, experiment.k, (seed,), start_rows=START_ROWS).labels.numpy()
                yield name, clusters, {"embedding": space}

    def explain(self, experiment: UserExperiment, clusters: NDArray[np.int64]) -> list[dict[str, Any]] | None:
        """Features of users by their difference between a cluster and the rest; None where they have none."""
        from ops.evaluation.explain import explain

        data = experiment.data
        return explain(self.features(data), clusters, experiment.k, data.feature_names) if data.n_features else None

    def serve(self, experiment: UserExperiment, workers: Workers | None) -> AbstractContextManager[PartitionedGraph]:
        """Files in process without workers, else one Ray actor a part.

        On a cluster the parts have to be where all nodes see them: they are sent to S3 with the results, or the folder
        is asked for on every node. Raises SettingsError where one does not see it, DataError for a damaged part,
        ServiceError.
        """
        data, launch = experiment.data, experiment.launch
        if workers is None:
            data.connect(verify=True)
            return nullcontext(data)
        if on_cluster() and not is_s3(data.place):
            there = run_dir.remote(launch, "partitions", Path(data.place).name)
            if there is None:
                check_seen(Path(data.place), launch.out)
            else:
                send_parts(Path(data.place), there)
                data = replace(data, place=str(there))
        return data.served(replicated=experiment.settings.topology == "replicated")

    def finish(
        self,
        experiment: UserExperiment,
        folder: Path,
        folders: Mapping[int, Path],
        model_seed: int,
    ) -> dict[str, Any]:
        """The recall table, link scores and the embeddings as Parquet (`users_results.py`)."""
        from ops.datamodules.users_results import finish

        return finish(experiment, folder, folders, model_seed)
