"""The inputs of an epoch's steps: batches of image numbers, views of images or features, images as they are.

Random draws are keyed by seed, epoch and image, so that they are the same for any number of workers.

Axes: N images, B of a batch, F features, V views.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray
from torch import Tensor

from ops import memory
from ops.data.images.transforms import augment
from ops.data.types.images import ImageSet
from ops.device import send
from ops.errors import SettingsError
from ops.rng import generator, key64, uniforms
from trainers.hadis.model import as_input, shape_of
from trainers.hadis.settings import Settings

JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation and hue at strength 1


@dataclass(frozen=True)
class ImageSource:
    """Images or features on their way to the network on `device`."""

    settings: Settings
    data: ImageSet
    seed: int
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (F,)."""
        return shape_of(self.data.pixels, self.data.features)

    @cached_property
    def moments(self) -> tuple[Float32[Tensor, "F"], Float32[Tensor, "F"]]:
        """Mean and deviation of each feature."""
        assert self.data.features is not None
        x = self.data.features
        mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
        return self._tensor(mean), self._tensor(deviation)

    def _tensor(self, values: NDArray[np.float64]) -> Float32[Tensor, "F"]:
        return send(values.astype(np.float32), self.device)

    def rows(self, index: NDArray[np.int64] | slice) -> Tensor:
        """Raw rows, uint8 pixels or float32 features. They are copied, since memory maps are read-only."""
        table = self.data.pixels if self.data.features is None else self.data.features
        assert table is not None
        rows = np.array(table[index])
        memory.release(table)
        return send(rows, self.device)

    def plain(self, index: NDArray[np.int64] | slice) -> Float[Tensor, "B *S"]:
        """Rows as the network takes them in an evaluation."""
        return as_input(self.rows(index))

    def view(self, index: NDArray[np.int64], epoch: int, view: int) -> Float[Tensor, "B *S"]:
        """View number `view` of images `index` in an epoch, as the network takes it."""
        s, rows = self.settings, self.rows(index)
        if rows.dtype != torch.uint8:
            return self._changed(rows, index, epoch, view)
        low, high, slant, hue = (s.jitter * strength for strength in JITTER)
        augmented = augment(
            rows, self.seed, epoch, torch.from_numpy(index), view, crop_scale=(s.crop_min, 1.0),
            jitter=(low, high, slant, min(hue, 0.5)), grey_p=s.grey, flip_p=s.flip,
        )  # fmt: skip
        return augmented.contiguous(memory_format=torch.channels_last)

    def _changed(self, x: Float[Tensor, "B F"], index: NDArray[np.int64], epoch: int, view: int) -> Tensor:
        """A view of features: noise by each column's deviation, some columns at their mean."""
        f = x.shape[1]
        draws = uniforms(key64(self.seed, "hadis/features", epoch, view), index, 2 * f).astype(np.float32)
        u = send(draws, x.device)
        mean, deviation = self.moments
        # uniform noise of the requested deviation
        noisy = x + (u[:, :f] * 2 - 1) * (3**0.5 * self.settings.feature_noise) * deviation
        return torch.where(u[:, f:] < self.settings.feature_drop, mean, noisy)


def batch_size(settings: Settings, n: int) -> int:
    """Images of a step: the batch, or all images where they are fewer; a multiple of the parts of a batch."""
    return min(settings.batch, n) // settings.accumulate * settings.accumulate


def steps_of(settings: Settings, n: int) -> int:
    """Steps of an epoch. Images that fill no step are left out; the next epoch has another order."""
    return min(n // batch_size(settings, n), settings.epoch_steps or n)


def batches(
    settings: Settings, n: int, seed: int, epoch: int, weights: NDArray[np.float64] | None = None
) -> list[list[NDArray[np.int64]]]:
    """The parts of every step of an epoch: each image once, or images drawn by `weights` [N], which sum to 1."""
    draws = generator(seed, "hadis/batches", epoch)
    order = draws.permutation(n) if weights is None else draws.choice(n, n, p=weights)
    size, steps = batch_size(settings, n), steps_of(settings, n)
    return [np.split(step, settings.accumulate) for step in np.split(order[: steps * size], steps)]


def inverse_sizes(labels: Int64[Tensor, "N"]) -> NDArray[np.float64]:
    """The probability of each image [N], so that every pseudo cluster is drawn equally often."""
    clusters = labels.cpu().numpy()
    weights = 1 / np.bincount(clusters)[clusters]
    return np.asarray(weights / weights.sum())


def check_batch(settings: Settings, n: int, world: int) -> None:
    """Raise SettingsError where a part of a batch leaves a worker or a loss without images."""
    part = min(settings.batch, n) // settings.accumulate
    if part < 2:
        raise SettingsError(
            f"--accumulate {settings.accumulate}: leaves {part} of {min(settings.batch, n)} images in a part; lower it"
        )
    each = -(-part // world)
    if part <= (world - 1) * each:
        raise SettingsError(
            f"--workers {world}: {part} images of a part cannot be shared by them; take fewer, or raise --batch"
        )
