"""Epochs on a GPU: seconds, memory against the plan, share of the card's matmul peak; HSAN also in its dense form.

`python tests/bench/gpu.py` prints one line a case, each in a process of its own, with `--precision auto`, HSAN in
float32 too; a case that fails says why, and the next one is measured. With `--count` it needs no GPU: the pretended
accelerator of the tests counts an epoch of every method's small case, with a GPU's tiles, and with `--count cora` one
of HSAN on Cora. Cora and acm are the real data (TESSERA_DATA or ../shared/data), or random graphs of their sizes where
these are not there, as those of 7,650 and 22,470 nodes are; the users are planted.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cases import ROOT, in_process, run
from lean import dense_weights, lean_loss

GRAPHS = {"7650": (7_650, 500), "22470": (22_470, 500), "cora": (2_708, 1_433), "acm": (3_025, 1_870)}
CASES = ("hsan cora", "hsan 7650", "hsan 22470", "dense cora", "dense 7650", "caegcn acm", "hadis resnet18",
         "hgt planted:bench")  # fmt: skip
BOTH = ("hsan", "dense")  # are measured in float32 too
EPOCHS = 5  # after a first one, which loads kernels
SECONDS = 60  # after which no further epoch begins


def matmul_rate():
    """GFLOP a second of a large product on the card, as precise as torch's switch has it."""
    a = torch.randn(8192, 8192, device="cuda")
    times = []
    for _ in range(5):
        start = _now()
        a @ a
        times.append(_now() - start)
    return 2 * 8192**3 / min(times) / 1e9


def _now():
    torch.cuda.synchronize()
    return time.perf_counter()


def experiment(method, argv):
    """Settings and data by the words of a command line."""
    from ops.config.cli import resolve
    from ops.config.console import Console
    from ops.config.settings import LaunchSettings
    from ops.training.experiment import build_experiment
    from trainers import METHODS

    resolved = resolve([*argv, "--threads", "4"], METHODS[method], LaunchSettings, ROOT / "workflows/presets", "bench")
    return build_experiment(METHODS[method], resolved, Console(quiet=True))


def random_graph(n, features):
    """A graph of ten edges a node, features and no clusters: for speed alone."""
    from ops.data.synthetic.planted_partition import planted_graph

    return planted_graph(n, 8, features, degree=10, seed=0)[0]


def case_of(method, what):
    """(settings, data) of a case."""
    from ops.data.types.images import ImageSet
    from ops.errors import TesseraError
    from trainers import METHODS

    if what.isdigit():
        settings = METHODS[method].settings(n_clusters=8, embedding_dim=500, epochs=EPOCHS + 1, update_every=10**6)
        return settings, random_graph(*GRAPHS[what])
    if method == "hadis":
        pixels = np.random.default_rng(0).integers(0, 256, (5_120, 3, 32, 32), dtype=np.uint8)
        return METHODS[method].settings(n_clusters=10, backbone=what, batch=256, epochs=20), ImageSet("noise", pixels)
    words = ["--dataset", what, *(["--pretrain-epochs", "0"] if method == "caegcn" else [])]
    try:
        built = experiment(method, [*words, *(["--preset", "bench"] if what == "planted:bench" else [])])
    except TesseraError as error:
        print(f"{error}; a random graph instead", file=sys.stderr)
        return METHODS[method].settings(n_clusters=4, **({"pretrain_epochs": 0} if method == "caegcn" else {})), (
            random_graph(*GRAPHS[what])
        )
    return built.settings, built.data


def trained(method, what, precision):
    """Seconds of the median epoch, GiB of the card's memory, planned GiB, GFLOP of HSAN's products."""
    from device_cases import TRAINERS

    from ops.api import PlainRun
    from trainers import METHODS

    settings, data = case_of(method, what)
    trainer = TRAINERS[method](settings, data, PlainRun(0, device="cuda", precision=precision))
    seconds = []
    for epoch in range(EPOCHS + 1):
        start = _now()
        trainer.epoch(epoch)
        seconds.append(_now() - start)
        if epoch and sum(seconds) > SECONDS:
            break
    planned = METHODS[method].estimate(settings, data, 1) / 2**30
    gflop = 8 * (2 * data.n_nodes) ** 2 * settings.embedding_dim / 1e9 if method == "hsan" else 0
    return {"seconds": sorted(seconds[1:])[len(seconds[1:]) // 2], "planned": planned, "gflop": gflop}


def dense(what):
    """The authors' dense form of HSAN's loss and gradient, with nothing wasted."""
    n, d = {"cora": (2_708, 1_500), "7650": (7_650, 500)}[what]
    g = torch.Generator("cuda").manual_seed(0)
    draw = lambda: torch.nn.functional.normalize(torch.randn(2 * n, d, generator=g, device="cuda"))  # noqa: E731
    z, e = draw().requires_grad_(), draw().requires_grad_()
    alpha = torch.tensor(0.9, device="cuda", requires_grad=True)
    labels = torch.randint(0, 7, (n,), generator=g, device="cuda")
    w = dense_weights(z, e, 0.9, labels, torch.ones_like(labels, dtype=torch.bool), 1)
    seconds = []
    for _ in range(EPOCHS + 1):
        start = _now()
        lean_loss(z, e, alpha, w, 1.0).backward()
        seconds.append(_now() - start)
    return {"seconds": sorted(seconds[1:])[EPOCHS // 2], "planned": 0, "gflop": 8 * (2 * n) ** 2 * d / 1e9}


def measure(method, what, precision):
    """One case, with products in a precision; auto: the method's."""
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("helpers", "trainers", "")]
    from ops.device import precision_on, products
    from trainers import METHODS

    choices = ("tf32", "float32") if method == "dense" else METHODS[method].precisions
    precision = precision_on("cuda", precision, choices)
    with products(torch.device("cuda"), precision):
        rate = matmul_rate()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        measured = dense(what) if method == "dense" else trained(method, what, precision)
    return measured | {"peak": torch.cuda.max_memory_allocated() / 2**30, "rate": rate, "precision": precision}


def count(*words):
    """Kernels, waits and bytes of an epoch after the first evaluation, on the pretended accelerator."""
    sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("helpers", "trainers", "")]
    from accelerator import NAME, accelerator
    from device_cases import CASES as SMALL
    from device_cases import TRAINERS, data_of, settings_of
    from users_small import parts_in

    from ops.api import PlainRun

    cases = []
    if words:
        built = experiment("hsan", ["--dataset", *words])
        cases.append(("hsan", {"dataset": words[0]}, built.settings, built.data))
    else:
        users = parts_in(Path(tempfile.mkdtemp()))
        for method, more in SMALL:
            settings = settings_of(
                method, more | ({"tile_rows": "auto"} if method in ("hsan", "caegcn", "ns4gc") else {})
            )
            cases.append((method, more, settings, data_of(method, more, users)))
    for method, more, settings, data in cases:
        with accelerator() as counted:
            trainer = TRAINERS[method](settings, data, PlainRun(0, device=NAME))
            trainer.epoch(0)
            trainer.evaluate(0)
            counted.clear()
            trainer.epoch(1)
            print(method, more, dict(counted), flush=True)
            counted.clear()
            trainer.evaluate(settings.epochs - 1)
            print("  evaluation", dict(counted), flush=True)


def main(*words):
    """All cases, or what the accelerator counts."""
    if words[:1] == ("--count",):
        count(*words[1:])
        return
    if not torch.cuda.is_available():
        print("no GPU here: nothing to measure (--count counts kernels and waits without one)")
        return
    print(torch.cuda.get_device_name(), flush=True)
    for each, precision in [(c, p) for c in CASES for p in ("auto", "float32") if p == "auto" or c.split()[0] in BOTH]:
        try:
            m = in_process(str(Path(__file__)), *each.split(), precision, threads=4)
        except subprocess.CalledProcessError as error:
            print(f"{each:18s} {precision} failed (exit code {error.returncode}), see above", flush=True)
            continue
        share = f", {m['gflop'] / m['seconds'] / m['rate']:.0%} of the matmul peak" if m["gflop"] else ""
        plan = f" (planned for all: {m['planned']:.2f})" if m["planned"] else ""
        print(f"{each:18s} {m['precision']:7s} {m['seconds']:8.4f} s an epoch, {m['peak']:.2f} GiB{plan}{share} "
              f"({m['rate'] / 1e3:.1f} TFLOP/s)", flush=True)  # fmt: skip


if __name__ == "__main__":
    run(measure, main)
