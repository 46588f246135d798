"""HaDis: a step against a straight form of the released one, k-means against faiss, memory, the GPUs it would take.

`python tests/bench/hadis.py` prints everything on one thread, each case in a process of its own; about 3 minutes. CPU
seconds are compared within one process, steps of both forms in turn. No GPU was measured: the plan's rates are given.
"""

import time
from statistics import median

import numpy as np
import torch
from cases import in_process, run
from pil_reference import augment_each, views
from torch.nn.functional import cross_entropy, mse_loss, normalize, one_hot

from ops import memory
from ops.api import PlainRun
from ops.data.types.images import ImageSet

STEP_BAR, KMEANS_BAR, MEMORY_BAR = 1.3, 2.0, 0.25
CASES = {"small": (128, 5), "resnet18": (32, 2)}  # images of a step, steps of each form
FLOPS, HBM = 312e12 * 0.3, 1.5e12  # of an A100 in bf16: 30 % of its peak, and bytes a second
INSIDE, OUTSIDE, LATENCY = 200e9, 25e9, 20e-6  # bytes a second within 8 GPUs and between nodes, s a collective
GPUS = (1, 8, 64)


def images(n, side=32):
    rng = np.random.default_rng(0)
    return ImageSet("noise", pixels=rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8))


def made(backbone, **more):
    from trainers.hadis import Settings

    return Settings(n_clusters=10, backbone=backbone, epochs=20, warmup_epochs=0, **more)


class Straight:
    """The released step as it reads: PIL image by image, NCHW, dense losses, and the predictor once for each loss."""

    def __init__(self, settings, data):
        from trainers.hadis.model import Model

        self.settings, self.data = settings, data
        self.model = Model(settings, (32, 32)).to(memory_format=torch.contiguous_format)
        trained = [*self.model.online.parameters(), *self.model.predictor.parameters()]
        self.optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.view = views(32)

    def step(self, index, labels):
        x = [augment_each(self.data.pixels[index], self.view) for _ in range(2)]
        model, s = self.model, self.settings
        with torch.no_grad():
            for k, q in zip(model.target.parameters(), model.online.parameters(), strict=True):
                k.mul_(s.ema_momentum).add_(q, alpha=1 - s.ema_momentum)
            k = [normalize(model.target(v)) for v in x]
        loss = 0
        for a, b in ((0, 1), (1, 0)):
            q = model.online(x[a])
            p = normalize(model.predictor(q + s.sigma * torch.randn_like(q)))
            again = normalize(model.predictor(q))
            loss = loss + mse_loss(p, k[b], reduction="none").sum(1).mean() + hardness(again, k[b], s.hardness)
            loss = loss + s.weight_proto * prototypes(normalize(q), k[b], labels, s)
        self.optimizer.zero_grad()
        (loss / 2).backward()
        self.optimizer.step()


def hardness(p, k, tau):
    """All pairs with gradient."""
    student, teacher = torch.cdist(k, p), torch.cdist(k, k)
    negative = teacher > student.diagonal()[:, None]
    near, at = student.masked_fill(~negative, 1e9).min(1)
    far, to = student.masked_fill(negative, -1).max(1)
    w_near = (teacher.gather(1, at[:, None])[:, 0] - near).clamp_min(0).detach() * negative.any(1)
    w_far = (far - teacher.gather(1, to[:, None])[:, 0]).clamp_min(0).detach()
    logits = torch.stack([w_near * near.clamp_max(2), w_far * far], 1) / tau
    return cross_entropy(logits, torch.zeros(len(p), dtype=torch.int64))


def prototypes(q, k, labels, s):
    """Absent clusters masked."""
    members = one_hot(labels, s.k).T.float()
    there = members.any(1)
    a, b = normalize(members @ q), normalize(members @ k)
    logits = a @ a.T / s.temperature
    logits = torch.where(torch.eye(s.k, dtype=torch.bool), (a * b).sum(1)[:, None] / s.temperature, logits)
    logits = logits.masked_fill(~there, -torch.inf)
    return cross_entropy(logits[there], torch.arange(s.k)[there])


def convolution_rate():
    """GFLOP per CPU second of a large 3x3 convolution, channels last: the peak of what a step mostly is."""
    x = torch.randn(32, 128, 32, 32).contiguous(memory_format=torch.channels_last)
    w = torch.randn(128, 128, 3, 3).contiguous(memory_format=torch.channels_last)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        torch.nn.functional.conv2d(x, w, padding=1)
        best = max(best, 2 * 9 * 128 * 128 * 32 * 32 * 32 / (time.process_time() - start) / 1e9)
    return best


def step_case(backbone):
    """CPU seconds of a step of ours and of the straight form, medians of steps in turn, and the convolution rate."""
    from trainers.hadis.cost import measure as work
    from trainers.hadis.training import HadisTrainer

    torch.set_num_threads(1)
    batch, repeats = CASES[backbone]
    data, settings = images(batch * (repeats + 1)), made(backbone, batch=batch)
    training, straight = HadisTrainer(settings, data, PlainRun()), Straight(settings, data)
    training.pseudo = torch.arange(data.n_rows) % 10
    seconds = {"ours": [], "straight": [], "views": []}
    for number in range(repeats + 1):
        index = np.arange(number * batch, (number + 1) * batch)
        marks = [time.process_time()]
        training._learn(1, number, index, 1)
        training._update(number)
        marks.append(time.process_time())
        straight.step(index, training.pseudo[index])
        marks.append(time.process_time())
        training.source.view(index, 1, 0)
        training.source.view(index, 1, 1)
        marks.append(time.process_time())
        for name, spent in zip(seconds, np.diff(marks), strict=True):
            seconds[name].append(float(spent))
    result = {name: median(each[1:]) for name, each in seconds.items()}  # the first one warms up
    return result | {"rate": convolution_rate(), "gflop": work(settings, (32, 32)).step * batch / 1e9, "batch": batch}


def layout_case(backbone):
    """CPU seconds of forward and backward through the online network, NCHW and channels last in turn."""
    from trainers.hadis.model import Model

    torch.set_num_threads(1)
    batch, repeats = CASES[backbone]
    settings, seconds = made(backbone), {"nchw": [], "channels_last": []}
    layouts = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
    networks = {name: Model(settings, (32, 32)).to(memory_format=layout).online for name, layout in layouts.items()}
    for _ in range(repeats + 1):
        for name, layout in layouts.items():
            x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=layout)
            start = time.process_time()
            networks[name](x).square().mean().backward()
            seconds[name].append(time.process_time() - start)
    return {name: median(each[1:]) for name, each in seconds.items()}


def kmeans_case():
    """CPU seconds an iteration and the inertia after as many, from the same start; 100,000 x 128, K = 50."""
    import faiss

    from ops.clustering.kmeans import kmeans

    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    n, d, k, few, many = 100_000, 128, 50, 2, 22
    g = torch.Generator().manual_seed(0)
    x = torch.randn(k, d, generator=g)[torch.randint(k, (n,), generator=g)] + torch.randn(n, d, generator=g) * 2
    first = x[:k].clone()

    def ours(rounds):
        return kmeans(
            x, k, (0,), first=first, max_iterations=rounds, tolerance=0.0
        ).inertia  # fmt: skip

    def theirs(rounds):
        made = faiss.Kmeans(d, k, niter=rounds, max_points_per_centroid=n, seed=0)
        made.train(x.numpy(), init_centroids=first.numpy())
        return made.obj[-1]

    result = {}
    for name, cluster in (("ours", ours), ("faiss", theirs)):
        spent = {few: [], many: []}
        for rounds in (few, few, many, few, many, few, many):
            start = time.process_time()
            cluster(rounds)
            spent[rounds].append(time.process_time() - start)
        result[name] = (median(spent[many]) - median(spent[few])) / (many - few)
        result[f"{name}_inertia"] = float(cluster(many))
    return result


def memory_case(backbone):
    """Planned and measured peak, GiB, of an epoch of a few steps with its clusters."""
    from trainers import hadis
    from trainers.hadis.training import HadisTrainer

    torch.set_num_threads(1)
    n, batch = (10_000, 256) if backbone == "small" else (600, 64)
    data, settings = images(n), made(backbone, batch=batch)
    base = memory.preload()
    planned = base + hadis.estimate(settings, data)
    memory.reset_peak()
    training = HadisTrainer(settings, data, PlainRun())
    for number in range(3):
        training._learn(1, number, np.arange(number * batch, (number + 1) * batch) % n, 1)
        training._update(number)
    training.evaluate(0)
    return {"peak": memory.peak() / 2**30, "base": base / 2**30, "planned": planned / 2**30}


def measure(case, *arguments):
    """One case."""
    return {"step": step_case, "layout": layout_case, "kmeans": kmeans_case, "memory": memory_case}[case](*arguments)


def plan(batch, gpus):
    """Hours of 1,000 epochs of CIFAR-10's preset on so many GPUs, and what bounds a step."""
    from trainers import hadis
    from trainers.hadis.cost import measure as work

    n, epochs = 60_000, 1000
    settings, shape = hadis.Settings(n_clusters=10, batch=batch), (32, 32)
    w, steps = work(settings, shape), n // batch
    data = ImageSet("cifar10", pixels=np.empty((n, 3, 32, 32), np.uint8))
    each = batch / gpus
    compute = w.step * each / FLOPS
    # every kept number is written and read forward, and once more with its gradient backward, in bf16, on two views
    moved = (2 * 2 * w.kept * (2 + 3) + 2 * 2 * w.kept * 2) * each / HBM
    sent = hadis.exchanged(settings, data, gpus)
    collectives = 0 if gpus == 1 else 2 * (2 * len(w.norms) + len(w.target_norms)) + 5
    wire = sent / (INSIDE if gpus <= 8 else OUTSIDE) + collectives * LATENCY
    look = n / gpus * 2 * (w.encoder + w.projector) / FLOPS + n / gpus * 4 * w.kept / HBM
    hours = epochs * (steps * (max(compute, moved) + wire) + look) / 3600
    return hours, compute, moved, wire, sent, w.step * batch * steps * epochs


def main():
    """Print one line a case."""
    for backbone in CASES:
        m = in_process(__file__, "step", backbone)
        ratio, share = m["straight"] / m["ours"], m["gflop"] / m["ours"] / m["rate"]
        bar = f" (bar {STEP_BAR} {'kept' if ratio >= STEP_BAR else 'BROKEN'})" if backbone == "small" else ""
        print(f"step, {backbone}, {m['batch']} images of 32x32: {m['ours']:.3f} CPU-s, straight form "
              f"{m['straight']:.3f}: {ratio:.2f} times less{bar}; both views {m['views']:.3f}; {m['gflop']:.0f} GFLOP, "
              f"{share:.0%} of the convolution peak ({m['rate']:.0f} GFLOP/CPU-s)", flush=True)  # fmt: skip
    for backbone in CASES:
        m = in_process(__file__, "layout", backbone)
        print(f"layout, {backbone}, online network forward and backward: {m['channels_last']:.3f} CPU-s channels last, "
              f"{m['nchw']:.3f} NCHW: {m['nchw'] / m['channels_last']:.2f} times less", flush=True)  # fmt: skip
    m = in_process(__file__, "kmeans")
    ratio, off = m["ours"] / m["faiss"], m["ours_inertia"] / m["faiss_inertia"] - 1
    print(f"k-means, 100,000 x 128, K = 50: {m['ours'] * 1e3:.1f} CPU-ms an iteration, faiss {m['faiss'] * 1e3:.1f}: "
          f"{ratio:.2f} (bar {KMEANS_BAR} {'kept' if ratio <= KMEANS_BAR else 'BROKEN'}), inertia "
          f"{off:+.1e} of faiss's", flush=True)  # fmt: skip
    for backbone in CASES:
        m = in_process(__file__, "memory", backbone)
        off = m["planned"] / m["peak"] - 1
        print(f"memory, {backbone}: peak {m['peak']:.2f} GiB ({m['peak'] - m['base']:.2f} above the import baseline), "
              f"planned {m['planned']:.2f} ({off:+.0%}, bar {MEMORY_BAR:.0%})", flush=True)  # fmt: skip
    for batch in (256, 2048):
        for gpus in GPUS:
            hours, compute, moved, wire, sent, total = plan(batch, gpus)
            print(f"plan, CIFAR-10, ResNet-18, 1,000 epochs ({total / 1e18:.2f} EFLOP), batch {batch}, {gpus} GPUs: "
                  f"{hours:.1f} h; a step {compute * 1e3:.2f} ms of operations, {moved * 1e3:.2f} of memory, "
                  f"{wire * 1e3:.2f} of {sent / 2**20:.0f} MiB sent")  # fmt: skip


if __name__ == "__main__":
    run(measure, main)
