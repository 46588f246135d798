"""Runs a function in several processes joined by a gloo group on the loopback address."""

import os
import queue as queues
import socket
import sys
import time
from contextlib import suppress

import torch
import torch.distributed as dist

from ops.eager import without_compiler

# Imports take a process six seconds; a server that has them forks the processes, and has computed nothing itself.
PRELOADED = ["sklearn.decomposition", "sklearn.metrics", "pytest", "hypothesis.extra.numpy"]
PRELOADED += [f"trainers.{name}" for name in ("hsan", "hgt", "twhin", "caegcn", "hadis", "ns4gc", "dmon")]
LONGEST = 900  # seconds; a busy machine is slow, not wrong


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(rank, world, port, function, arguments, queue, paths):
    sys.path[:0] = [p for p in paths if p not in sys.path]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    without_compiler()
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        queue.put((rank, function(rank, world, *arguments)))
    finally:
        dist.barrier()
        dist.destroy_process_group()


def run_in_processes(world, function, *arguments):
    """What `function(rank, world, *arguments)` returns in each of `world` processes, by rank; numpy values, please."""
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    queue, port = context.Queue(), _free_port()
    workers = [
        context.Process(target=_worker, args=(rank, world, port, function, arguments, queue, sys.path))
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    results, limit = {}, time.monotonic() + LONGEST
    try:
        while len(results) < world:
            with suppress(queues.Empty):
                results |= [queue.get(timeout=1)]
            assert not any(worker.exitcode for worker in workers), "a process has died"
            assert time.monotonic() < limit, "waited too long"
        for worker in workers:
            worker.join(LONGEST)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    return [results[rank] for rank in range(world)]
