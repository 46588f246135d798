"""A checkpoint of many tables over workers into an S3 server: `python tests/bench/checkpoint.py [MIB] [MBIT]`.

512 MiB over four Ray Train workers against one worker's share by itself, wall seconds; the server runs beside them on
the same cores, so both the ratio and the rates are this machine's. Then a worker is killed while it uploads. Two
minutes. With MBIT every worker has a link of its own of so many Mbit/s to the server, as on nodes of its own: all runs
in a network namespace (as root), where the worker's traffic to an address of its own is shaped.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "helpers"), str(ROOT)]

import ray  # noqa: E402
import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from s3_world import BUCKET, S3  # noqa: E402

from ops.api import State  # noqa: E402
from ops.distributed.ray_session import ray_session  # noqa: E402
from ops.distributed.rendezvous import torch_config  # noqa: E402
from ops.storage import object_store  # noqa: E402
from ops.storage.connection import file_system  # noqa: E402
from ops.training.checkpoint import FOLDER, WorkerCheckpoints, load_latest  # noqa: E402

WORKERS, BAR = 4, 1.5


def work(config):
    """Save a checkpoint twice; rank 0 returns wall and CPU seconds of the second, in which rank 1 may be killed."""
    import ray.train

    rank, world = ray.train.get_context().get_world_rank(), ray.train.get_context().get_world_size()
    if config["shaped"]:  # Ray Train has its file system from the driver
        from ray.train.v2._internal.execution.context import get_train_context

        os.environ["AWS_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL"].replace("127.0.0.1", f"127.0.1.{rank + 1}")
        get_train_context().storage_context.storage_filesystem = file_system(object_store.parse(config["place"]))
    tables = torch.rand(config["mib"] << 18, generator=torch.Generator().manual_seed(rank))
    checkpoints, seconds = WorkerCheckpoints(object_store.parse(config["place"]) / FOLDER, rank, world), 0.0
    for epoch in (0, 1):
        if world > 1:
            dist.barrier()
        if epoch and config["kill"] and rank == 1:
            threading.Timer(seconds / 2, os.kill, (os.getpid(), signal.SIGKILL)).start()
        began, cpu = time.monotonic(), time.process_time()
        checkpoints.save(State(epoch, {"epoch": epoch} if rank == 0 else {}, {rank: {"table": tables}}))
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return seconds, cpu


def shape(mbit):
    """Limit what this namespace sends to each of the workers' addresses of the server."""
    commands = ["ip link set lo up", "tc qdisc add dev lo root handle 1: htb"]
    for number in range(1, WORKERS + 1):
        commands += [
            f"tc class add dev lo parent 1: classid 1:{number} htb rate {mbit}mbit burst 256k cburst 256k",
            f"tc filter add dev lo parent 1: protocol ip u32 match ip dst 127.0.1.{number}/32 flowid 1:{number}",
        ]
    for command in commands:
        subprocess.run(command.split(), check=True)


def saved(place, world, mib, *, kill=False, shaped=False):
    """(wall, rank 0's CPU seconds) of a checkpoint of `mib` MiB by each of `world` workers, None if one was killed."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        work,
        train_loop_config={"place": place, "mib": mib, "kill": kill, "shaped": shaped},
        scaling_config=ScalingConfig(num_workers=world, resources_per_worker={"CPU": 1.0}),
        torch_config=torch_config(0),
        run_config=RunConfig(name=FOLDER, storage_path=place, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        return trainer.fit().return_value
    except ray.train.TrainingFailedError:
        return None


def cpu_of(pid):
    """CPU seconds of another process so far."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / 100


def main(mib=512, mbit=0):
    if mbit and "SHAPED" not in os.environ:
        command = ["unshare", "--net", sys.executable, *sys.argv]
        sys.exit(subprocess.run(command, env=os.environ | {"SHAPED": "1"}, check=False).returncode)
    if mbit:
        shape(mbit)
    with tempfile.TemporaryDirectory() as folder:
        server = S3(Path(folder), volumes=250, bind="0.0.0.0" if mbit else "127.0.0.1")  # nobody else is in there
        os.environ |= server.environment
        server.start()
        try:
            with ray_session(WORKERS + 1):
                alone, _ = saved(f"s3://{BUCKET}/alone", 1, mib // WORKERS, shaped=mbit > 0)
                before = cpu_of(server.process.pid)
                together, cpu = saved(f"s3://{BUCKET}/together", WORKERS, mib // WORKERS, shaped=mbit > 0)
                served = (cpu_of(server.process.pid) - before) / 2  # of one of the two checkpoints
                print(
                    f"{mib} MiB of tables over {WORKERS} workers{f' with {mbit} Mbit/s each' if mbit else ''} into an "
                    f"S3 server: {together:.2f} s, one worker's "
                    f"share by itself {alone:.2f} s: {together / alone:.2f} times, bar {BAR} "
                    f"{'kept' if together / alone <= BAR else 'BROKEN'}; on {len(os.sched_getaffinity(0))} cores, "
                    f"which give {WORKERS} x {cpu:.2f} CPU-s to workers and {served:.2f} to the server",
                    flush=True,
                )
                place = f"s3://{BUCKET}/killed"
                ended = saved(place, WORKERS, mib // WORKERS, kill=True)
                newest = load_latest(object_store.parse(place) / FOLDER)
                files = object_store.listing(object_store.parse(place) / FOLDER / "epoch-00000001")
                print(f"a worker killed while it uploads: the group {'went on' if ended else 'ended'}, "
                      f"{len(files)} files of the second checkpoint are there, the one in use is of epoch "
                      f"{newest.epoch} ({len(newest.parts)} parts)")  # fmt: skip
        finally:
            server.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
