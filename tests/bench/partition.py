"""Partitioning on a planted homogeneous graph: edge cut and balance against pymetis, rates of the build, peak memory.

One thread, CPU seconds; ratios are of one run on one graph.

    python tests/bench/partition.py [NODES] [PARTS] [kernels|files|cut]
"""

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp

from ops import memory
from ops.config.console import Console
from ops.config.settings import PartitionSettings
from ops.data.hetero_load import open_graph
from ops.data.types.hetero import EDGE
from ops.datamodules.partitioning import run_partition
from ops.graph.partition.assign import hash_parts
from ops.graph.partition.csr import build_csr, number_nodes, route_edges
from ops.graph.partition.executors import in_process
from ops.graph.partition.fennel import fennel_stream, fennel_waves, part_dtype, place_block
from ops.graph.partition.pipeline import build
from ops.graph.partition.tables import store_tables
from ops.graph.partition.tasks import BuildPlan, PartitionRequest, make_part, route_relation

GROUPS, MIXING, ALPHA, MEAN_DEGREE, BLOCKS = 100, 0.3, 2.5, 16, 64
FILE_NODES, FILE_EDGES = 125_000, 1_000_000  # rows: chunks are the same at both sizes


def planted(n, seed=0):
    """Undirected pairs: power-law degrees, groups in random order, a share MIXING of the edges anywhere."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, n)
    weight = np.minimum((1 - rng.random(n)) ** (-1 / (ALPHA - 1)), np.sqrt(n))
    order = np.argsort(group, kind="stable")
    ends = np.concatenate([[0], np.cumsum(weight[order])])
    first = np.searchsorted(group[order], np.arange(GROUPS + 1))
    half = int(n * MEAN_DEGREE / 2 * 1.05)

    def drawn(low, high):
        at = np.searchsorted(ends, low + rng.random(half) * (high - low), side="right") - 1
        return order[np.clip(at, 0, n - 1)]

    u = drawn(np.zeros(half), np.full(half, ends[-1]))
    inside = rng.random(half) > MIXING
    low = np.where(inside, ends[first[group[u]]], 0.0)
    v = drawn(low, np.where(inside, ends[first[group[u] + 1]], ends[-1]))
    code = np.unique((np.minimum(u, v) * n + np.maximum(u, v))[u != v])
    return code // n, code % n


def adjacency(u, v, n):
    ones = np.ones(2 * u.size, dtype=np.int8)
    a = sp.csr_array((ones, (np.concatenate([u, v]), np.concatenate([v, u]))), shape=(n, n))
    a.sort_indices()
    return a.indptr.astype(np.int64), a.indices.astype(np.int32)


def quality(part, indptr, indices, parts):
    degree = np.diff(indptr)
    load = np.bincount(part, weights=degree, minlength=parts)
    return float(np.mean(np.repeat(part, degree) != part[indices])), float(load.max() / load.mean())


def timed(make):
    memory.reset_peak()
    before, began = memory.resident(), time.process_time()
    result = make()
    return result, time.process_time() - began, (memory.peak() - before) / 1e9


def in_waves(indptr, indices, ends, parts):
    n = indptr.size - 1
    bounds = (np.arange(BLOCKS + 1) * n // BLOCKS).astype(np.int64)

    def place(turn, blocks, part, load, rooms, mean):
        placed = []
        for b, room in zip(blocks, rooms, strict=True):
            a, e = bounds[b], bounds[b + 1]
            rows, links = indptr[a : e + 1] - indptr[a], indices[indptr[a] : indptr[e]]
            placed.append(place_block(rows, links, int(a), part.copy(), ends, load, room, mean, 0, turn))
        return placed

    start = hash_parts([n], parts, 0).astype(part_dtype(parts))
    return fennel_waves(start, 0, np.diff(indptr), bounds, ends, parts, place, lambda turn, part: None)


def metis(indptr, indices, parts, weights=None):
    import pymetis

    graph = pymetis.CSRAdjacency(indptr, indices.astype(np.int64))
    answer = pymetis.part_graph(parts, adjacency=graph, vweights=weights, options=pymetis.Options(seed=1))
    return np.asarray(answer.vertex_part)


def compare(indptr, indices, parts):
    n = indptr.size - 1
    ends = np.array([n], dtype=np.int64)
    fennel_stream(*adjacency(*planted(2000), 2000), np.array([2000]), parts, 0)  # compiles
    kinds = {
        "METIS (pymetis)": lambda: metis(indptr, indices, parts),
        "METIS, degrees balanced": lambda: metis(indptr, indices, parts, np.diff(indptr) + 1),
        "Fennel, one stream": lambda: fennel_stream(indptr, indices, ends, parts, 0),
        "Fennel, 8 waves of 64 blocks": lambda: in_waves(indptr, indices, ends, parts),
        "hash": lambda: hash_parts([n], parts, 0),
    }
    base = None
    for name, make in kinds.items():
        part, seconds, size = timed(make)
        cut, imbalance = quality(part, indptr, indices, parts)
        base = base or cut
        print(f"{name:30s} cut {cut:.3f} ({cut / base:.2f} x METIS')  edge imbalance {imbalance:.3f}  "
              f"{seconds:5.1f} CPU-s  {size:.2f} GB above the graph", flush=True)  # fmt: skip


def kernels(indptr, indices, parts):
    n = indptr.size - 1
    numbers = number_nodes(hash_parts([n], parts, 0), parts)
    edges = {"src": indices, "dst": np.repeat(np.arange(n, dtype=np.int32), np.diff(indptr))}

    def routed():
        return route_edges(edges, numbers, numbers)

    def reduced(runs):
        for part in range(parts):
            first, last = runs["bounds"][part : part + 2]
            run = {end: runs[end][first:last] for end in ("src", "dst")}
            build_csr(run, int(np.diff(numbers["offsets"])[part]), n)

    runs, first, _ = timed(routed)
    _, second, _ = timed(lambda: reduced(runs))
    rates = [indices.size / s / 1e6 for s in (first, second, first + second)]
    print(f"build kernels: map {rates[0]:.1f}, reduce {rates[1]:.1f}, both {rates[2]:.1f} M edges/s a core", flush=True)


def tables(folder, u, v, n):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    for kind in ("nodes/node", "edges/node__edge__node"):
        (folder / kind).mkdir(parents=True)
    for i, rows in enumerate(np.array_split(np.arange(n), -(-n // FILE_NODES))):
        x = rng.standard_normal((rows.size, 16)).astype(np.float32)
        table = pa.table({"id": rows} | {f"x{j}": x[:, j] for j in range(16)})
        pq.write_table(table, folder / f"nodes/node/{i:03d}.parquet", row_group_size=1 << 17)
    order = rng.permutation(2 * u.size)
    ends = np.concatenate([u, v])[order], np.concatenate([v, u])[order]
    for i, rows in enumerate(np.array_split(np.arange(order.size), -(-order.size // FILE_EDGES))):
        table = pa.table({"src": ends[0][rows], "dst": ends[1][rows]})
        pq.write_table(table, folder / f"edges/node__edge__node/{i:03d}.parquet", row_group_size=1 << 18)


def end_to_end(folder, edges, parts, method, name):
    settings = PartitionSettings(graph=str(folder / name), out=str(folder / f"{name}-{method}"), parts=parts,
                                 method=method, fennel="waves", tasks=0, feature_dtype="float16")  # fmt: skip
    began = time.process_time()
    summary = run_partition(settings, Console(quiet=True))
    seconds = time.process_time() - began
    print(f"end to end from Parquet, {edges / 1e6:.1f} M edges, {method}: {edges / seconds / 1e6:.2f} M edges/s a core "
          f"({seconds:.1f} CPU-s), edge cut {summary['report']['cut']:.3f}", flush=True)  # fmt: skip


def _peak_of(task, given):
    memory.preload()
    memory.reset_peak()
    before = memory.resident()
    task(*given)
    return memory.peak() - before


def task_peaks(folder, edges, parts, name):
    """A map and a reduce task, each alone in a process of its own: what it takes above its libraries."""
    run, out, request = in_process(), folder / f"{name}-kept", PartitionRequest(parts, "hash", feature_dtype="float16")
    stored = store_tables(open_graph(str(folder / name)), folder / f"{name}-work", run)
    build(stored, request, out, run)
    plan = BuildPlan(stored, request, {EDGE: None})
    jobs = {"map": (route_relation, (plan, EDGE, 0)), "reduce": (make_part, (plan, out, 0))}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        sizes = {kind: pool.apply(_peak_of, job) / 1e6 for kind, job in jobs.items()}
    print(f"{edges / 1e6:.1f} M edges in {parts} parts: " + ", ".join(f"{k} task {v:.0f} MB" for k, v in sizes.items()),
          flush=True)  # fmt: skip


def files(u, v, n, parts):
    """From Parquet to shards: the rate, and what a task takes where the graph is four times as large."""
    memory.preload()  # memory that is freed is given back: what a task takes can be seen
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        small = planted(n // 4)
        tables(folder / "small", *small, n // 4)
        tables(folder / "large", u, v, n)
        # parts grow with the graph, so that a shard stays as large as it was
        task_peaks(folder, 2 * small[0].size, max(parts // 4, 1), "small")
        task_peaks(folder, 2 * u.size, parts, "large")
        end_to_end(folder, 2 * small[0].size, max(parts // 4, 1), "hash", "small")
        end_to_end(folder, 2 * u.size, parts, "hash", "large")
        end_to_end(folder, 2 * u.size, parts, "fennel", "large")


def main(n=1_000_000, parts=20, only=""):
    u, v = planted(n)
    indptr, indices = adjacency(u, v, n)
    print(f"planted: {n:,} nodes, {indices.size:,} directed edges, {parts} parts", flush=True)
    if only in ("", "kernels"):
        kernels(indptr, indices, parts)
    if only in ("", "files"):
        files(u, v, n, parts)
    if only in ("", "cut"):
        compare(indptr, indices, parts)


if __name__ == "__main__":
    main(*(int(float(a)) for a in sys.argv[1:3]), *sys.argv[3:4])
