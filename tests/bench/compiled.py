"""`torch.compile` against plain calls: HSAN's function of a tile and a step of its small network, CPU seconds, paired.

`python tests/bench/compiled.py`; a C++ compiler (g++) is needed, and some minutes on a busy machine to compile.
"""

import time
from statistics import median

import torch
from torch.nn.functional import normalize

N, F, D, ROWS = 2_708, 1_433, 500, 512
PAIRS = 9


def tile(z, e, alpha, w):
    """(p, w p, sums of rows, sums of columns) of one tile, as `ops.losses.infonce` makes them."""
    s = (z[:ROWS] * alpha) @ z[ROWS : 2 * ROWS].T + (e[:ROWS] * (1 - alpha)) @ e[ROWS : 2 * ROWS].T
    p = (s * w).exp()
    return p, p * w, p.sum(1), p.sum(0)


def network(x, weight, bias):
    """Both views of the attribute encoders."""
    z = torch.sigmoid(x @ weight + bias)
    return z / z.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def step(form, x, weight, bias):
    """Value and gradient of a network."""
    return torch.autograd.grad(form(x, weight, bias).square().mean(), (weight, bias))


def seconds(call, times):
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - start) / times


def main():
    """Medians of both forms and of their paired ratio, and the seconds that compiling takes."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    z, e = (normalize(torch.randn(2 * N, D, generator=g)) for _ in range(2))
    rows = z, e, torch.tensor(0.9), torch.rand(ROWS, ROWS, generator=g)
    weight = torch.randn(2, F, D, generator=g).mul_(0.03).requires_grad_()
    inputs = torch.rand(N, F, generator=g), weight, torch.zeros(2, 1, D, requires_grad=True)
    tile_, network_ = torch.compile(tile), torch.compile(network)
    cases = {
        "tile": (lambda: tile(*rows), lambda: tile_(*rows), 20),
        "network": (lambda: step(network, *inputs), lambda: step(network_, *inputs), 1),
    }
    for name, (plain, compiled, times) in cases.items():
        start = time.perf_counter()
        compiled()
        took = time.perf_counter() - start
        plain()
        pairs = [(seconds(plain, times), seconds(compiled, times)) for _ in range(PAIRS)]
        one, other = (1e3 * median(each) for each in zip(*pairs, strict=True))
        print(f"{name:8s} plain {one:.1f} ms, compiled {other:.1f} ms, {median(a / b for a, b in pairs):.2f}x; "
              f"compiling took {took:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
