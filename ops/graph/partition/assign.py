"""The part of each node, within a build: by a keyed hash, METIS, or Fennel as one stream or in waves.

Axes: N nodes of all types in one numbering (type by type, sorted), P parts, B blocks, M links (edges both ways).
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.types.hetero import Relation
from ops.graph.partition import tasks
from ops.graph.partition.arrays import open_arrays, write_arrays
from ops.graph.partition.csr import Csr, build_csr, index_dtype, number_nodes
from ops.graph.partition.executors import RunTasks, run_missing
from ops.graph.partition.fennel import fennel_stream, fennel_waves, part_dtype
from ops.graph.partition.metis import fill_empty, metis_by_degree
from ops.graph.partition.tasks import BuildPlan
from ops.rng import generator

BLOCKS, BLOCK_NODES, BLOCK_LINKS = 64, 256, 1 << 25  # blocks; least nodes and most links of each
Say = Callable[[str], None]


def assign_parts(
    plan: BuildPlan, sizes: Mapping[str, int], symmetric: Mapping[Relation, bool], run: RunTasks, say: Say
) -> NDArray[np.int64]:
    """The part of every node [N]; no part is empty (P <= N). `sizes` are the nodes by type, sorted."""
    request = plan.request
    if request.parts == 1:
        return np.zeros(sum(sizes.values()), dtype=np.int64)
    if request.method == "hash":
        return hash_parts(list(sizes.values()), request.parts, request.seed)
    bounds = _blocks(plan, sizes, symmetric, run)
    ends = np.cumsum(list(sizes.values())).astype(np.int64)
    blocks = [plan.work / "blocks" / f"{b:06d}" for b in range(bounds.size - 1)]
    if request.method == "fennel" and request.form == "waves":
        part = _waves(plan, blocks, bounds, ends, run, say)
    else:
        links = _whole(blocks, int(ends[-1]))
        links = _simple(links) if request.simple else links
        if request.method == "metis":
            say("metis: partitioning in this process")
            part = metis_by_degree(links.indptr, links.indices, request.parts, request.seed)
        else:
            part = fennel_stream(links.indptr, links.indices, ends, request.parts, request.seed, say)
    return fill_empty(part.astype(np.int64), request.parts)


def hash_parts(sizes: Sequence[int], parts: int, seed: int) -> NDArray[np.int64]:
    """`id % P` after a keyed permutation of the rows of each type: [N]; sizes differ by at most one node of each type.

    Each type begins at the part where the one before it ended, so that parts of many small types fill up too.
    """
    first, assigned = 0, []
    for t, size in enumerate(sizes):
        assigned.append((generator(seed, "partition", t).permutation(size).astype(np.int64) + first) % parts)
        first += size
    return np.concatenate(assigned)


def _blocks(
    plan: BuildPlan, sizes: Mapping[str, int], symmetric: Mapping[Relation, bool], run: RunTasks
) -> NDArray[np.int64]:
    """The bounds of the blocks [B + 1], whose adjacency is then on disk. Their number depends on the data alone."""
    n, first = 0, {}
    for kind, size in sizes.items():
        first[kind], n = n, n + size
    folder, chunks = plan.stored.folder, [(r, i) for r, count in plan.stored.edges.items() for i in range(count)]
    numbers = plan.work / "blocks.numbers"
    if not numbers.exists():
        links = sum(open_arrays(folder("edges", r, i))["src"].size * (2 - symmetric[r]) for r, i in chunks)
        count = min(max(min(BLOCKS, n // BLOCK_NODES), -(-links // BLOCK_LINKS), 1), n)
        write_arrays(numbers, number_nodes(np.arange(n, dtype=np.int64) * count // n, count))  # ranges: numbers stay
    bounds = np.asarray(open_arrays(numbers)["offsets"])
    blocks = [(plan.work / "blocks" / f"{b:06d}", (tasks.make_block, (plan, b))) for b in range(bounds.size - 1)]
    if not all(path.exists() for path, _ in blocks):
        run_missing(run, "links", [
            (folder("links", r, i), (tasks.link_blocks, (plan, r, i, first, not symmetric[r]))) for r, i in chunks
        ])  # fmt: skip
        run_missing(run, "blocks", blocks)
    return bounds


def _whole(blocks: Sequence[Path], n: int) -> Csr:
    """The adjacency of all blocks as one CSR matrix."""
    arrays = [open_arrays(folder) for folder in blocks]
    degrees = np.concatenate([np.diff(block["indptr"]) for block in arrays])
    indices = np.empty(sum(block["indices"].size for block in arrays), dtype=index_dtype(n))
    np.concatenate([block["indices"] for block in arrays], out=indices)
    return Csr(np.concatenate([[0], np.cumsum(degrees)]), indices)


def _simple(links: Csr) -> Csr:
    """The adjacency with each edge once and without self loops."""
    n = links.indptr.size - 1
    rows = np.repeat(np.arange(n, dtype=links.indices.dtype), np.diff(links.indptr))
    keep = rows != links.indices
    return build_csr({"src": links.indices[keep], "dst": rows[keep]}, n, n)[0]


def _waves(
    plan: BuildPlan, blocks: Sequence[Path], bounds: NDArray[np.int64], ends: NDArray[np.int64], run: RunTasks, say: Say
) -> NDArray[Any]:
    """Fennel in waves of tasks, which map the parts as they were before the wave; finished rounds are stored."""
    folder, request = plan.work / "rounds", plan.request
    degree = np.concatenate([np.diff(open_arrays(block)["indptr"]) for block in blocks])
    sizes = np.diff(ends, prepend=0).tolist()
    start, turn = hash_parts(sizes, request.parts, request.seed).astype(part_dtype(request.parts)), 0
    kept = sorted(folder.glob("round.*"))
    if kept:
        start, turn = np.array(open_arrays(kept[-1])["part"]), int(kept[-1].name.rpartition(".")[2])

    def place(
        now: int, wave: Sequence[int], part: NDArray[Any], load: NDArray[Any], rooms: Sequence[NDArray[Any]],
        mean: NDArray[Any],
    ) -> list[NDArray[Any]]:  # fmt: skip
        before = folder / f"wave.{now:03d}.{wave[0]:06d}"
        write_arrays(before, {"part": part})
        jobs = [(tasks.place, (blocks[b], before, int(bounds[b]), ends, load, room, mean, request.seed, now))
                for b, room in zip(wave, rooms, strict=True)]  # fmt: skip
        placed = dict(run("", jobs))
        shutil.rmtree(before)
        return [placed[int(bounds[b])] for b in wave]

    def keep(now: int, part: NDArray[Any]) -> None:
        write_arrays(folder / f"round.{now:03d}", {"part": part})
        shutil.rmtree(folder / f"round.{now - 1:03d}", ignore_errors=True)

    return fennel_waves(start, turn, degree, bounds, ends, request.parts, place, keep, say)
