"""The content branch alone, before the joint training: minibatch Adam on the reconstruction error, kept in a cache.

The cache lies beside the downloads (TESSERA_CACHE), a folder for each (features, edges, settings of this stage, seed,
numbers of threads and workers: a result must not depend on who filled it), so that trials, seeds of other runs and
repeated commands share it. It is written like a checkpoint (whole or not there, with checksums), every minute and at
the end; whoever comes while another process trains the same waits for it. What was told of its epochs is kept with it
and told again, so that every run's history has them.

An auto-encoder left to itself first finds the groups and then loses them again in details of single rows. Which epoch
to keep is decided without labels: by the modularity, on the graph, of the clusters that k-means finds in its codes.

Axes: N nodes, n of them on this worker, B rows of a batch, F features.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import mse_loss

from ops.api import Run, State
from ops.atomic_io import locked
from ops.clustering.kmeans import kmeans
from ops.data.io.readers import cache_file
from ops.data.types.graph import AttributedGraph
from ops.distributed.process_group import Team
from ops.errors import DivergedError, SettingsError
from ops.evaluation.unlabelled import structure_indices
from ops.rng import generator
from ops.training import checkpoint
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.caegcn.model import Content
from trainers.caegcn.settings import Settings

SAVE_SECONDS = 60.0
LOOK_EVERY = 2  # epochs
_MODULARITY = "train/modularity_pretraining"


@dataclass
class _Past:
    """What rank 0 remembers: the metrics of every epoch, and the branch of the one that is kept so far by name."""

    told: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def looks(self) -> list[tuple[float, int]]:
        """(modularity, epoch) of every look; the largest is kept: of equal ones, as without any edges, the last."""
        return [(metrics[_MODULARITY], epoch) for epoch, metrics in enumerate(self.told) if _MODULARITY in metrics]


_EDITION = 4  # of the draws and the updates below: another one has other results


def key_of(settings: Settings, data: AttributedGraph, seed: int, rounding: Sequence[int | str] = ()) -> str:
    """What a pre-trained content branch depends on, as 16 hex digits; `rounding`: what its last bits depend on."""
    names = ["widths", "code_dim", "pretrain_epochs", "pretrain_keep", "pretrain_lr", "pretrain_batch"]
    arrays: list[NDArray[Any]] = [data.x]
    if settings.pretrain_keep == "modularity":
        names += ["centre_starts", "k"]
        arrays += [data.edge_index]
    h = hashlib.sha256()
    for array in arrays:
        h.update(f"{array.dtype.str}{array.shape}".encode())
        h.update(np.ascontiguousarray(array).data)
    h.update(json.dumps([_EDITION, seed, *rounding, *(getattr(settings, name) for name in names)]).encode())
    return h.hexdigest()[:16]


def pretrain(content: Content, settings: Settings, data: AttributedGraph, run: Run, team: Team) -> None:
    """Train `content` in place, or take what the cache has of it; `run` hears of epochs -pretrain_epochs ... -1.

    Of a batch each worker takes its share; rank 0 alone looks at the codes, and reads and writes the cache.
    Raises DivergedError on a loss that is not finite.
    """
    if not settings.pretrain_epochs:
        return
    rounding = (torch.get_num_threads(), team.world, run.device.type)
    folder = _folder(key_of(settings, data, run.seed, rounding)) if team.rank == 0 else None
    lock: AbstractContextManager[None] = locked(folder / ".lock") if folder else nullcontext()
    with lock:
        _train(content, settings, data, run, team, folder)


def _folder(key: str) -> Path | None:
    """The cache's folder, or None where there is no place for it: nothing is kept then."""
    folder = cache_file("x").parent / "pretrained" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError:
        return None
    return folder


def _train(content: Content, s: Settings, data: AttributedGraph, run: Run, team: Team, folder: Path | None) -> None:
    optimizer = torch.optim.Adam(content.parameters(), lr=s.pretrain_lr, fused=True)
    found = checkpoint.load_latest(folder / "epochs") if folder else None
    first = _begin(content, optimizer, team, found)
    past = _Past()
    if found is not None:
        best = {name.removeprefix("best."): v for name, v in found.shared.items() if name.startswith("best.")}
        past = _Past(found.shared["told"], best)
    for epoch in range(first):
        run.report(epoch - s.pretrain_epochs, past.told[epoch] if team.rank == 0 else {})
    saved = time.monotonic()
    for epoch in range(first, s.pretrain_epochs):
        last = epoch == s.pretrain_epochs - 1
        metrics = {"train/loss_pretraining": _epoch(content, optimizer, s, data.x, run, team, epoch)}
        past.told.append(metrics)
        if s.pretrain_keep == "modularity" and (last or epoch % LOOK_EVERY == LOOK_EVERY - 1):
            if team.rank == 0:
                _look(content, s, data, run.seed, past)
            if last:
                _take(content, past, team)
        try:
            run.report(epoch - s.pretrain_epochs, metrics)
        except BaseException:
            _save(folder, epoch, content, None if last else optimizer, past)
            raise
        if last or time.monotonic() - saved > SAVE_SECONDS:
            _save(folder, epoch, content, None if last else optimizer, past)
            saved = time.monotonic()


def _save(
    folder: Path | None, epoch: int, content: Content, optimizer: torch.optim.Optimizer | None, past: _Past
) -> None:
    """What goes on from `epoch`; without an optimiser: the branch alone, which is ready."""
    if folder is None:
        return
    if optimizer is None:
        tensors = {f"model.{name}": parameter.detach() for name, parameter in content.named_parameters()}
    else:
        tensors = pack_training(content, optimizer, gradients=False) | {f"best.{k}": v for k, v in past.best.items()}
    # no right to write there (any more): training does not need it
    with suppress(SettingsError):
        checkpoint.save(folder / "epochs", State(epoch, tensors | {"told": past.told}))


def _look(content: Content, s: Settings, data: AttributedGraph, seed: int, past: _Past) -> None:
    """Tell the modularity of the codes' clusters with the newest epoch's metrics; a branch as good as any is kept."""
    found = kmeans(content.codes(data.x), s.k, (seed, 0), starts=s.centre_starts)  # as the centres will be found
    modularity = structure_indices(data.edge_index, found.labels.cpu().numpy())["modularity"]
    past.told[-1][_MODULARITY] = modularity
    kept = max(past.looks())[1]
    past.told[-1]["train/kept_pretraining"] = float(kept)
    if kept == len(past.told) - 1:
        past.best = {name: p.detach().clone() for name, p in content.named_parameters()}


@torch.no_grad()
def _take(content: Content, past: _Past, team: Team) -> None:
    """Rank 0's kept branch for all workers."""
    for name, parameter in content.named_parameters():
        if team.rank == 0:
            parameter.copy_(past.best[name])
        team.from_first_(parameter.data)


def _begin(content: Content, optimizer: torch.optim.Optimizer, team: Team, found: State | None) -> int:
    """Take over rank 0's state where it has one, on every worker; returns the first epoch that is left."""
    at = torch.tensor([-1 if found is None else found.epoch])
    if found is not None:
        unpack_training({k: v for k, v in found.shared.items() if k != "told"}, content, optimizer)
    device = next(content.parameters()).device
    epoch = int(team.from_first_(at.to(device)))
    if team.world == 1 or epoch < 0:
        return epoch + 1
    for parameter in content.parameters():
        team.from_first_(parameter.data)
    has_moments = found is not None and any(name.startswith("optimizer.") for name in found.shared)
    if team.from_first_(torch.tensor([has_moments]).to(device)):
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
    """Every row once in keyed batches of nearly equal size; the mean error of the epoch, finite."""
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
    loss = float(team.sum_(total.to(parameters[0].device)) / (n * f))
    if not np.isfinite(loss):
        raise DivergedError(f"pre-training, epoch {epoch}: the loss is {loss}; lower --pretrain-lr")
    return loss
