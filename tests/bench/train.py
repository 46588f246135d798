"""Whole trainings: CPU seconds an epoch and memory on Cora against the authors' loop, planned against measured memory.

`python tests/bench/train.py` needs the real data (TESSERA_DATA or ../shared/data) and prints; `... CASE` runs one case.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from loss import matmul_rate

from ops.run import memory

# The authors' code on Cora, measured once on a machine whose matmul rate was 106-121 GFLOP per CPU second.
AUTHORS_CPU, AUTHORS_GIB = 9.1, 3.3e9 / 2**30
EPOCHS = {"bat": 31, "cora": 12, "amap": 3}
ROOT = Path(__file__).parents[2]


def measure(name):
    """Train a few epochs of a data set with its paper preset, one thread, in this process."""
    from ops.run.cli import resolve
    from ops.run.console import Console
    from ops.run.job import make_job
    from ops.run.settings import LaunchSettings
    from ops.run.types import PlainRun
    from trainers import hsan

    argv = ["--dataset", name, "--epochs", str(EPOCHS[name]), "--threads", "1"]
    resolved = resolve(argv, hsan, LaunchSettings, ROOT / "workflows" / "presets", "bench")
    rate = matmul_rate()
    baseline = memory.preload()
    job = make_job(resolved, Console(quiet=True))
    planned = baseline + hsan.estimate(job.resolved.settings, job.data)
    memory.reset_peak()

    class Timed(PlainRun):
        def __init__(self, seed):
            super().__init__(seed)
            self.marks = []

        def report(self, epoch, metrics, assignment=None, state=None):
            if assignment is not None:
                job.judges.unlabelled(assignment)
            self.marks.append(time.process_time())

    run = Timed(0)
    hsan.train(job.resolved.settings, job.data, run)
    steps = [b - a for a, b in zip(run.marks, run.marks[1:], strict=False)]
    plain = sorted(s for i, s in enumerate(steps, 1) if i % job.resolved.settings.update_every and i < EPOCHS[name] - 1)
    return {
        "epoch": plain[len(plain) // 2], "whole": sum(steps) / len(steps), "peak": memory.peak() / 2**30,
        "base": baseline / 2**30, "planned": planned / 2**30, "rate": rate,
    }  # fmt: skip


def main():
    """Print a line a data set."""
    torch.set_num_threads(1)
    os.environ.setdefault("TESSERA_DATA", str(ROOT.parent / "shared" / "data"))
    for name in EPOCHS:
        out = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
        m = json.loads(out.stdout.splitlines()[-1])
        off = m["planned"] / m["peak"] - 1
        over = m["peak"] - m["base"]
        print(
            f"{name}: {m['epoch']:.2f} CPU-s an epoch ({m['whole']:.2f} with updates and indices), "
            f"peak {m['peak']:.2f} GiB ({over:.2f} above the import baseline), "
            f"planned {m['planned']:.2f} ({off:+.0%}, bar 25 %), matmul {m['rate']:.0f} GFLOP/CPU-s",
            flush=True,
        )
        if name == "cora":
            print(
                f"cora against the authors' loop (9.1 CPU-s at 106-121 GFLOP/CPU-s, 3.3 GB): "
                f"{m['epoch'] / AUTHORS_CPU:.2f} of its CPU (bar 0.4), "
                f"{over / AUTHORS_GIB:.2f} of its memory (bar 0.25)",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        torch.set_num_threads(1)
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
