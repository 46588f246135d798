"""Runs on attributed graphs: nodes are clustered, judged in one fixed space and on their edges."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ops.api import Experiment, Judge, PlainRun, Sweep
from ops.clustering.kmeans import kmeans
from ops.config.settings import LaunchSettings, MethodSettings
from ops.data.io.validate import make_graph
from ops.data.load import load as load_graph
from ops.data.load import prepared, refuse_preparation
from ops.data.types.graph import AttributedGraph
from ops.datamodules.base import ALL, Baseline, DataModule, Explained, Integers
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError
from ops.evaluation.baselines import UNTRAINED_SEEDS
from ops.evaluation.baselines import baselines as kmeans_baselines
from ops.evaluation.explain import explain
from ops.evaluation.unlabelled import GraphJudge
from ops.graph.partition.manifest import Manifest, has_manifest, read_manifest
from ops.graph.partition.shards import to_homogeneous
from ops.graph.sampling.part_service import cached
from ops.storage.object_store import is_s3

GraphExperiment = Experiment[MethodSettings, AttributedGraph]
FILTER_ORDER = 2  # of the baseline filter + k-means, where a method has no filter of its own


def _from_parts(spec: str, manifest: Manifest) -> AttributedGraph:
    folder = cached(spec, range(manifest.parts)) if is_s3(spec) else Path(spec).expanduser()
    x, edge_index, weight, ids, part = to_homogeneous(folder)
    if x is None:
        raise DataError(f"{spec}: its nodes have no features; partition a graph that has some")
    names = next(iter(manifest.nodes.values())).names or None
    graph = make_graph(manifest.name, x, edge_index, ids=ids, feature_names=names, origin=spec, weight=weight)
    partitioner = manifest.partitioner.get("method", "given")
    return replace(graph.with_notes(f"{manifest.parts} parts made before by {partitioner}"), part=part)


class GraphData(DataModule[MethodSettings, AttributedGraph]):
    """Attributed graphs: nodes with features."""

    def load(self, launch: LaunchSettings, settings: MethodSettings) -> tuple[AttributedGraph, Integers | None, None]:
        """The graph and its labels; a folder of parts, here or on S3, is read as a whole and keeps its parts."""
        spec = launch.dataset
        if ("://" in spec or Path(spec).expanduser().is_dir()) and has_manifest(spec):
            refuse_preparation(launch, f"{spec} is in parts; do this to its table before it is cut")
            return _from_parts(spec, read_manifest(spec)), None, None
        data, labels = load_graph(spec, k_given=settings.n_clusters is not None, **prepared(launch))
        return data, labels, None

    def describe(self, data: AttributedGraph) -> str:
        """Nodes, features, edges."""
        edges = data.edge_index.shape[1]
        return f"{data.n_nodes:,} nodes, {data.n_features:,} features, {edges:,} directed edges"

    def choose_k(self, data: AttributedGraph) -> Sweep:
        """See `ops.evaluation.select_k`."""
        from ops.evaluation.select_k import sweep

        return sweep(data)

    def judge(self, experiment: GraphExperiment, group: ProcessGroup) -> Judge:
        """Indices in the fixed space and on the edges."""
        scored = GraphJudge(experiment.data, experiment.k)
        return lambda clusters, embeddings: scored(clusters)

    def features(self, data: AttributedGraph, rows: Integers | slice = ALL) -> NDArray[np.float32]:
        """X."""
        return data.x[rows]

    def baselines(self, experiment: GraphExperiment, group: ProcessGroup) -> Iterator[Baseline]:
        """k-means on X, the filtered X and the degree; the quick linear methods; rows of the untrained network."""
        method, settings, seeds = experiment.method, experiment.settings, experiment.seeds
        order = method.filter_order(settings) if method.filter_order else FILTER_ORDER
        for name, _, clusters in kmeans_baselines(experiment.data, experiment.k, seeds, order):
            yield name, clusters, {}
        if settings.epochs > 1:  # a method that trains
            none = {"epochs": 0, "pretrain_epochs": 0}.items()
            untrained = settings.model_copy(update={k: v for k, v in none if k in type(settings).model_fields})
            for seed in seeds[:UNTRAINED_SEEDS]:
                result = method.train(untrained, experiment.data, PlainRun(seed))
                rows, spherical = torch.from_numpy(result.embedding), result.spherical
                yield "untrained", kmeans(rows, experiment.k, (seed, 0), spherical=spherical).labels.numpy(), {}

    def explain(self, experiment: GraphExperiment, clusters: Integers, rows: Integers | slice = ALL) -> Explained:
        """Features by their difference between a cluster and the rest."""
        data = experiment.data
        return explain(data.x[rows], clusters, experiment.k, data.feature_names, scaling=data.scaling)
