"""The tasks of a build over files: each reads some packs of the work folder and writes one, or one part.

A task is a function of its arguments and of the files written before it, so any of them may run anywhere, again, or in
any order within its stage. `pipeline.py` has the stages. Axes: N nodes, M edges of a chunk, P parts, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.chunked import read_edges, read_nodes
from ops.data.io.chunks import Chunk, place_of
from ops.data.io.csr import check_csr
from ops.data.types.hetero import Relation, relation_name
from ops.errors import DataError
from ops.graph.partition.array_file import open_pack, read_facts, read_run, save_pack
from ops.graph.partition.csr import (
    DAMAGED,
    Csr,
    Numbering,
    Runs,
    edge_print,
    index_dtype,
    node_print,
    part_counts,
    route_edges,
    sort_rows,
)
from ops.graph.partition.shards_write import csr_of, narrow, part_arrays, write_part


@dataclass(frozen=True)
class Plan:
    """What every task has to know: small, the same for all. `chunks`: how many, by node type or relation name."""

    work: Path
    parts: int
    feature_dtype: str
    chunks: dict[str, int]
    features: dict[str, int]
    relations: dict[Relation, Relation | None]
    id_dtype: dict[str, str]

    def pack(self, stage: str, key: str, number: int | None = None) -> Path:
        """Where a stage keeps what it made of a chunk (or of a type as a whole)."""
        return self.work / stage / (key if number is None else f"{key}.{number:06d}")


def take_ids(work: Path, kind: str, number: int, chunk: Chunk) -> dict[str, Any]:
    """Map: the ids of a chunk of nodes; everything about its features is checked on the way."""
    ids, _ = read_nodes(chunk)
    facts = {"count": int(ids.size), "dtype": ids.dtype.str}
    save_pack(work / "ids" / f"{kind}.{number:06d}", {"ids": ids}, facts)
    return facts


def write_book(path: Path, ids: NDArray[Any]) -> NDArray[np.int64] | None:
    """Store how the rows of `ids` [N] are found; None, or where ids repeat: the rows of the first repeated one."""
    n = ids.size
    facts: dict[str, Any] = {"how": "sorted", "count": n, "dtype": ids.dtype.str}
    kind = index_dtype(n)
    if ids.dtype.kind == "i" and np.array_equal(ids, np.arange(n)):
        save_pack(path, {}, facts | {"how": "identity"})
        return None
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if same.size:
        return order[same[0] : same[0] + 2].astype(np.int64)
    if ids.dtype.kind == "i" and int(ranked[-1]) - int(ranked[0]) < 4 * n + 1024:
        table = np.full(int(ranked[-1]) - int(ranked[0]) + 1, -1, dtype=kind)
        table[ids - ranked[0]] = np.arange(n, dtype=kind)
        save_pack(path, {"table": table}, facts | {"how": "table", "low": int(ranked[0])})
        return None
    save_pack(path, {"ids": ranked, "rows": order.astype(kind)}, facts)
    return None


def open_book(path: Path) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The function from ids [M] to rows [M] (-1: no such node) of a stored book."""
    facts, arrays = read_facts(path), open_pack(path)
    n, numbers = facts["count"], np.dtype(facts["dtype"]).kind == "i"
    kind = index_dtype(n)

    def find(ids: NDArray[Any]) -> NDArray[Any]:
        if numbers and ids.dtype.kind != "i":  # a word is no number
            return np.full(ids.size, -1, dtype=kind)
        keys: NDArray[Any] = ids if numbers else ids.astype(np.str_, copy=False)
        if facts["how"] != "sorted":
            at, table = keys - facts.get("low", 0), arrays.get("table")
            outside = (at < 0) | (at >= (n if table is None else table.size))
            rows: NDArray[Any] = np.where(outside, 0, at) if outside.any() else at
            rows = rows.astype(kind) if table is None else table[rows]
            rows[outside] = -1
            return rows
        # in the width of the book, which would be copied otherwise; what that cuts off is unequal below
        at = np.minimum(np.searchsorted(arrays["ids"], keys.astype(arrays["ids"].dtype, copy=False)), n - 1)
        found: NDArray[Any] = np.where(arrays["ids"][at] == keys, arrays["rows"][at], -1).astype(kind)
        return found

    return find


def take_edges(work: Path, relation: Relation, number: int, chunk: Chunk) -> dict[str, Any]:
    """Map: a chunk of edges with rows in place of ids. Raises DataError (file, row, id) for an unknown node."""
    src_ids, dst_ids, weight, time = read_edges(chunk)
    ends = []
    for kind, ids in ((relation[0], src_ids), (relation[2], dst_ids)):
        rows = open_book(work / "book" / kind)(ids)
        lost = rows < 0
        if lost.any():
            at = int(lost.argmax())
            raise DataError(f"{place_of(chunk)(at)}: {ids[at].item()!r} is not among the ids of the {kind} nodes; "
                            "add the node or remove the edge")  # fmt: skip
        ends.append(rows)
    src, dst = _alike(*ends)
    facts = {"print": edge_print(src, dst, weight, time)}
    arrays = {"src": src, "dst": dst, "weight": weight, "time": time}
    save_pack(work / "edges" / f"{relation_name(relation)}.{number:06d}", arrays, facts)
    return facts


def _alike(src: NDArray[Any], dst: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both ends in one dtype, so that a loop is compiled once."""
    kind = np.promote_types(src.dtype, dst.dtype)
    return src.astype(kind, copy=False), dst.astype(kind, copy=False)


def save_numbering(path: Path, numbering: Numbering) -> None:
    """Store new numbers of one type: mapped by the tasks that route."""
    save_pack(
        path,
        {"part": numbering.part, "number": numbering.number, "local": numbering.local(), "offsets": numbering.offsets},
    )


def link_blocks(plan: Plan, relation: Relation, number: int, bases: Mapping[str, int], both: bool) -> None:
    """Map: a chunk of edges by the block of the node that they lead to, in the numbering of all types; `both` ways."""
    edges, book = open_pack(plan.pack("edges", relation_name(relation), number)), open_pack(plan.work / "blocks.book")
    kind = book["number"].dtype
    src = edges["src"].astype(kind) + kind.type(bases[relation[0]])
    dst = edges["dst"].astype(kind) + kind.type(bases[relation[2]])
    if both:
        src, dst = np.concatenate([src, dst]), np.concatenate([dst, src])
    runs = route_edges(src, dst, None, None, book["number"], book["part"], book["local"], book["offsets"].size - 1)
    arrays = {"bounds": runs.bounds, "src": runs.src, "dst": runs.dst}
    save_pack(plan.pack("links", relation_name(relation), number), arrays)


def make_block(plan: Plan, block: int) -> None:
    """Reduce: the undirected adjacency of a block's nodes, repeats kept (they count)."""
    offsets = open_pack(plan.work / "blocks.book")["offsets"]
    names = [relation_name(r) for r, origin in plan.relations.items() if origin is None]
    run = _gather([plan.pack("links", name, i) for name in names for i in range(plan.chunks[name])], block)
    indptr = np.zeros(int(offsets[block + 1] - offsets[block]) + 1, dtype=np.int64)
    indices = np.empty(run.src.size, dtype=run.src.dtype)
    sort_rows(run.src, run.dst, indptr, indices, np.empty(0, dtype=np.int64))
    save_pack(plan.work / "blocks" / f"{block:06d}", {"indptr": indptr, "indices": indices})


def open_block(work: Path, block: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """(indptr, indices) of a block as `make_block` stored it. Raises DataError where it is no sound adjacency."""
    offsets, path = open_pack(work / "blocks.book")["offsets"], work / "blocks" / f"{block:06d}"
    pack = open_pack(path)
    check_csr(str(path), pack["indptr"], pack["indices"], (int(offsets[block + 1] - offsets[block]), int(offsets[-1])))
    return pack["indptr"], pack["indices"]


def open_parts(path: Path, n: int, parts: int) -> NDArray[Any]:
    """The stored part of every node [N], -1: none yet. Raises DataError for another length or a part out of range."""
    part = open_pack(path)["part"]
    if part.shape != (n,) or not -1 <= int(part.min(initial=0)) <= int(part.max(initial=0)) < parts:
        raise DataError(f"{path}: must hold a part in -1..{parts - 1} for each of {n} nodes; {DAMAGED}")
    return part


def place(
    work: Path, book: Path, block: int, first: int, ends: NDArray[np.int64], load: NDArray[np.float64],
    room: NDArray[np.float64], mean: NDArray[np.float64], seed: int, turn: int,
) -> tuple[int, NDArray[Any]]:  # fmt: skip
    """One block of a wave of Fennel against the stored book: its number and the new parts of its nodes."""
    from ops.graph.partition.fennel import place_block

    indptr, indices = open_block(work, block)
    part = open_parts(book, int(ends[-1]), load.shape[1])
    return block, place_block(indptr, indices, first, part, ends, load, room, mean, seed, turn)


def route_nodes(plan: Plan, kind: str, number: int, chunk: Chunk, first: int) -> dict[str, Any]:
    """Map: a chunk of nodes, rows `first` and on, as runs by owner: ids and features in the stored dtypes."""
    ids, x = read_nodes(chunk)
    ids = ids.astype(plan.id_dtype[kind], copy=False)
    book = open_pack(plan.work / "numbers" / kind)
    part = book["part"][first : first + ids.size]
    order = np.argsort(part, kind="stable")
    bounds = np.zeros(plan.parts + 1, dtype=np.int64)
    np.cumsum(np.bincount(part, minlength=plan.parts), out=bounds[1:])
    stored = None if x is None else narrow(x, plan.feature_dtype, f"{place_of(chunk)(0)} and on")[order]
    facts = {"print": node_print(ids, x, first)}
    save_pack(plan.pack("nodes", kind, number), {"bounds": bounds, "ids": ids[order], "x": stored}, facts)
    return facts


def route_relation(plan: Plan, relation: Relation, number: int) -> None:
    """Map: a chunk of a relation (turned round for a reverse one) as runs by the owner of the destination."""
    origin = plan.relations[relation]
    edges = open_pack(plan.pack("edges", relation_name(origin or relation), number))
    source, target = (open_pack(plan.work / "numbers" / kind) for kind in (relation[0], relation[2]))
    src, dst = (edges["src"], edges["dst"]) if origin is None else (edges["dst"], edges["src"])
    runs = route_edges(src, dst, edges.get("weight"), edges.get("time"), source["number"], target["part"],
                       target["local"], plan.parts)  # fmt: skip
    arrays = {"bounds": runs.bounds, "src": runs.src, "dst": runs.dst, "weight": runs.weight, "time": runs.time}
    save_pack(plan.pack("routed", relation_name(relation), number), arrays)


def make_part(plan: Plan, out: Path, part: int) -> dict[str, Any]:
    """Reduce: one part's files from its runs in the order of the chunks. Returns its counts and files."""
    offsets = {kind: open_pack(plan.work / "numbers" / kind)["offsets"] for kind in plan.features}
    ids, features = {}, {}
    for kind, width in plan.features.items():
        runs = [read_run(plan.pack("nodes", kind, i), part) for i in range(plan.chunks[kind])]
        ids[kind] = np.concatenate([run["ids"] for run in runs])
        features[kind] = np.concatenate([run["x"] for run in runs]) if width else None
    csrs: dict[Relation, tuple[Csr, int]] = {}
    for relation, origin in plan.relations.items():
        count = plan.chunks[relation_name(origin or relation)]
        run = _gather([plan.pack("routed", relation_name(relation), i) for i in range(count)], part)
        csrs[relation] = csr_of(run, relation, offsets, part)
    counts = part_counts({relation_name(r): (r[0], r[2], csr, m) for r, (csr, m) in csrs.items()}, offsets, part)
    arrays = part_arrays(ids, features, {relation_name(r): csr for r, (csr, _) in csrs.items()})
    facts = {"part": part, "counts": counts, "files": write_part(out, part, arrays)}
    save_pack(plan.pack("parts", "part", part), {}, facts)
    return facts


def _gather(paths: list[Path], part: int) -> Runs:
    """The runs of one part (or block) in many packs as one."""
    runs = [read_run(path, part) for path in paths]
    src, dst = (np.concatenate([run.pop(name) for run in runs]) for name in ("src", "dst"))
    weight = np.concatenate([run.pop("weight") for run in runs]) if "weight" in runs[0] else None
    time = np.concatenate([run.pop("time") for run in runs]) if "time" in runs[0] else None
    return Runs(np.array([0, src.size], dtype=np.int64), src, dst, weight, time)
