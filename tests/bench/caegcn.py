"""CaEGCN: CPU seconds and memory of an epoch against the released code and a dense form, k-NN graphs in blocks.

`python tests/bench/caegcn.py` needs the real data (TESSERA_DATA or ../shared/data); each case is measured in a process
of its own, on one thread. The dense form is written from the equations: N x N attention weights a head, A^ as an array.
"""

import os
import sys
import tempfile
import time

import numpy as np
import torch
from cases import against_plan, in_process, matmul_rate, run, train
from torch.nn.functional import binary_cross_entropy_with_logits

from ops import memory

# The authors' code made to run on acm, measured once on a machine whose matmul rate was 106-121 GFLOP per CPU second.
RELEASED_CPU, RELEASED_GIB = 16.5, 3.9
EPOCHS = 6
WORDS = {
    "head_dim 64": [],
    "released width": ["--head-dim", "layer"],
    "text": ["--attention-scale", "none", "--structure-from", "last", "--no-residual"],
}
KNN_ROWS, KNN_COLUMNS = 60_000, 256


def dense_attend(queries, keys, values, heads, n_nodes, *, scale, group=None):
    """`ops.losses.tiled_attention.attend` with every head's N x N weights."""
    q, k, v = (x.view(len(x), heads, -1).transpose(0, 1) for x in (queries, keys, values))
    return (torch.softmax(scale * q @ k.transpose(1, 2), 2) @ v).transpose(0, 1).flatten(1)


def dense_structure(codes, links, pos_weight=1.0, *, group=None, tile_rows=0):
    """`ops.losses.link_bce.structure_loss` with S and A as N x N arrays."""
    y = torch.zeros(len(codes), len(codes))
    y[links.source, links.target] = 1
    return binary_cross_entropy_with_logits(codes @ codes.T, y, pos_weight=torch.tensor(pos_weight))


def epoch(name, words, form="ours", epochs=EPOCHS):
    """A few epochs of joint training without pre-training: CPU seconds of the median one, memory and matmul rate."""
    from trainers import caegcn
    from trainers.caegcn import model, training

    if form == "dense":
        model.attend, training.structure_loss = dense_attend, dense_structure
    os.environ["TESSERA_CACHE"] = tempfile.mkdtemp()
    argv = ["--dataset", name, "--pretrain-epochs", "0", "--epochs", "1000", "--evaluate-every", "1000"]
    marked, measured = train([*argv, *WORDS[words]], threads=1, until=int(epochs), method=caegcn.METHOD, judged=False)
    steps = sorted(b - a for a, b in zip(marked.cpu, marked.cpu[1:], strict=False))
    return measured | {"epoch": steps[len(steps) // 2]}


def knn(metric):
    """CPU seconds and GiB of the 10-nearest-neighbour graph of random rows in 50 groups."""
    from ops.data.io.knn import knn_graph

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((50, KNN_COLUMNS))
    x = (centres[rng.integers(0, 50, KNN_ROWS)] + rng.standard_normal((KNN_ROWS, KNN_COLUMNS))).astype(np.float32)
    rate = matmul_rate()
    memory.reset_peak()
    base = memory.resident()
    start = time.process_time()
    edges = knn_graph(x, 10, metric)
    took = time.process_time() - start
    return {"cpu": took, "gib": (memory.peak() - base) / 2**30, "rate": rate, "edges": int(edges.shape[1])}


def measure(what, *case):
    """One case by name."""
    return {"epoch": epoch, "knn": knn}[what](*case)


def acm():
    """Print acm: ours with both head widths against the released code's figures and the dense form."""
    dense = in_process(__file__, "epoch", "acm", "head_dim 64", "dense")
    print(f"acm dense form, head_dim 64: {dense['epoch']:.2f} CPU-s an epoch, "
          f"{dense['peak'] - dense['base']:.2f} GiB above the import baseline", flush=True)  # fmt: skip
    for words, bar in (("head_dim 64", 3.0), ("released width", 1.4), ("text", None)):
        m = in_process(__file__, "epoch", "acm", words)
        print(
            f"acm {words}: {m['epoch']:.2f} CPU-s an epoch, {RELEASED_CPU / m['epoch']:.2f}x less than the released "
            f"code's {RELEASED_CPU} at 106-121 GFLOP/CPU-s{f' (bar {bar}x)' if bar else ''}, matmul {m['rate']:.0f} "
            f"GFLOP/CPU-s; {against_plan(m)}, released {RELEASED_GIB} GiB",
            flush=True,
        )
        if words == "head_dim 64":
            above = [each["peak"] - each["base"] for each in (dense, m)]
            print(f"acm {words} against the dense form: {dense['epoch'] / m['epoch']:.2f}x less CPU, "
                  f"{above[0] / above[1]:.2f}x less memory ({above[1]:.2f} GiB, bar 0.7)", flush=True)  # fmt: skip


def main():
    """Print a line a case."""
    sys.stdout.reconfigure(line_buffering=True)
    acm()
    m = in_process(__file__, "epoch", "usps", "head_dim 64", "ours", 3)
    print(f"usps: {m['epoch']:.2f} CPU-s an epoch, {against_plan(m)}; bar 4 GiB where the dense form needs about 25")
    for metric in ("euclidean", "cosine"):
        k = in_process(__file__, "knn", metric)
        print(f"k-NN graph of {KNN_ROWS:,} x {KNN_COLUMNS} ({metric}): {k['cpu']:.0f} CPU-s, {k['gib']:.2f} GiB above "
              f"its input (bar 2), matmul {k['rate']:.0f} GFLOP/CPU-s")  # fmt: skip


if __name__ == "__main__":
    run(measure, main)
