"""What a training of HaDis needs: operations and bytes of a step, computed before it starts.

Axes: N images, B of a part of a batch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from ops.data.types.images import ImageSet
from ops.distributed.batch_norm import BatchNorm
from ops.distributed.process_group import traffic
from ops.memory import THREADS_AND_KERNELS
from trainers.hadis.clusters import CHUNK, COPIES
from trainers.hadis.model import Model, shape_of
from trainers.hadis.settings import Settings
from trainers.hadis.source import batch_size, steps_of

FLOAT = 4  # bytes
CORE_FLOPS = 150e9  # operations a second of convolutions on one core (tests/bench/hadis.py)
LONG_HOURS = 24  # the plan warns above this


@dataclass(frozen=True)
class Work:
    """What one image needs in one pass, and the sizes of the model.

    `encoder`, `projector` and `predictor` are multiply-adds; `kept` are the numbers that a backward pass keeps.
    `weights` are trained, `target_weights` are the target's. `norms` and `target_norms` are the channels of each
    BatchNorm, trained and of the target.
    """

    encoder: int
    projector: int
    predictor: int
    kept: int
    weights: int
    target_weights: int
    norms: tuple[int, ...]
    target_norms: tuple[int, ...]

    @property
    def step(self) -> int:
        """Operations of an image in a step, two for each multiply-add.

        There are two views. What is trained runs forward and backward (twice the forward pass), the target forward
        only.
        """
        target = self.encoder + self.projector
        return 2 * 2 * (3 * (target + self.predictor) + target)


@cache
def measure(settings: Settings, shape: tuple[int, ...]) -> Work:
    """Count the work on a model without values ("meta")."""
    with torch.device("meta"):
        model = Model(settings, shape)
    counts = {"encoder": 0, "projector": 0, "predictor": 0}
    kept = [0]

    def count(part: str) -> Any:
        def hook(module: nn.Module, _: Any, out: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                counts[part] += out.numel() * module.weight[0].numel()
            elif isinstance(module, nn.Linear):
                counts[part] += module.weight.numel()
            kept[0] += out.numel() * isinstance(module, nn.Conv2d | nn.Linear | BatchNorm)

        return hook

    parts = {"encoder": model.online.encoder, "projector": model.online.projector, "predictor": model.predictor}
    for name, part in parts.items():
        for module in part.modules():
            module.register_forward_hook(count(name))
    size = (1, *shape) if settings.frozen is not None else (1, 3, *shape)
    model.eval()
    model.predictor(model.online(torch.empty(size, device="meta")))
    trained = [*_norms(model.online), *_norms(model.predictor)]
    weights = sum(p.numel() for p in model.parameters())
    target = sum(p.numel() for p in model.target.parameters())
    return Work(**counts, kept=kept[0], weights=weights - target, target_weights=target, norms=tuple(trained),
                target_norms=tuple(_norms(model.target)))  # fmt: skip


def _norms(part: nn.Module) -> list[int]:
    return [len(m.weight) for m in part.modules() if isinstance(m, BatchNorm)]


def estimate(settings: Settings, data: ImageSet, world: int = 1) -> int:
    """Peak bytes of one worker above the import baseline; checked by tests/bench/hadis.py."""
    shape = shape_of(data.pixels, data.features)
    work, n, d = measure(settings, shape), data.n_rows, settings.embedding_dim
    part = -(-batch_size(settings, n) // settings.accumulate // world)
    values = shape[0] if settings.frozen is not None else 3 * shape[0] * shape[1]
    # weights with gradients and momentum, and the target; activations of two views, and the widest layers' extra
    model = FLOAT * (3 * work.weights + work.target_weights)
    training = FLOAT * part * (2 * work.kept * 1.2 + 8 * values)
    local = -(-n // world)
    clustering = (
        FLOAT * d * (local * 3 + n * 2) + FLOAT * min(CHUNK, local) * (work.kept // 6 + 8 * values) + 8 * min(n, COPIES)
    )
    return int(THREADS_AND_KERNELS + data.resident_bytes + model + max(training, clustering))


def exchanged(settings: Settings, data: ImageSet, world: int) -> int:
    """Bytes that one worker sends in a step after the warm-up: projections, all gradients, statistics."""
    work = measure(settings, shape_of(data.pixels, data.features))
    d, parts = settings.embedding_dim, settings.accumulate
    rows = world * -(-(batch_size(settings, data.n_rows) // parts) // world)
    views = 2 + 2 * 4 + (2 if settings.batch_norm == "shuffled" else 0)  # k forward; p and q forward and backward
    gathered = parts * FLOAT * rows * d * views
    reduced = FLOAT * work.weights
    if settings.batch_norm == "sync":
        # two views: forward float64 sums and a count for every layer, backward float32 sums for the trained layers
        forward = sum(8 * (2 * width + 1) for width in (*work.norms, *work.target_norms))
        reduced += parts * 2 * (forward + sum(FLOAT * 2 * width for width in work.norms))
    return traffic(gathered, reduced, world)


def remarks(settings: Settings, data: ImageSet) -> list[str]:
    """What the plan says about the network and its steps."""
    work = measure(settings, shape_of(data.pixels, data.features))
    steps = steps_of(settings, data.n_rows)
    said = [
        f"{settings.backbone}: {2 * work.encoder / 1e6:,.1f} MFLOP an image forward, {work.weights / 1e6:,.2f} M "
        f"weights; {steps:,} steps of {batch_size(settings, data.n_rows):,} images an epoch, "
        f"{work.step * batch_size(settings, data.n_rows) * steps / 1e12:,.2f} TFLOP"
    ]
    hours = work.step * batch_size(settings, data.n_rows) * steps * settings.epochs / CORE_FLOPS / 3600
    if hours > LONG_HOURS:
        said.append(f"about {hours:,.0f} hours of one CPU core in all: meant for GPUs; on CPUs take --preset none "
                    "--backbone small and fewer --epochs")  # fmt: skip
    if settings.warmup:
        said.append(f"warm-up of {settings.warmup} epochs, then prototypes and noise")
    return said
