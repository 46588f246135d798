"""Which part owns each node, within a build over files: a keyed hash, METIS, or Fennel as one stream or in waves.

Axes: N nodes of all types in one numbering (type by type, sorted), P parts, B blocks, M links (edges both ways).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.csr import check_offsets
from ops.data.types.hetero import Relation, relation_name
from ops.graph.partition import tasks
from ops.graph.partition.array_file import open_pack, save_pack
from ops.graph.partition.csr import index_dtype, number_nodes
from ops.graph.partition.fennel import fennel_stream, fennel_waves, part_dtype
from ops.graph.partition.tasks import Plan
from ops.rng import generator

if TYPE_CHECKING:
    from ops.graph.partition.pipeline import Request

BLOCKS, BLOCK_NODES, BLOCK_LINKS = 64, 256, 1 << 25  # fewer where they had fewer nodes, more where more links


def assignment(
    plan: Plan,
    request: Request,
    sizes: Mapping[str, int],
    symmetric: Mapping[Relation, bool],
    stage: Callable[[str, Any], None],
    each: Callable[[str, Any], Iterator[Any]],
    told: Callable[[str], None],
) -> NDArray[Any]:
    """The part of every node [N]; no part is empty (P <= N). `stage` runs tasks whose file is missing, `each` all."""
    from ops.graph.partition.metis import fill_empty

    if request.method == "hash":
        return hash_parts(list(sizes.values()), request.parts, request.seed)
    bounds = _blocks(plan, sizes, symmetric, stage)
    ends = np.cumsum(list(sizes.values())).astype(np.int64)
    packs = [plan.work / "blocks" / f"{b:06d}" for b in range(bounds.size - 1)]
    if request.method == "fennel" and request.form == "waves":
        part = _waves(plan, request, packs, bounds, ends, each, told)
    else:
        indptr, indices = _whole(plan.work, bounds)
        if request.method == "metis":
            from ops.graph.partition.metis import metis_by_degree

            told("metis: partitioning in this process")
            part = metis_by_degree(indptr, indices, request.parts, request.seed)
        else:
            part = fennel_stream(indptr, indices, ends, request.parts, request.seed, told)
    return fill_empty(part.astype(np.int64), request.parts)


def hash_parts(sizes: Sequence[int], parts: int, seed: int) -> NDArray[np.int64]:
    """`id % P` behind a keyed permutation of each type's rows: [N], equal to one node in each type.

    A type begins where the one before it ended, so that P parts of many small types fill up too.
    """
    first, found = 0, []
    for t, size in enumerate(sizes):
        found.append((generator(seed, "partition", t).permutation(size).astype(np.int64) + first) % parts)
        first += size
    return np.concatenate(found)


def _blocks(
    plan: Plan, sizes: Mapping[str, int], symmetric: Mapping[Relation, bool], stage: Callable[[str, Any], None]
) -> NDArray[np.int64]:
    """The blocks' bounds [B + 1]; their adjacency is on disk then. How many there are depends on the data alone."""
    n = sum(sizes.values())
    forward = [r for r, origin in plan.relations.items() if origin is None]
    bases = dict(zip(sizes, (np.cumsum(list(sizes.values())) - list(sizes.values())).tolist(), strict=True))
    chunks = [(r, i) for r in forward for i in range(plan.chunks[relation_name(r)])]
    book = plan.work / "blocks.book"
    if not book.exists():
        links = sum(
            open_pack(plan.pack("edges", relation_name(r), i))["src"].size * (2 - symmetric[r]) for r, i in chunks
        )
        count = min(max(min(BLOCKS, n // BLOCK_NODES), -(-links // BLOCK_LINKS), 1), n)
        block = (np.arange(n, dtype=np.int64) * count // n).astype(np.int32)
        own = number_nodes(block, count)  # blocks are ranges: numbers stay
        tasks.save_numbering(book, own)
    bounds = np.asarray(open_pack(book)["offsets"])
    check_offsets(str(book), "offsets", bounds, n)
    jobs = [(plan.pack("links", relation_name(r), i), (tasks.link_blocks, (plan, r, i, bases, not symmetric[r])))
            for r, i in chunks]  # fmt: skip
    made = [(plan.work / "blocks" / f"{b:06d}", (tasks.make_block, (plan, b))) for b in range(bounds.size - 1)]
    if not all(path.exists() for path, _ in made):
        stage("links", jobs)
        stage("blocks", made)
    return bounds


def _whole(work: Path, bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The adjacency of all blocks as one CSR."""
    n, blocks = int(bounds[-1]), [tasks.open_block(work, b) for b in range(bounds.size - 1)]
    indptr = np.zeros(n + 1, dtype=np.int64)
    indices = np.empty(sum(sources.size for _, sources in blocks), dtype=index_dtype(n))
    row = at = 0
    for starts, sources in blocks:
        rows, m = starts.size - 1, sources.size
        indptr[row + 1 : row + rows + 1] = starts[1:] + at
        indices[at : at + m] = sources
        row, at = row + rows, at + m
    return indptr, indices


def _degrees(path: Path) -> NDArray[np.int64]:
    """Of the nodes of a stored block."""
    pack = open_pack(path)
    check_offsets(str(path), "CSR indptr", pack["indptr"], pack["indices"].size)
    return np.diff(pack["indptr"])


def _waves(
    plan: Plan,
    request: Request,
    packs: Sequence[Path],
    bounds: NDArray[np.int64],
    ends: NDArray[np.int64],
    each: Callable[[str, Any], Iterator[Any]],
    told: Callable[[str], None],
) -> NDArray[Any]:
    """Fennel in waves of tasks; the book lies in a file that each wave's tasks map, a finished round is kept."""
    folder = plan.work / "rounds"
    degree = np.concatenate([_degrees(path) for path in packs])
    sizes = np.diff(np.concatenate([[0], ends])).tolist()
    start, turn = hash_parts(sizes, request.parts, request.seed).astype(part_dtype(request.parts)), 0
    kept = sorted(folder.glob("round.*"))
    if kept:
        start = np.array(tasks.open_parts(kept[-1], int(bounds[-1]), request.parts))
        turn = int(kept[-1].name.rpartition(".")[2])

    def place(
        now: int,
        blocks: list[int],
        part: NDArray[Any],
        load: NDArray[Any],
        rooms: list[NDArray[Any]],
        mean: NDArray[Any],
    ) -> list[NDArray[Any]]:
        book = folder / "wave"
        save_pack(book, {"part": part})
        jobs = [(tasks.place, (plan.work, book, b, int(bounds[b]), ends, load, room, mean, request.seed, now))
                for b, room in zip(blocks, rooms, strict=True)]  # fmt: skip
        found = dict(each("", jobs))
        return [found[b] for b in blocks]

    def keep(now: int, part: NDArray[Any]) -> None:
        save_pack(folder / f"round.{now:03d}", {"part": part})
        (folder / f"round.{now - 1:03d}").unlink(missing_ok=True)

    return fennel_waves(start, turn, degree, bounds, ends, request.parts, place, keep, told)
