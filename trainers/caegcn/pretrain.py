"""The content branch alone, before the joint training: minibatch Adam on the reconstruction error, kept in a cache.

The cache lies beside the downloads (TESSERA_CACHE). It has a folder for each combination of features, edges, settings
of this stage, seed, threads and workers (as a result must not depend on who wrote the folder), so that trials, the
seeds of other runs and repeated commands share it. A folder is written like a checkpoint (whole or not there, with
checksums), every minute and at the end. A process that needs what another one is training waits for it. The metrics of
the epochs are kept too and reported again, so that every run's history has them.

An auto-encoder left to itself first finds the groups and then loses them again in details of single rows. Which epoch
to keep is decided without labels: by the modularity, on the graph, of the clusters that k-means finds in its codes.

Axes: N nodes, n of them on this worker, B rows of a batch, F features.
"""

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
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.errors import SettingsError
from ops.evaluation.unlabelled import structure_indices
from ops.rng import generator
from ops.training import checkpoint
from ops.training.optimizer_state import pack_training, unpack_training
from trainers.caegcn.model import Content
from trainers.caegcn.settings import Settings
from trainers.shared import check_loss, gradient_step

SAVE_SECONDS = 60.0
SCORE_EVERY = 2  # epochs between two evaluations of the codes
_MODULARITY = "train/modularity_pretraining"


@dataclass
class _History:
    """What rank 0 keeps: the metrics of every epoch, and the weights, by name, of the epoch that is best so far."""

    metrics: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def kept_epoch(self) -> int:
        """The epoch of the largest modularity; of equal ones the last, which without edges are all."""
        scores = [(each[_MODULARITY], epoch) for epoch, each in enumerate(self.metrics) if _MODULARITY in each]
        return max(scores)[1]


_EDITION = 5  # of draws, updates and files: another edition has other results


def key_of(settings: Settings, data: AttributedGraph, seed: int, rounding: Sequence[int | str] = ()) -> str:
    """16 hex digits of all that a pre-trained content branch depends on.

    `rounding` has what only its last bits depend on.
    """
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


def pretrain(content: Content, settings: Settings, data: AttributedGraph, run: Run, group: ProcessGroup) -> None:
    """Train `content` in place, or take it from the cache; `run` gets reports of the epochs -pretrain_epochs ... -1.

    Each worker takes its share of a batch. Rank 0 alone evaluates the codes, and reads and writes the cache. Raises
    DivergedError on a loss that is not finite.
    """
    if not settings.pretrain_epochs:
        return
    rounding = (torch.get_num_threads(), group.world, run.device.type)
    folder = _folder(key_of(settings, data, run.seed, rounding)) if group.rank == 0 else None
    lock: AbstractContextManager[None] = locked(folder / ".lock") if folder else nullcontext()
    with lock:
        _train(content, settings, data, run, group, folder)


def _folder(key: str) -> Path | None:
    """The folder in the cache, or None where it cannot be made; then nothing is kept."""
    folder = cache_file("x").parent / "pretrained" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".lock").touch()
    except OSError:
        return None
    return folder


def _train(
    content: Content, s: Settings, data: AttributedGraph, run: Run, group: ProcessGroup, folder: Path | None
) -> None:
    optimizer = torch.optim.Adam(content.parameters(), lr=s.pretrain_lr, fused=True)
    stored = checkpoint.load_latest(folder / "epochs") if folder else None
    first = _begin(content, optimizer, group, stored)
    history = _History()
    if stored is not None:
        best = {name.removeprefix("best."): v for name, v in stored.shared.items() if name.startswith("best.")}
        history = _History(stored.shared["history"], best)
    for epoch in range(first):
        run.report(epoch - s.pretrain_epochs, history.metrics[epoch] if group.rank == 0 else {})
    saved = time.monotonic()
    for epoch in range(first, s.pretrain_epochs):
        last = epoch == s.pretrain_epochs - 1
        metrics = {"train/loss_pretraining": _epoch(content, optimizer, s, data.x, run, group, epoch)}
        history.metrics.append(metrics)
        if s.pretrain_keep == "modularity" and (last or epoch % SCORE_EVERY == SCORE_EVERY - 1):
            if group.rank == 0:
                _score(content, s, data, run.seed, history)
            if last:
                _take_best(content, history, group)
        try:
            run.report(epoch - s.pretrain_epochs, metrics)
        except BaseException:
            _save(folder, epoch, content, None if last else optimizer, history)
            raise
        if last or time.monotonic() - saved > SAVE_SECONDS:
            _save(folder, epoch, content, None if last else optimizer, history)
            saved = time.monotonic()


def _save(
    folder: Path | None, epoch: int, content: Content, optimizer: torch.optim.Optimizer | None, history: _History
) -> None:
    """Write what a resumed pre-training needs after `epoch`.

    Without an optimiser write the weights alone: their training is complete.
    """
    if folder is None:
        return
    if optimizer is None:
        tensors = {f"model.{name}": parameter.detach() for name, parameter in content.named_parameters()}
    else:
        tensors = pack_training(content, optimizer, gradients=False)
        tensors |= {f"best.{k}": v for k, v in history.best.items()}
    with suppress(SettingsError):  # the folder cannot be written: the training goes on without it
        checkpoint.save(folder / "epochs", State(epoch, tensors | {"history": history.metrics}))


def _score(content: Content, s: Settings, data: AttributedGraph, seed: int, history: _History) -> None:
    """Add the modularity of the codes' clusters to the metrics of the newest epoch.

    Its weights are kept where no earlier epoch was better.
    """
    clusters = kmeans(content.codes(data.x), s.k, (seed, 0), starts=s.centre_starts)  # the key of the first centres
    newest = history.metrics[-1]
    newest[_MODULARITY] = structure_indices(data.edge_index, clusters.labels.cpu().numpy())["modularity"]
    kept = history.kept_epoch()
    newest["train/kept_pretraining"] = float(kept)
    if kept == len(history.metrics) - 1:
        history.best = {name: p.detach().clone() for name, p in content.named_parameters()}


@torch.no_grad()
def _take_best(content: Content, history: _History, group: ProcessGroup) -> None:
    """Give the weights that rank 0 kept to all workers."""
    for name, parameter in content.named_parameters():
        if group.rank == 0:
            parameter.copy_(history.best[name])
        group.broadcast_(parameter.data)


def _begin(content: Content, optimizer: torch.optim.Optimizer, group: ProcessGroup, stored: State | None) -> int:
    """Load rank 0's stored state on every worker where there is one; returns the first epoch still to train."""
    device = next(content.parameters()).device
    has_moments = False
    if stored is not None:
        unpack_training({k: v for k, v in stored.shared.items() if k != "history"}, content, optimizer)
        has_moments = any(name.startswith("optimizer.") for name in stored.shared)
    epoch, moments = group.broadcast_(torch.tensor([-1 if stored is None else stored.epoch, has_moments]).to(device))
    if group.world == 1 or epoch < 0:
        return int(epoch) + 1
    for parameter in content.parameters():
        group.broadcast_(parameter.data)
        if moments:
            state = optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                group.broadcast_(state.setdefault(name, torch.zeros_like(parameter)))
            group.broadcast_(state.setdefault("step", torch.zeros((), device=device)))
    return int(epoch) + 1


def _epoch(
    content: Content, optimizer: torch.optim.Optimizer, s: Settings, x: NDArray[np.float32], run: Run,
    group: ProcessGroup, epoch: int,
) -> float:  # fmt: skip
    """Train on every row once, in keyed batches of nearly equal size; returns the mean error of the epoch."""
    n, f = x.shape
    order = generator(run.seed, "caegcn/pretrain", epoch).permutation(n)
    parameters = list(content.parameters())
    total = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
    for batch in np.array_split(order, -(-n // s.pretrain_batch)):
        rows = send(x[batch[group.shard(len(batch))]], total.device)
        decoded = content.decode(content.encode(rows)[-1])[-1]
        error = mse_loss(decoded, rows, reduction="sum")
        gradient_step(error / (len(batch) * f), parameters, optimizer, group)
        total += error.detach().double()
    optimizer.zero_grad(set_to_none=True)
    loss = float(group.sum_(total) / (n * f))
    check_loss(loss, epoch, "lower --pretrain-lr", "pre-training, ")
    return loss
