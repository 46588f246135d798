"""The tasks of a build: each reads folders of arrays in the work folder and writes one, or the files of one part.

A task is a function of its arguments and of files written before it. So it may run anywhere, again, or in any order
within its stage. `pipeline.py` has the stages. Axes: N nodes, M edges of a chunk, P parts, B blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import Relation, relation_name
from ops.errors import DataError
from ops.graph.partition.arrays import open_arrays, read_rows_of_part, write_arrays
from ops.graph.partition.csr import EdgeColumns, build_csr, by_part, node_print, part_counts, route_edges
from ops.graph.partition.shards import write_part
from ops.graph.partition.tables import StoredTables

METIS_EDGES, STREAM_EDGES = 50_000_000, 4_000_000  # edges up to which METIS and the stream are the default


@dataclass(frozen=True)
class PartitionRequest:
    """What was asked for: `method` hash, fennel, metis, auto or given; `form` of Fennel stream, waves or auto.

    `simple`: repeated edges and self loops do not count for the assignment.
    """

    parts: int
    method: str = "auto"
    form: str = "stream"
    seed: int = 0
    feature_dtype: str = "float32"
    simple: bool = False

    def resolved(self, types: int, links: int) -> PartitionRequest:
        """The request without auto, which the node types and the directed edges (without added reverse ones) decide."""
        method, form = self.method, self.form
        if method == "auto":
            method = "metis" if types == 1 and links <= METIS_EDGES else "fennel"
        if form == "auto":
            form = "stream" if links <= STREAM_EDGES else "waves"
        return replace(self, method=method, form=form)

    def partitioner(self) -> dict[str, Any]:
        """The request as it stands in the manifest."""
        seed = {"seed": self.seed} if self.method != "given" else {}
        form = {"form": self.form} if self.method == "fennel" and not self.simple else {}
        return {"method": self.method, **seed, **form}


@dataclass(frozen=True)
class BuildPlan:
    """What every task needs.

    `relations`: each relation of the shards, with the one that it is the reverse of, or None.
    """

    stored: StoredTables
    request: PartitionRequest
    relations: dict[Relation, Relation | None]

    @property
    def work(self) -> Path:
        """The work folder."""
        return self.stored.work


def link_blocks(plan: BuildPlan, relation: Relation, number: int, bases: Mapping[str, int], both: bool) -> None:
    """Map: a chunk of edges by the block of their destination, numbered over all types; `both`: in both directions."""
    edges = open_arrays(plan.stored.folder("edges", relation, number))
    blocks = open_arrays(plan.work / "blocks.numbers")
    dtype = blocks["number"].dtype
    src, dst = (edges[end].astype(dtype) + dtype.type(bases[kind])
                for end, kind in (("src", relation[0]), ("dst", relation[2])))  # fmt: skip
    if both:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    write_arrays(plan.stored.folder("links", relation, number), route_edges({"src": src, "dst": dst}, blocks, blocks))


def make_block(plan: BuildPlan, block: int) -> None:
    """Reduce: the undirected adjacency of the nodes of a block, with repeats."""
    offsets = open_arrays(plan.work / "blocks.numbers")["offsets"]
    edges = _gather([folder for r in plan.stored.edges for folder in plan.stored.folders("links", r)], block)
    csr, _ = build_csr(edges, int(offsets[block + 1] - offsets[block]), int(offsets[-1]), merge=False)
    write_arrays(plan.work / "blocks" / f"{block:06d}", csr.columns())


def place(
    block: Path, parts: Path, first: int, ends: NDArray[np.int64], load: NDArray[np.float64],
    room: NDArray[np.float64], mean: NDArray[np.float64], seed: int, turn: int,
) -> tuple[int, NDArray[Any]]:  # fmt: skip
    """One block of a wave of Fennel, whose nodes begin at `first`: returns `first` and the new parts of its nodes."""
    from ops.graph.partition.fennel import place_block

    links, part = open_arrays(block), open_arrays(parts)["part"]
    return first, place_block(links["indptr"], links["indices"], first, part, ends, load, room, mean, seed, turn)


def route_nodes(plan: BuildPlan, kind: str, number: int, first: int) -> None:
    """Map: a chunk of nodes, beginning at row `first`, as runs by part: ids and features in the stored dtypes."""
    nodes = open_arrays(plan.stored.folder("nodes", kind, number))
    ids, x, feature_dtype = nodes["ids"], nodes.get("x"), plan.request.feature_dtype
    part = open_arrays(plan.work / "numbers" / kind)["part"][first : first + ids.size]
    order, bounds = by_part(part, plan.request.parts)
    with np.errstate(over="ignore"):
        narrow = None if x is None else x.astype(feature_dtype, copy=False)[order]
    if narrow is not None and feature_dtype == "float16" and not np.isfinite(narrow).all():
        raise DataError(f"{plan.stored.name}, {kind} nodes from {first} on: a feature is beyond float16's range "
                        "(65,504); rescale, or --feature-dtype float32")  # fmt: skip
    arrays = {"bounds": bounds, "ids": ids.astype(plan.stored.id_dtype[kind], copy=False)[order], "x": narrow}
    write_arrays(plan.stored.folder("routed", kind, number), arrays, {"print": node_print(ids, x, first)})


def route_relation(plan: BuildPlan, relation: Relation, number: int) -> None:
    """Map: a chunk of a relation (reversed for a reverse one) as runs by the part of the destination."""
    origin = plan.relations[relation]
    edges = open_arrays(plan.stored.folder("edges", origin or relation, number))
    if origin is not None:
        edges["src"], edges["dst"] = edges["dst"], edges["src"]
    source, target = (open_arrays(plan.work / "numbers" / kind) for kind in (relation[0], relation[2]))
    write_arrays(plan.stored.folder("routed", relation, number), route_edges(edges, source, target))


def make_part(plan: BuildPlan, out: Path, part: int) -> int:
    """Reduce: the files of one part from its runs, chunk by chunk; its facts are counts and manifest entries."""
    offsets = {kind: open_arrays(plan.work / "numbers" / kind)["offsets"] for kind in plan.stored.nodes}
    arrays: dict[str, NDArray[Any]] = {}
    for kind in plan.stored.nodes:
        nodes = _gather(plan.stored.folders("routed", kind), part)
        arrays |= {f"{'feat' if name == 'x' else name}.{kind}": array for name, array in nodes.items()}
    csrs = {}
    for relation, origin in plan.relations.items():
        chunks = range(plan.stored.edges[origin or relation])
        edges = _gather([plan.stored.folder("routed", relation, number) for number in chunks], part)
        rows = offsets[relation[2]][part : part + 2]
        csrs[relation] = csr, _ = build_csr(edges, int(rows[1] - rows[0]), int(offsets[relation[0]][-1]))
        arrays |= {f"{relation_name(relation)}.{column}": array for column, array in csr.columns().items()}
    facts = {"counts": part_counts(csrs, offsets, part), "files": write_part(out, part, arrays)}
    write_arrays(plan.stored.folder("parts", "part", part), {}, facts)
    return part


def _gather(folders: Sequence[Path], part: int) -> EdgeColumns:
    """The rows of one part (or block) from many folders, one folder after the other."""
    runs = [read_rows_of_part(folder, part) for folder in folders]
    return {name: np.concatenate([run.pop(name) for run in runs]) for name in list(runs[0])}
