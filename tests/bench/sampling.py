"""Sampling, alone and through the graph service: `python tests/bench/sampling.py [NODES]`; ratios of one run."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ops.data.types.hetero import Edges, HeteroGraph, Nodes
from ops.distributed.ray_session import ray_session
from ops.graph.partition.pipeline import partition_in_memory
from ops.graph.partition.tasks import PartitionRequest
from ops.graph.sampling.client import remote_client, start_service
from ops.graph.sampling.dataset import PartitionedGraph
from ops.graph.sampling.neighbor_sampler import Neighbourhood

ROOTS, FANOUT, TIMES, FEATURES = 1024, (10, 10), 32, 64
EDGE = ("node", "edge", "node")


def graph(n, degree=16, seed=0):
    """A random graph whose degrees follow a power law."""
    rng = np.random.default_rng(seed)
    weight = (1 - rng.random(n)) ** -0.5
    ends = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(n * degree // 2)).clip(max=n - 1)
    u, v = rng.permutation(ends), rng.integers(0, n, len(ends))
    pairs = np.unique(np.concatenate([u * n + v, v * n + u]))
    x = rng.random((n, FEATURES), np.float32)
    return HeteroGraph("bench", {"node": Nodes(np.arange(n), x)}, {EDGE: Edges(pairs // n, pairs % n)})


def cpu_of(pids):
    """CPU seconds of other processes so far."""
    ticks = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids)
    return sum(int(user) + int(system) for user, system in ticks) / 100


def measured(client, mode, featured, pids=(), together=4):
    """(CPU seconds a batch, all processes; edges a batch), over the same keyed batches, some of them a call."""
    rng, edges = np.random.default_rng(1), 0
    roots = [np.sort(rng.choice(client.manifest.nodes["node"].count, ROOTS, replace=False)) for _ in range(TIMES)]
    client.sample({"node": roots[0]}, FANOUT, (0, 0, 0, 0), mode, featured=featured)  # compiled, mapped, cached
    before = time.process_time() + cpu_of(pids)
    wanted = [Neighbourhood({"node": ids}, FANOUT, (0, 0, 0, number), mode) for number, ids in enumerate(roots)]
    for at in range(0, TIMES, together):
        edges += sum(each.edges for each in client.samples(wanted[at : at + together], featured))
    return (time.process_time() + cpu_of(pids) - before) / TIMES, edges / TIMES


def main(n=1_000_000):
    import ray

    planted = graph(n)
    print(f"{n:,} nodes, {planted.edges[EDGE].count:,} directed edges, {ROOTS:,} roots, fan-out 10 x 10", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for parts in (1, 4):
            place = f"{folder}/{parts}"
            request = PartitionRequest(parts, "given", feature_dtype="float16")
            manifest = partition_in_memory(planted, Path(place), request, {"node": np.arange(n) * parts // n})
            local = PartitionedGraph("bench", place, manifest, (EDGE,)).connect()
            if parts == 1:
                for mode in ("replace", "distinct", "padded"):
                    seconds, edges = measured(local, mode, ())
                    print(f"  local, {mode}: {edges / seconds / 1e6:.1f} M edges/s a core, renumbering included",
                          flush=True)  # fmt: skip
        alone, edges = min(measured(local, "distinct", ("node",), together=many) for many in (1, 4))
        with ray_session(2):
            actors = start_service(place, manifest)
            pids = [each["pid"] for each in ray.get([a.health.remote() for a in actors])]
            for share, together in ((0.1, 1), (0.1, 2), (0.0, 8), (0.1, 8)):
                client = remote_client(place, manifest, actors)
                client.cache_share = share
                seconds, _ = measured(client, "distinct", ("node",), pids, together)
                print(f"  with {FEATURES} features, 4 parts: local {1e3 * alone:.1f} CPU-ms a batch, 4 actors, cache "
                      f"{share:g}, {together} batches a call: {1e3 * seconds:.1f}, {seconds / alone:.2f} times",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main(*(int(float(a)) for a in sys.argv[1:2]))
