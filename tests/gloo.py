"""Runs a function in several processes joined by a gloo group on the loopback address."""

import os
import socket
import sys

import torch
import torch.distributed as dist


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _worker(rank, world, port, function, arguments, queue, paths):
    sys.path[:0] = [p for p in paths if p not in sys.path]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    try:
        queue.put((rank, function(rank, world, *arguments)))
    finally:
        dist.barrier()
        dist.destroy_process_group()


def run_in_processes(world, function, *arguments):
    """What `function(rank, world, *arguments)` returns in each of `world` processes, by rank; numpy values, please."""
    context = torch.multiprocessing.get_context("spawn")
    queue, port = context.Queue(), _free_port()
    workers = [
        context.Process(target=_worker, args=(rank, world, port, function, arguments, queue, sys.path))
        for rank in range(world)
    ]
    for worker in workers:
        worker.start()
    try:
        found = dict(queue.get(timeout=400) for _ in workers)
    finally:
        for worker in workers:
            worker.join(60)
            if worker.is_alive():
                worker.kill()
    assert all(worker.exitcode == 0 for worker in workers)
    return [found[rank] for rank in range(world)]
