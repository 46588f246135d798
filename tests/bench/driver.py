"""What the driver of a training over workers needs: `python tests/bench/driver.py [METHOD] [USERS ...]`.

Private memory above that of a process which has imported the same, and bytes that the driver has read and written in
system calls (files, pipes, sockets) above that process's, of real Ray Train workers on planted users in four parts.
About ten minutes with nothing else running.
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
BAR, MOST = 1.15, 300  # the largest run's peak by the smallest one's; MiB
IMPORTS = (
    "import ray, ray.train.torch, mlflow, torch, workflows.train, ops.training.trainer, ops.datamodules.users, time;"
    "from ops import memory; memory.preload(); print('ready', flush=True); time.sleep(60)"
)


def private(pid):
    """Bytes that no other process shares."""
    words = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    return sum(int(w[1]) for w in words if w[0].startswith("Private_")) * 1024


def moved(pid):
    """Bytes read and written in system calls."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"]) + int(counts["wchar"])


def imports():
    """(private bytes, bytes moved) of a process that has imported what the driver imports."""
    with subprocess.Popen([sys.executable, "-c", IMPORTS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        found = private(process.pid), moved(process.pid)
        process.kill()
    return found


def driver(method, users):
    """(peak of private bytes, bytes moved, exit code) of a training's driver."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable, str(ROOT / "workflows" / "train.py"), method, "--out", out, "--name", "run", "--epochs",
            "1", "--dataset", f"planted:users={users},notes={users // 2},clusters=8,mean_edges=10", "--parts", "4",
            "--partition", "hash", "--workers", "2", "--threads", "1", "--epoch-steps", "8", "--n-clusters", "8",
            "--quiet",
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        process = subprocess.Popen(command, cwd=out, env=environment | {"OMP_NUM_THREADS": "1"})
        most = bytes_moved = 0
        while process.poll() is None:
            with suppress(OSError, IndexError, ValueError):
                most, bytes_moved = max(most, private(process.pid)), moved(process.pid)
            time.sleep(0.5)
    return most, bytes_moved, process.returncode


def main(method="twhin", *sizes):
    """A line a size, and whether the bar is kept."""
    before = imports()
    peaks = []
    for users in map(int, sizes or (20_000, 160_000)):
        most, bytes_moved, code = driver(method, users)
        peaks.append(most - before[0])
        print(f"{method}, {users:,} users, 4 parts, 2 workers: driver's peak {peaks[-1] / 2**20:.0f} MiB above the "
              f"{before[0] / 2**20:.0f} of its imports, {(bytes_moved - before[1]) / 2**20:,.0f} MiB read and written, "
              f"exit code {code}", flush=True)  # fmt: skip
    ratio, largest = peaks[-1] / peaks[0], max(peaks) / 2**20
    kept = "kept" if ratio <= BAR and largest <= MOST else "BROKEN"
    print(f"{ratio:.2f} times, at most {largest:.0f} MiB: bar {BAR} times and {MOST} MiB {kept}")


if __name__ == "__main__":
    main(*sys.argv[1:])
