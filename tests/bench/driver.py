"""What the driver of a training over workers needs: `python tests/bench/driver.py [METHOD] [ROWS:PARTS ...]`.

Memory that the driver has written to and shares with no other process, looked at ten times a second, above that of a
process which has imported the same, with the last line that the driver had printed at its peak. (Pages of libraries
and of mapped files give way, and count as private or shared by who else runs: they are left out.) And bytes that the
driver's own threads have read and written in system calls (files, pipes, sockets) above that process's. Two real Ray
Train workers on planted users in so many parts, or, for a method of attributed graphs, on planted nodes of 500
features. About ten minutes with nothing else running.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
BAR, MOST = 1.15, 300  # the largest run's peak by the smallest one's; MiB
EVERY = 0.1  # seconds between two looks, for all sizes
IMPORTS = (
    "import ray, ray.train.torch, mlflow, torch, workflows.train, ops.training.trainer, ops.datamodules.users, time;"
    "from ops import memory; memory.preload(); print('ready', flush=True); time.sleep(60)"
)


def private(pid):
    """Bytes that the process has written to and no other process shares."""
    words = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    return sum(int(w[1]) for w in words if w[0] == "Private_Dirty:") * 1024


def moved(pid, threads):
    """Bytes read and written in system calls, by thread: those of a process have those of its ended children too."""
    for path in Path(f"/proc/{pid}/task").glob("*/io"):
        with suppress(OSError, KeyError):  # the thread has ended
            counts = dict(line.split(": ") for line in path.read_text().splitlines())
            threads[path.parent.name] = int(counts["rchar"]) + int(counts["wchar"])
    return sum(threads.values())


def imports():
    """(private bytes, bytes moved) of a process that has imported what the driver imports."""
    with subprocess.Popen([sys.executable, "-c", IMPORTS], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        before = private(process.pid), moved(process.pid, {})
        process.kill()
    return before


def data(method, parts, rows):
    """What a training is given of its data."""
    from trainers import METHODS

    if METHODS[method].kind == "users":
        users = f"planted:users={rows},notes={rows // 2},clusters=8,mean_edges=10"
        return ["--dataset", users, "--parts", parts, "--partition", "hash", "--epoch-steps", "8"]
    return ["--dataset", f"planted:nodes={rows},clusters=8,features=500"]


def driver(method, parts, rows):
    """(peak of private bytes, what was printed last at the peak, bytes moved, exit code) of a training's driver."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable, str(ROOT / "workflows" / "train.py"), method, "--out", out, "--name", "run", "--epochs",
            "1", "--workers", "2", "--threads", "1", "--n-clusters", "8", *data(method, parts, rows),
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, cwd=out, env=environment, **pipes)
        printed = ["nothing"]
        reader = threading.Thread(
            target=lambda: printed.extend(line.strip() for line in process.stdout if line.strip())
        )
        reader.start()
        most, last, bytes_moved = 0, printed[0], 0
        threads = {}
        while process.poll() is None:
            with suppress(OSError, IndexError, ValueError):
                size, line, bytes_moved = private(process.pid), printed[-1], moved(process.pid, threads)
                most, last = max((most, last), (size, line), key=lambda each: each[0])
            time.sleep(EVERY)
        reader.join()
        if process.returncode:
            print("\n".join(printed))
    return most, last, bytes_moved, process.returncode


def main(method="twhin", *sizes):
    """A line a size, and whether the bars are kept."""
    before = imports()
    peaks = []
    for size in sizes or ("20000:4", "160000:4"):
        rows, _, parts = size.partition(":")
        rows = int(rows)
        most, last, bytes_moved, code = driver(method, parts, rows)
        if code:
            sys.exit(f"{method}, {rows:,} rows: the training has ended with {code}")
        peaks.append(most - before[0])
        private_mib, bytes_mib = peaks[-1] / 2**20, (bytes_moved - before[1]) / 2**20
        what = f"{method}, {rows:,} rows{f', {parts} parts' if parts else ''}, 2 workers"
        print(f"{what}: driver's peak {private_mib:.0f} MiB above the "
              f"{before[0] / 2**20:.0f} of its imports (behind: {last[:80]}), {bytes_mib:,.0f} MiB read and written",
              flush=True)  # fmt: skip
    ratio, largest = peaks[-1] / peaks[0], max(peaks) / 2**20
    print(f"{ratio:.2f} times: bar {BAR} times {'kept' if ratio <= BAR else 'BROKEN'}; "
          f"at most {largest:.0f} MiB: bar {MOST} MiB {'kept' if largest <= MOST else 'BROKEN'}")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
