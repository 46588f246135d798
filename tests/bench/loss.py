"""Loss and gradient of HSAN: tiles against the lean dense form, CPU seconds, memory, share of the matmul peak.

`python tests/bench/loss.py` prints everything, each case measured in a process of its own (memory peaks are a
process's). CPU seconds are those of one thread.
"""

import time

import torch
from cases import in_process, matmul_rate, run
from lean import dense_weights, lean_loss
from torch.nn.functional import normalize

from ops import memory
from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights

BUDGET = 0.5 * 2**30  # the default of --pair-memory
CASES = [(2708, 1500, 2.0, 1.8), (7650, 500, 2.8, 8.0)]
REPEATS = 3


def measure(form, n, d):
    """CPU seconds (median of 3), GiB above the import baseline and the matmul rate of one form."""
    n, d = int(n), int(d)
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    rate = matmul_rate()
    memory.preload()
    memory.reset_peak()
    base = memory.resident()
    z, e = (normalize(torch.randn(2 * n, d, generator=g)).requires_grad_() for _ in range(2))
    alpha = torch.tensor(0.9, requires_grad=True)
    labels, trusted = torch.randint(0, 7, (n,), generator=g), torch.rand(n, generator=g) < 0.9
    if form == "dense":
        w = dense_weights(z, e, 0.9, labels, trusted, 1)
    else:
        storage = "float" if 4 * (2 * n) ** 2 / 2 < BUDGET else "recompute"
        storage = form if form in ("float", "uint16", "recompute") else storage
        weights = PairWeights(2 * n, 1, storage=storage)
        weights.update(z.detach(), e.detach(), 0.9, labels, trusted)
        kept = {"float": 4, "uint16": 2, "recompute": 0}[storage] * (2 * n) ** 2 / 2
    seconds = []
    for _ in range(REPEATS):
        z.grad = e.grad = alpha.grad = None
        start = time.process_time()
        if form == "dense":
            lean_loss(z, e, alpha, w, 1.0).backward()
        else:
            hard_infonce(z, e, alpha, weights, 1.0, max(int(BUDGET - kept), 0)).backward()
        seconds.append(time.process_time() - start)
    return {"cpu": sorted(seconds)[REPEATS // 2], "gib": (memory.peak() - base) / 2**30, "rate": rate}


def main():
    """Print one line a case and form, and the ratios against the bars."""
    for n, d, cpu_bar, memory_bar in CASES:
        dense = in_process(__file__, "dense", n, d)
        for form in ("default", "uint16", "recompute"):
            tiles = in_process(__file__, form, n, d)
            share = 8 * (2 * n) ** 2 * d / 1e9 / tiles["cpu"] / tiles["rate"]
            bars = f"(bars {cpu_bar:g}x, {memory_bar:g}x)" if form == "default" else ""
            print(
                f"N {n} D {d} {form:9s} {tiles['cpu']:6.2f} CPU-s {tiles['gib']:5.2f} GiB | dense {dense['cpu']:6.2f} "
                f"CPU-s {dense['gib']:5.2f} GiB | {dense['cpu'] / tiles['cpu']:.2f}x less CPU, "
                f"{dense['gib'] / tiles['gib']:.2f}x less memory {bars} | {share:.0%} of the matmul peak "
                f"({tiles['rate']:.0f} GFLOP/CPU-s)",
                flush=True,
            )


if __name__ == "__main__":
    run(measure, main)
