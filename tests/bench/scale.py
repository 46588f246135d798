"""All pairs of large graphs: seconds an epoch, share of the matmul peak, memory against its bars and the plan.

`python tests/bench/scale.py [--threads T] [NAME ...]` needs the real data (TESSERA_DATA or ../shared/data) and, for the
two sets with a bar, about 10 minutes. Each set trains in a process of its own with the defaults (D 500): epoch 0
without pair weights, their first update, epoch 1 with them. Epoch 1 is the steady epoch that is timed.
"""

import os

from cases import against_plan, in_process, run, train

BARS = {"facebook_pagepage": 6, "coauthor_physics": 16}  # GiB resident
STEADY = 1  # epoch 0 makes the first pair weights, the last epoch (2) ends in a k-means


def measure(name, threads):
    """Train a data set up to the end of the steady epoch."""
    argv = ["--dataset", name, "--preset", "none", "--epochs", str(STEADY + 2)]
    marked, measured = train(argv, int(threads), until=STEADY)
    return measured | {
        "cpu": marked.cpu[STEADY] - marked.cpu[STEADY - 1],
        "wall": marked.wall[STEADY] - marked.wall[STEADY - 1],
    }


def line(name, m, threads):
    """One set in words; a loss and its gradient count as 8 M^2 D operations, recomputed weights come on top."""
    work = 8 * (2 * m["nodes"]) ** 2 * m["width"] / 1e9
    bar = f", bar {BARS[name]} GiB {'kept' if m['peak'] <= BARS[name] else 'BROKEN'}" if name in BARS else ""
    return (
        f"{name}: N {m['nodes']:,} D {m['width']}, {threads} thread{'s' * (threads > 1)}: {m['wall']:.1f} s an epoch "
        f"({m['cpu']:.1f} CPU-s), {work / m['cpu'] / m['rate']:.0%} of the matmul peak ({m['rate']:.0f} GFLOP/CPU-s), "
        f"{against_plan(m)}{bar}"
    )


def main(*words):
    """Print a line a data set."""
    names, threads = list(words), min(2, len(os.sched_getaffinity(0)))
    if "--threads" in names:
        at = names.index("--threads")
        threads = int(names[at + 1])
        del names[at : at + 2]
    for name in names or BARS:
        print(line(name, in_process(__file__, name, threads, threads=threads), threads), flush=True)


if __name__ == "__main__":
    run(measure, main)
