"""A small random heterogeneous graph, and its shards, for the tests of what lies above them."""

from pathlib import Path

import numpy as np

from ops.data.types.hetero import Edges, HeteroGraph, Nodes
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.dataset import PartitionedGraph

FOLLOW, SHARE = ("user", "follow", "note"), ("user", "share", "note")


def small_graph(users: int = 60, notes: int = 40, edges: int = 400, seed: int = 0) -> HeteroGraph:
    """Users and notes with features, two relations between them; some nodes have no edge."""
    rng = np.random.default_rng(seed)
    relations = {}
    for relation in (FOLLOW, SHARE):
        pairs = np.unique(rng.integers(0, [users - 2, notes - 1], (edges, 2)), axis=0)
        relations[relation] = Edges(pairs[:, 0], pairs[:, 1], rng.random(len(pairs), np.float32), None)
    x = {"user": rng.random((users, 5), np.float32), "note": rng.random((notes, 3), np.float32)}
    ids = {"user": np.arange(1000, 1000 + users), "note": np.array([f"n{i:03d}" for i in range(notes)])}
    return HeteroGraph("small", {k: Nodes(ids[k], x[k]) for k in x}, relations)


def small_parts(folder: Path, parts: int, graph: HeteroGraph | None = None) -> PartitionedGraph:
    """Its shards with nodes dealt round."""
    graph = graph or small_graph()
    part_of = {kind: np.arange(nodes.count) % parts for kind, nodes in graph.nodes.items()}
    manifest = partition_in_memory(graph, folder / f"parts-{parts}", PartitionRequest(parts, "given"), part_of)
    return PartitionedGraph("small", str(folder / f"parts-{parts}"), manifest, (FOLLOW, SHARE))
