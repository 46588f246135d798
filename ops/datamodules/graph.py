"""Runs on attributed graphs: nodes are clustered, judged in one fixed space and on their edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.config.settings import LaunchSettings, MethodSettings
from ops.data.io.validate import make_graph
from ops.data.load import load as load_graph
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError
from ops.evaluation import baselines as compared
from ops.evaluation.unlabelled import GraphJudge
from ops.graph.partition.manifest import Manifest, has_manifest, read_manifest
from ops.graph.partition.shards import to_homogeneous
from ops.graph.sampling.part_service import cached
from ops.storage.s3 import is_s3

if TYPE_CHECKING:
    from ops.datamodules.base import Judge
    from ops.training.experiment import Job


def load(launch: LaunchSettings, settings: MethodSettings) -> tuple[AttributedGraph, NDArray[np.int64] | None, None]:
    """The graph and its labels; a folder of parts, here or on S3, is read as a whole and keeps its parts."""
    spec = launch.dataset
    if ("://" in spec or Path(spec).expanduser().is_dir()) and has_manifest(spec):
        return _from_parts(spec, read_manifest(spec)), None, None
    data, labels = load_graph(launch.dataset, knn=launch.knn, knn_metric=launch.knn_metric)
    return data, labels, None


def _from_parts(spec: str, manifest: Manifest) -> AttributedGraph:
    folder = cached(spec, range(manifest.parts)) if is_s3(spec) else Path(spec).expanduser()
    x, edge_index, ids, part = to_homogeneous(folder)
    if x is None:
        raise DataError(f"{spec}: its nodes have no features; partition a graph that has some")
    names = next(iter(manifest.nodes.values())).names or None
    graph = make_graph(manifest.name, x, edge_index, ids=ids, feature_names=names, origin=spec)
    made = manifest.partitioner.get("method", "given")
    return replace(graph.with_notes(f"{manifest.parts} parts made before by {made}"), part=part)


def describe(data: AttributedGraph) -> str:
    """Nodes, features, edges."""
    edges = data.edge_index.shape[1]
    return f"{data.n_nodes:,} nodes, {data.n_features:,} features, {edges:,} directed edges"


def sweep(data: AttributedGraph) -> dict[str, Any]:
    """See `ops.evaluation.select_k`."""
    from ops.evaluation.select_k import sweep as choose

    return choose(data)


def judge(job: Job) -> Judge:
    """Indices in the fixed space and on the edges."""
    found = GraphJudge(job.data, job.resolved.settings.k)
    return lambda clusters, embeddings: found(clusters)


def features(data: AttributedGraph) -> NDArray[np.float32]:
    """X."""
    return data.x


def baselines(job: Job) -> Iterator[tuple[str, dict[str, float]]]:
    """k-means on X and on the filtered X."""
    judges, settings = job.judges, job.resolved.settings
    order = job.resolved.method.baseline_order(settings)
    for name, _, found in compared.baselines(job.data, settings.k, job.seeds, order):
        yield name, judges.unlabelled(found, {}) | judges.evaluator(found)


def explain(job: Job, clusters: NDArray[np.int64]) -> list[dict[str, Any]] | None:
    """Features by their difference between a cluster and the rest."""
    from ops.evaluation.explain import explain as differences

    found: list[dict[str, Any]]
    found = differences(job.data.x, clusters, job.resolved.settings.k, job.data.feature_names)
    return found


def serve(job: Job) -> AbstractContextManager[AttributedGraph]:
    """The graph itself: it travels through Ray's object store."""
    return nullcontext(job.data)


def finish(job: Job, folder: Path, folders: Mapping[int, Path], chosen: int) -> dict[str, Any]:
    """Nothing besides."""
    return {}
