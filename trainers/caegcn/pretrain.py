"""The content branch alone, before the joint training: minibatch Adam on the reconstruction error, kept in a cache.

The cache lies beside the downloads (TESSERA_CACHE), one folder for each (features, settings of this stage, seed), so
that trials, seeds of other runs and repeated commands share it. It is written like a checkpoint (whole or not there,
with checksums), every minute and at the end; whoever comes while another process trains the same waits for it.

Axes: N nodes, n of them on this worker, B rows of a batch, F features.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch.nn.functional import mse_loss

from ops.contrast.team import Team
from ops.data.named import cache_file
from ops.errors import DivergedError, SettingsError
from ops.files import locked
from ops.rng import generator
from ops.run import checkpoint
from ops.run.state import pack_training, unpack_training
from ops.run.types import Run, State
from trainers.caegcn.model import Content
from trainers.caegcn.settings import Settings

SAVE_SECONDS = 60.0
_EDITION = 1  # of the draws and the updates below: another one has other results


def key_of(settings: Settings, x: Float[np.ndarray, "N F"], seed: int) -> str:
    """What a pre-trained content branch depends on, as 16 hexadecimal digits."""
    h = hashlib.sha256(f"{x.dtype.str}{x.shape}".encode())
    h.update(np.ascontiguousarray(x).data)
    names = ("widths", "code_dim", "pretrain_epochs", "pretrain_lr", "pretrain_batch")
    h.update(json.dumps([_EDITION, seed, *(getattr(settings, name) for name in names)]).encode())
    return h.hexdigest()[:16]


def pretrain(content: Content, settings: Settings, x: Float[np.ndarray, "N F"], run: Run, team: Team) -> None:
    """Train `content` in place, or take what the cache has of it; `run` hears of epochs -pretrain_epochs ... -1.

    Features `x` are all workers'; of a batch each takes its share, and rank 0 alone reads and writes the cache.
    Raises DivergedError on a loss that is not finite.
    """
    if not settings.pretrain_epochs:
        return
    folder = _folder(key_of(settings, x, run.seed)) if team.rank == 0 else None
    lock: AbstractContextManager[None] = locked(folder / ".lock") if folder else nullcontext()
    with lock:
        _train(content, settings, x, run, team, folder)


def _folder(key: str) -> Path | None:
    """The cache's folder, or None where there is no place for it: nothing is kept then."""
    folder = cache_file("x").parent / "pretrained" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError:
        return None
    return folder


def _train(content: Content, s: Settings, x: NDArray[np.float32], run: Run, team: Team, folder: Path | None) -> None:
    optimizer = torch.optim.Adam(content.parameters(), lr=s.pretrain_lr, fused=True)
    first = _begin(content, optimizer, team, checkpoint.load_latest(folder / "epochs") if folder else None)
    saved = time.monotonic()

    def save(epoch: int) -> None:
        if folder is None:
            return
        last = epoch == s.pretrain_epochs - 1
        tensors = pack_training(content, optimizer, gradients=False)
        kept = {k: v for k, v in tensors.items() if k.startswith("model.") or not last}
        try:
            checkpoint.save(folder / "epochs", State(epoch, kept))
        except SettingsError:  # no right to write there (any more): training does not need it
            return

    for epoch in range(first, s.pretrain_epochs):
        loss = _epoch(content, optimizer, s, x, run, team, epoch)
        if not np.isfinite(loss):
            raise DivergedError(f"pre-training, epoch {epoch}: the loss is {loss}; lower --pretrain-lr")
        try:
            run.report(epoch - s.pretrain_epochs, {"train/loss_pretraining": loss})
        except BaseException:
            save(epoch)
            raise
        if epoch == s.pretrain_epochs - 1 or time.monotonic() - saved > SAVE_SECONDS:
            save(epoch)
            saved = time.monotonic()


def _begin(content: Content, optimizer: torch.optim.Optimizer, team: Team, found: State | None) -> int:
    """Take over rank 0's state where it has one, on every worker; returns the first epoch that is left."""
    at = torch.tensor([-1 if found is None else found.epoch])
    if found is not None:
        unpack_training(found.shared, content, optimizer)
    device = next(content.parameters()).device
    epoch = int(team.from_first_(at.to(device)))
    if team.world == 1 or epoch < 0:
        return epoch + 1
    for parameter in content.parameters():
        team.from_first_(parameter.data)
    has_moments = team.from_first_(torch.tensor([bool(found and len(found.shared) > len(list(content.parameters())))]
                                                ).to(device))  # fmt: skip
    if has_moments:
        for parameter in content.parameters():
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(parameter))
                team.from_first_(state[name])
            state.setdefault("step", torch.zeros((), device=device))
            team.from_first_(state["step"])
    return epoch + 1


def _epoch(
    content: Content, optimizer: torch.optim.Optimizer, s: Settings, x: NDArray[np.float32], run: Run, team: Team,
    epoch: int,
) -> float:  # fmt: skip
    """Every row once in keyed batches of nearly equal size; the mean error of the epoch."""
    n, f = x.shape
    order = generator(run.seed, "caegcn/pretrain", epoch).permutation(n)
    total = torch.zeros((), dtype=torch.float64)
    parameters = list(content.parameters())
    for batch in np.array_split(order, -(-n // s.pretrain_batch)):
        rows = torch.from_numpy(x[batch[team.own(len(batch))]]).to(parameters[0].device)
        found = content.decode(content.encode(rows)[-1])[-1]
        error = mse_loss(found, rows, reduction="sum")
        gradients = torch.autograd.grad(error / (len(batch) * f), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = team.sum_(gradient)
        optimizer.step()
        total += error.detach().double().cpu()
    for parameter in parameters:
        parameter.grad = None
    return float(team.sum_(total.to(parameters[0].device)) / (n * f))
