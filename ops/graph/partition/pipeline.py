"""A build in stages over files: ids, book, edges, assignment, new numbers, runs by owner, parts, manifest.

Every stage is a list of tasks (`tasks.py`) that `each` runs, in this process or over Ray, in any order;
what is on disk already is not done again. Only the book (ids, owners and new numbers of the nodes) is ever whole in
one process; METIS and the stream of Fennel, which are for graphs that fit, take the adjacency too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ops.data.io.chunks import Chunk, Tables, place_of
from ops.data.io.ids import joined_ids
from ops.data.types.hetero import Relation, relation_name
from ops.errors import DataError
from ops.graph.partition import assign, tasks
from ops.graph.partition.array_file import open_pack, read_facts
from ops.graph.partition.csr import add_prints, graph_digest, number_nodes
from ops.graph.partition.manifest import EdgeInfo, Manifest, NodeInfo
from ops.graph.partition.shards_write import all_relations, is_symmetric, with_counts
from ops.graph.partition.tasks import Plan

Job = tuple[Callable[..., Any], tuple[Any, ...]]
Each = Callable[[str, Sequence[Job]], Iterator[Any]]  # (what it is called, tasks) -> their results as they end
METIS_EDGES, STREAM_EDGES = 50_000_000, 4_000_000  # up to these, METIS and the stream are the default


@dataclass(frozen=True)
class Request:
    """What is asked for: `method` hash, fennel, metis or auto, `form` of Fennel stream, waves or auto."""

    parts: int
    method: str
    form: str
    seed: int
    feature_dtype: str

    def resolved(self, types: int, links: int) -> Request:
        """Without auto, by the data alone: the node types, and the directed edges (without added reverse ones)."""
        method, form = self.method, self.form
        if method == "auto":
            method = "metis" if types == 1 and links <= METIS_EDGES else "fennel"
        if form == "auto":
            form = "stream" if links <= STREAM_EDGES else "waves"
        return replace(self, method=method, form=form)

    def partitioner(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        form = {"form": self.form} if self.method == "fennel" else {}
        return {"method": self.method, "seed": self.seed, **form}


def build(
    tables: Tables, request: Request, work: Path, out: Path, each: Each, told: Callable[[str], None],
    done: Callable[[int], None] = lambda part: None,
) -> Manifest:  # fmt: skip
    """All parts in `out`, and the manifest that is still to be written; `work` keeps what is between.

    `done(part)` is called once a part's files are in place. Raises DataError for what the input gets wrong.
    """
    counts, dtypes = _ids(tables, work, each)
    total = sum(sum(own) for own in counts.values())
    if request.parts > total:
        raise DataError(f"--parts {request.parts}: the graph has {total:,} nodes; parts must be <= nodes")
    prints = _edges(tables, work, each)
    request = request.resolved(len(counts), sum(own[0] for own in prints.values()))
    equal = {r: is_symmetric(r, prints[relation_name(r)]) for r in tables.edges}
    symmetric = {r: r in tables.symmetric or equal[r] for r in tables.edges}
    chunks = {kind: len(own) for kind, own in tables.nodes.items()}
    chunks |= {relation_name(r): len(own) for r, own in tables.edges.items()}
    features = {kind: tables.features.get(kind, 0) for kind in sorted(tables.nodes)}
    plan = Plan(work, request.parts, request.feature_dtype, chunks, features, all_relations(symmetric), dtypes)
    sizes = {kind: sum(own) for kind, own in sorted(counts.items())}
    _number(plan, request, sizes, equal, each, told)
    node_prints = _route(plan, tables, counts, each)
    facts = _parts(plan, out, each, done)
    manifest = Manifest(
        tables.name,
        graph_digest(node_prints, prints),
        request.partitioner(),
        request.parts,
        {k: NodeInfo(size, open_pack(work / "numbers" / k)["offsets"], features[k], request.feature_dtype, dtypes[k],
                     tables.names(k))
         for k, size in sizes.items()},
        {r: EdgeInfo(0, (o or r) in tables.weight, (o or r) in tables.time, None if o is None else relation_name(o),
                     symmetric.get(r, False)) for r, o in plan.relations.items()},
        {name: entry for own in facts for name, entry in own["files"].items()},
    )  # fmt: skip
    return with_counts(manifest, [own["counts"] for own in facts])


def run_stage(each: Each, name: str, jobs: Sequence[tuple[Path, Job]]) -> None:
    """Run the tasks whose file is not there yet."""
    for _ in each(name, [job for path, job in jobs if not path.exists()]):
        pass


def _ids(tables: Tables, work: Path, each: Each) -> tuple[dict[str, list[int]], dict[str, str]]:
    """(rows of every chunk, stored dtype of the ids) by node type, with the book on disk."""
    jobs = [(work / "ids" / f"{kind}.{i:06d}", (tasks.take_ids, (work, kind, i, chunk)))
            for kind, own in tables.nodes.items() for i, chunk in enumerate(own)]  # fmt: skip
    run_stage(each, "ids", jobs)
    counts, dtypes = {}, {}
    for kind, own in tables.nodes.items():
        paths = [work / "ids" / f"{kind}.{i:06d}" for i in range(len(own))]
        counts[kind] = [int(read_facts(path)["count"]) for path in paths]
        book = work / "book" / kind
        if not book.exists():
            ids = joined_ids([open_pack(path)["ids"] for path in paths])
            twice = tasks.write_book(book, ids)
            if twice is not None:
                first, again = (_place(own, counts[kind], int(row)) for row in twice)
                raise DataError(
                    f"{again}: id {ids[twice[1]].item()!r} stands twice (first in {first}); ids must differ"
                )
        found = np.dtype(read_facts(book)["dtype"])
        dtypes[kind] = "int64" if found.kind == "i" else found.str
    return counts, dtypes


def _place(chunks: Sequence[Chunk], counts: Sequence[int], row: int) -> str:
    """File and row of a row of all chunks."""
    ends = np.cumsum(counts)
    at = int(np.searchsorted(ends, row, side="right"))
    return place_of(chunks[at])(row - int(ends[at] - counts[at]))


def _edges(tables: Tables, work: Path, each: Each) -> dict[str, list[int]]:
    """Every relation's print, with its edges as rows on disk."""
    for relation in tables.edges:
        for kind in (relation[0], relation[2]):
            if kind not in tables.nodes:
                have = ", ".join(sorted(tables.nodes))
                raise DataError(f"{relation_name(relation)}: there is no node type {kind!r}; the graph has: {have}")
    jobs = [(work / "edges" / f"{relation_name(r)}.{i:06d}", (tasks.take_edges, (work, r, i, chunk)))
            for r, own in tables.edges.items() for i, chunk in enumerate(own)]  # fmt: skip
    run_stage(each, "edges", jobs)
    return {relation_name(r): add_prints([read_facts(work / "edges" / f"{relation_name(r)}.{i:06d}")["print"]
                                          for i in range(len(own))]) for r, own in tables.edges.items()}  # fmt: skip


def _number(
    plan: Plan, request: Request, sizes: dict[str, int], symmetric: dict[Relation, bool], each: Each,
    told: Callable[[str], None],
) -> None:  # fmt: skip
    """Owners and new numbers of all nodes on disk."""
    if all((plan.work / "numbers" / kind).exists() for kind in sizes):
        return
    part = assign.assignment(
        plan, request, sizes, symmetric, lambda name, jobs: run_stage(each, name, jobs), each, told
    )
    first = 0
    for kind, size in sizes.items():
        numbering = number_nodes(part[first : first + size], plan.parts)
        tasks.save_numbering(plan.work / "numbers" / kind, numbering)
        first += size
    for name in ("links", "blocks", "rounds"):
        shutil.rmtree(plan.work / name, ignore_errors=True)


def _route(plan: Plan, tables: Tables, counts: dict[str, list[int]], each: Each) -> dict[str, list[int]]:
    """Runs by owner of all chunks on disk; the print of every node type."""
    jobs: list[tuple[Path, Job]] = []
    for kind, own in tables.nodes.items():
        first = 0
        for i, chunk in enumerate(own):
            jobs.append((plan.pack("nodes", kind, i), (tasks.route_nodes, (plan, kind, i, chunk, first))))
            first += counts[kind][i]
    for relation, origin in plan.relations.items():
        for i in range(plan.chunks[relation_name(origin or relation)]):
            path = plan.pack("routed", relation_name(relation), i)
            jobs.append((path, (tasks.route_relation, (plan, relation, i))))
    run_stage(each, "routes", jobs)
    return {kind: add_prints([read_facts(plan.pack("nodes", kind, i))["print"] for i in range(len(own))])
            for kind, own in tables.nodes.items()}  # fmt: skip


def _parts(plan: Plan, out: Path, each: Each, done: Callable[[int], None]) -> list[dict[str, Any]]:
    """What each part's task told; a part whose file is there is only passed on to `done`."""
    paths = [plan.pack("parts", "part", p) for p in range(plan.parts)]
    for part, path in enumerate(paths):
        if path.exists():
            done(part)
    jobs: list[Job] = [(tasks.make_part, (plan, out, p)) for p, path in enumerate(paths) if not path.exists()]
    for told in each("parts", jobs):
        done(int(told["part"]))
    return [read_facts(path) for path in paths]
