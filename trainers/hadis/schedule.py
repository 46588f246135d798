"""The learning rate and the target's decay at each step of the optimiser."""

from __future__ import annotations

import math

from trainers.hadis.settings import Settings


def learning_rate(settings: Settings, step: int, steps: int) -> float:
    """The rate at `step` (from 0) with `steps` an epoch: a line up to the warm-up's end, then half a cosine."""
    peak = settings.lr * settings.batch / 256
    warm, total = settings.warmup * steps, settings.epochs * steps
    if step < warm:
        return peak * (step + 1) / warm
    passed = (step - warm) / max(total - warm - 1, 1)
    return peak * (settings.lr_end + (1 - settings.lr_end) * (1 + math.cos(math.pi * passed)) / 2)


def decay(settings: Settings, step: int, steps: int) -> float:
    """The target's decay at `step`: constant, or rising to 1 by half a cosine (BYOL)."""
    if settings.ema_schedule == "constant":
        return settings.ema_momentum
    passed = step / (settings.epochs * steps)
    return 1 - (1 - settings.ema_momentum) * (1 + math.cos(math.pi * passed)) / 2
