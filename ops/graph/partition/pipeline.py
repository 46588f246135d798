"""A build in stages over files: nodes, edges, assignment, new numbers, runs by part, parts, manifest.

Every stage is a list of tasks (`tasks.py`) that an executor runs, in this process or on Ray, in any order. What is on
disk already is not done again. Only ids, parts and new numbers of the nodes are ever complete in one process; METIS and
the stream of Fennel, which are for graphs that fit into memory, also take the adjacency.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import REVERSE, HeteroGraph, Relation, relation_name
from ops.errors import DataError, SettingsError
from ops.graph.partition import tasks
from ops.graph.partition.arrays import open_arrays, read_facts, write_arrays
from ops.graph.partition.assign import Say, assign_parts
from ops.graph.partition.csr import add_prints, graph_digest, number_nodes
from ops.graph.partition.executors import BuildTask, RunTasks, in_process, run_missing
from ops.graph.partition.manifest import WORK, EdgeInfo, Manifest, NodeInfo, has_manifest, turned, write_manifest
from ops.graph.partition.report import summary
from ops.graph.partition.tables import StoredTables, store_graph
from ops.graph.partition.tasks import BuildPlan, PartitionRequest

PartOf = Mapping[str, NDArray[np.int64]]


def partition_in_memory(
    graph: HeteroGraph, folder: Path, request: PartitionRequest, part_of: PartOf | None = None
) -> Manifest:
    """Write a graph in memory as shards, by the same build with all tasks in this process; returns the manifest.

    `part_of`, where it is given, has the part of each node by type, int64 [N] in [0, P). Raises SettingsError where the
    folder has a finished partition or cannot be written, DataError for more parts than nodes, and for names or features
    that cannot be stored.
    """
    if has_manifest(folder):
        raise SettingsError(f"{folder}: holds a partitioned graph already; give another folder or remove it")
    shutil.rmtree(folder / WORK, ignore_errors=True)
    try:
        manifest = build(store_graph(graph, folder / WORK), request, folder, in_process(), part_of=part_of)
        write_manifest(folder, manifest)
    finally:
        shutil.rmtree(folder / WORK, ignore_errors=True)
    return manifest


def build(
    stored: StoredTables, request: PartitionRequest, out: Path, run: RunTasks, say: Say = lambda line: None,
    done: Callable[[int], None] = lambda part: None, part_of: PartOf | None = None,
) -> Manifest:  # fmt: skip
    """Write all parts to `out`; returns the manifest, which the caller has to write.

    `done(part)` is called when the files of a part are complete. Raises DataError for faults of the input.
    """
    counts = {kind: [open_arrays(folder)["ids"].size for folder in stored.folders("nodes", kind)]
              for kind in stored.nodes}  # fmt: skip
    sizes = {kind: sum(rows) for kind, rows in counts.items()}
    if request.parts > sum(sizes.values()):
        raise DataError(f"--parts {request.parts}: the graph has {sum(sizes.values()):,} nodes; parts must be <= nodes")
    prints = {r: add_prints([read_facts(folder)["print"] for folder in stored.folders("edges", r)])
              for r in stored.edges}  # fmt: skip
    # equal to its transpose: the sums over the edges and over the reversed edges are equal
    equal = {r: r[0] == r[2] and sums[1] == sums[3] for r, sums in prints.items()}
    request = request.resolved(len(sizes), sum(sums[0] for sums in prints.values()))
    plan = BuildPlan(stored, request, _relations({r: equal[r] or r in stored.symmetric for r in equal}))
    if not all((stored.work / "numbers" / kind).exists() for kind in sizes):
        given = None if part_of is None else np.concatenate([part_of[kind] for kind in sizes])
        _number(plan, sizes, assign_parts(plan, sizes, equal, run, say) if given is None else given)
    _route(plan, counts, run)
    folders = [stored.folder("parts", "part", part) for part in range(request.parts)]
    missing = [part for part, folder in enumerate(folders) if not folder.exists()]
    for part in sorted(set(range(request.parts)).difference(missing)):
        done(part)
    for part in run("parts", [(tasks.make_part, (plan, out, part)) for part in missing]):
        done(part)
    node_prints = {kind: add_prints([read_facts(folder)["print"] for folder in stored.folders("routed", kind)])
                   for kind in sizes}  # fmt: skip
    digest = graph_digest(node_prints, {relation_name(r): sums for r, sums in prints.items()})
    return _manifest(plan, sizes, digest, [read_facts(folder) for folder in folders])


def _relations(symmetric: Mapping[Relation, bool]) -> dict[Relation, Relation | None]:
    """Every relation of the shards, sorted, with the relation that it is the reverse of, or None.

    A symmetric relation has no reverse. Raises DataError where a relation of the graph already has the name of a
    reverse one.
    """
    for relation in symmetric:
        if relation[1].startswith(REVERSE):
            raise DataError(f"{relation_name(relation)}: names that begin with {REVERSE} are taken by the reverse "
                            "relations that partitioning adds; give the relation another name")  # fmt: skip
    forward: dict[Relation, Relation | None] = dict.fromkeys(symmetric)
    return dict(sorted((forward | {turned(r): r for r, same in symmetric.items() if not same}).items()))


def _number(plan: BuildPlan, sizes: Mapping[str, int], part: NDArray[np.int64]) -> None:
    """Write parts and new numbers of all nodes to disk; the files that led to them are removed."""
    for kind, (first, last) in zip(sizes, pairwise(np.cumsum([0, *sizes.values()])), strict=True):
        write_arrays(plan.work / "numbers" / kind, number_nodes(part[first:last], plan.request.parts))
    for name in ("links", "blocks", "rounds"):
        shutil.rmtree(plan.work / name, ignore_errors=True)


def _route(plan: BuildPlan, counts: Mapping[str, Sequence[int]], run: RunTasks) -> None:
    """Write the runs by part of all chunks to disk."""
    folder = plan.stored.folder
    jobs: list[tuple[Path, BuildTask]] = []
    for kind, rows in counts.items():
        firsts = np.cumsum([0, *rows]).tolist()
        jobs += [(folder("routed", kind, i), (tasks.route_nodes, (plan, kind, i, firsts[i]))) for i in range(len(rows))]
    for relation, origin in plan.relations.items():
        jobs += [(folder("routed", relation, i), (tasks.route_relation, (plan, relation, i)))
                 for i in range(plan.stored.edges[origin or relation])]  # fmt: skip
    run_missing(run, "routes", jobs)


def _manifest(plan: BuildPlan, sizes: Mapping[str, int], digest: str, facts: Sequence[Mapping[str, Any]]) -> Manifest:
    stored, counts = plan.stored, [each["counts"] for each in facts]
    nodes, edges, notes = {}, {}, []
    for kind, size in sizes.items():
        x = open_arrays(stored.folder("nodes", kind)).get("x")
        nodes[kind] = NodeInfo(
            count=size, offsets=open_arrays(plan.work / "numbers" / kind)["offsets"],
            features=0 if x is None else x.shape[1], feature_dtype=plan.request.feature_dtype,
            id_dtype=stored.id_dtype[kind], names=stored.names[kind],
        )  # fmt: skip
    for relation, origin in plan.relations.items():
        name, columns = relation_name(relation), open_arrays(stored.folder("edges", origin or relation))
        weight, time = "weight" in columns, "time" in columns
        edges[relation] = EdgeInfo(
            count=sum(c["edges"][name] for c in counts), weight=weight, time=time,
            reverse_of=None if origin is None else relation_name(origin),
            symmetric=origin is None and turned(relation) not in plan.relations,
        )  # fmt: skip
        merged = sum(c["merged"][name] for c in counts)
        if origin is None and merged:
            how = ", ".join(["weights summed"] * weight + ["latest time kept"] * time)
            notes.append(f"{name}: {merged:,} repeated edges merged{f': {how}' if how else ''}")
    return Manifest(
        name=stored.name, digest=digest, partitioner=plan.request.partitioner(), parts=plan.request.parts, nodes=nodes,
        edges=edges, files=dict(sorted(entry for each in facts for entry in each["files"].items())),
        report=summary(sizes, map(relation_name, stored.edges), counts), notes=tuple(notes),
    )  # fmt: skip
