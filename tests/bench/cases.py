"""What the benchmarks share: a case in a process of its own, the machine's matmul rate, one measured training."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch

from ops import memory
from ops.api import PlainRun
from ops.training.experiment import judges_of

ROOT = Path(__file__).parents[2]


def in_process(file, *case, threads=1):
    """`measure(*case)` of the benchmark `file` in a fresh process, since memory peaks are a process's."""
    data = {"TESSERA_DATA": str(ROOT.parent / "shared" / "data")} | os.environ
    command = [sys.executable, file, "--case", *map(str, case)]
    out = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=data | {"OMP_NUM_THREADS": str(threads)}
    )
    return json.loads(out.stdout.splitlines()[-1])


def run(measure, main):
    """The command line of a benchmark: `--case ...` prints what `measure(...)` returns, else `main(...)` prints all."""
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        main(*sys.argv[1:])


def matmul_rate():
    """GFLOP per CPU second of a large float32 product: the machine's peak, measured beside everything else."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        a @ b
        best = max(best, 2 * 2048**3 / (time.process_time() - start) / 1e9)
    return best


class Enough(Exception):
    """The epochs that were to be measured are over."""


class Marked(PlainRun):
    """A run that judges assignments as a real one does and notes CPU and wall seconds at the end of every epoch."""

    def __init__(self, job, until, judged=True):
        super().__init__(0)
        self.judges = judges_of(job) if judged else None  # once, as launching does: it filters the features too
        self.until = until
        self.update_every = getattr(job.settings, "update_every", 0)
        self.cpu, self.wall = [], []

    def report(self, epoch, metrics, assignment=None, state=None, embeddings=None):
        if assignment is not None and self.judges is not None:
            self.judges.unlabelled(assignment, {})
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())
        if epoch == self.until:
            raise Enough


def train(argv, threads, until=None, method=None, judged=True):
    """One training (HSAN's by default) by command line words in this process, up to epoch `until`.

    Returns (the run, memory and rate); without `judged` the indices' own memory stays out.
    """
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import LaunchSettings
    from ops.training.experiment import build_experiment
    from trainers import hsan

    method = method or hsan.METHOD
    torch.set_num_threads(threads)
    argv = [*argv, "--threads", str(threads)]
    resolved = resolve(argv, method, LaunchSettings, ROOT / "workflows" / "presets", "bench")
    rate = matmul_rate()
    baseline = memory.preload()
    job = build_experiment(method, resolved, Console(quiet=True))
    settings = job.settings
    planned = baseline + method.estimate(settings, job.data, 1)
    memory.reset_peak()
    run = Marked(job, until, judged)
    with suppress(Enough):
        method.train(settings, job.data, run)
    gib = {"peak": memory.peak() / 2**30, "base": baseline / 2**30, "planned": planned / 2**30}
    return run, gib | {"rate": rate, "nodes": job.data.n_nodes, "width": getattr(settings, "embedding_dim", 0)}


def against_plan(m):
    """Memory in words: the peak, what of it is above the import baseline, and how far the plan was off."""
    off = m["planned"] / m["peak"] - 1
    return (
        f"peak {m['peak']:.2f} GiB ({m['peak'] - m['base']:.2f} above the import baseline), "
        f"planned {m['planned']:.2f} ({off:+.0%}, bar 25 %)"
    )
