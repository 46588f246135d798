"""Random views of images, for a whole batch at a time, the same whoever computes them.

What torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and RandomGrayscale do to one image after the
other (their distributions and formulas), here as tensor operations on a batch in which every image has numbers of its
own; torchvision's functions of batches take one number for all. These numbers are hashes of (seed, epoch, view, index
of the image), and no operation mixes images: what becomes of an image depends neither on its batch nor on the number
of workers.

Axes: B images, H x W pixels, S the side of the view, P drawn numbers of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ops.device import send
from ops.rng import key64, uniforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of natural images, in [0, 1]: one scale for all data sets
GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision has it
RATIO = (3 / 4, 4 / 3)
TRIES = 10  # crops that are drawn before the whole image is taken, as torchvision does
CHUNK = 64  # images at a time on a CPU: they stay in its cache from the first step to the last
_DRAWS = 2 * TRIES + 2 + 1 + 1 + 4 + 4 + 1

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """What was drawn for every image: crop (top, left, height, width) [B, 4] in pixels, flip [B], factors [B, 4] of
    brightness, contrast, saturation (1: none) and hue (0: none), their order [B, 4], grey [B]."""

    crop: Doubles
    flip: NDArray[np.bool_]
    factors: Doubles
    order: NDArray[np.int64]
    grey: NDArray[np.bool_]


def normalise(images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images as they are, scaled by the mean and deviation of natural images."""
    return _scaled(images.float().div_(255))


def augment(
    images: UInt8[Tensor, "B 3 H W"],
    seed: int,
    epoch: int,
    index: Int64[Tensor, " B"],
    view: int,
    *,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1),
    jitter_p: float = 0.8,
    grey_p: float = 0.2,
    flip_p: float = 0.5,
) -> Float[Tensor, "B 3 H W"]:
    """View number `view` of images number `index` of the data in `epoch`, normalised, as large as the images.

    `crop_scale`: smallest and largest share of the image's area; `jitter`: strength of brightness, contrast,
    saturation (factors in 1 +- strength) and hue (turned by +- strength of the circle), with probability `jitter_p`;
    `grey_p`, `flip_p`: probabilities of grey and mirrored images.
    """
    height, width = images.shape[-2:]
    drawn = draw(
        index.cpu().numpy(), key64(seed, "augment", epoch, view), (height, width), crop_scale=crop_scale,
        jitter=jitter, jitter_p=jitter_p, grey_p=grey_p, flip_p=flip_p,
    )  # fmt: skip
    step = CHUNK if images.device.type == "cpu" else len(images)
    views = [_view(images[i : i + step], drawn, slice(i, i + step)) for i in range(0, len(images), step)]
    return torch.cat(views) if views else images.float()


def draw(
    index: NDArray[np.int64],
    key: int,
    size: tuple[int, int],
    *,
    crop_scale: tuple[float, float],
    jitter: tuple[float, float, float, float],
    jitter_p: float,
    grey_p: float,
    flip_p: float,
) -> Draws:
    """What `augment` does to each of the images `index` [B] of `size` (H, W)."""
    u = uniforms(key, index, _DRAWS)
    at = 2 * TRIES
    crop = _crops(u[:, :TRIES], u[:, TRIES:at], u[:, at : at + 2], size, crop_scale)
    on = (u[:, at + 3] < jitter_p)[:, None]
    strength = np.asarray(jitter)
    low = np.array([*np.maximum(0, 1 - strength[:3]), -strength[3]])
    high = np.array([*(1 + strength[:3]), strength[3]])
    factors = np.where(on, low + u[:, at + 4 : at + 8] * (high - low), [1.0, 1.0, 1.0, 0.0])
    order = np.argsort(u[:, at + 8 : at + 12], axis=1)
    return Draws(crop, u[:, at + 2] < flip_p, factors, order, u[:, at + 12] < grey_p)


def _crops(
    area: Doubles, ratio: Doubles, corner: Doubles, size: tuple[int, int], scale: tuple[float, float]
) -> Doubles:
    """Top, left, height, width [B, 4]: the first of the drawn crops that is inside, else the image's middle."""
    height, width = size
    area = (scale[0] + area * (scale[1] - scale[0])) * height * width
    ratio = np.exp(np.log(RATIO[0]) + ratio * (np.log(RATIO[1]) - np.log(RATIO[0])))
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    inside = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first, rows = inside.argmax(axis=1), np.arange(len(area))
    sizes, fits = np.stack([h[rows, first], w[rows, first]], axis=1), inside.any(axis=1)
    whole = np.array([min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))], dtype=np.float64)
    sizes[~fits] = whole
    room = np.array(size) - sizes
    place = np.floor(corner * (room + 1))
    place[~fits] = np.floor((np.array(size) - whole) / 2)
    return np.concatenate([place, sizes], axis=1)


def _view(images: UInt8[Tensor, "B 3 H W"], drawn: Draws, rows: slice) -> Float[Tensor, "B 3 H W"]:
    """The drawn crop, jitter and grey of one piece of a batch."""
    device = images.device
    x = _cropped(images.float().div_(255), drawn.crop[rows], drawn.flip[rows])
    factors = send(drawn.factors[rows].astype(np.float32), device)
    order = drawn.order[rows]
    turned = np.argmax(order == 3, axis=1)  # at which of the four steps the hue is turned
    moves = drawn.factors[rows, 3] != 0
    changes = (drawn.factors[rows, :3] != 1).any()
    for step in range(4):
        if changes:
            x = _mixed(x, factors, send(order[:, step], device))
        now = np.flatnonzero(moves & (turned == step))
        if now.size:
            at = send(now, device)
            x[at] = _turned(x[at], factors[at, 3])
    if (grey := np.flatnonzero(drawn.grey[rows])).size:
        at = send(grey, device)
        x[at] = _grey(x[at])
    return _scaled(x)


def _cropped(x: Float[Tensor, "B 3 H W"], crop: Doubles, flip: NDArray[np.bool_]) -> Float[Tensor, "B 3 H W"]:
    """Every image's crop, as large as the image (bilinear; crops are never larger), mirrored where `flip`."""
    height, width = x.shape[-2:]
    rows = _source(crop[:, 0], crop[:, 2], height, np.zeros_like(flip))
    cols = _source(crop[:, 1], crop[:, 3], width, flip)
    places = (((2 * cols + 1) / width - 1)[:, None, :], ((2 * rows + 1) / height - 1)[:, :, None])
    across, down = (send(each.astype(np.float32), x.device) for each in places)
    grid = torch.stack((across.expand(-1, height, -1), down.expand(-1, -1, width)), -1)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _source(first: Doubles, length: Doubles, size: int, flip: NDArray[np.bool_]) -> Doubles:
    """Where each of `size` places of a view lies in the image [B, size]; never outside of the crop."""
    place = (np.arange(size) + 0.5) * length[:, None] / size - 0.5
    place = first[:, None] + np.clip(place, 0, length[:, None] - 1)
    return np.where(flip[:, None], place[:, ::-1], place)


def _mixed(
    x: Float[Tensor, "B 3 H W"], factors: Float[Tensor, "B 4"], kind: Int64[Tensor, " B"]
) -> Float[Tensor, "B 3 H W"]:
    """f x + (1 - f) base, where base is black (brightness), mean grey (contrast) or the own grey (saturation)."""
    f = torch.where(kind == 3, 1.0, factors.gather(1, kind[:, None])[:, 0])[:, None, None, None]
    grey = _grey(x)
    mean = grey.mean(-1, keepdim=True).mean(-2, keepdim=True)  # rows, then columns: independent of the batch
    kind = kind[:, None, None, None]
    base = (grey * (kind == 2)).add_(mean * (kind == 1)).mul_(1 - f)
    return (x * f).add_(base).clamp_(0, 1)


def _grey(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
    return (x[:, 0:1] * GREY[0]).add_(x[:, 1:2] * GREY[1]).add_(x[:, 2:3] * GREY[2])


def _turned(x: Float[Tensor, "B 3 H W"], by: Float[Tensor, " B"]) -> Float[Tensor, "B 3 H W"]:
    """The hue turned by a share of the circle: to hue, saturation, value and back in closed form.

    With V the largest and C the difference to the smallest channel, a channel is V - C clip(min(k, 4 - k), 0, 1) where
    k = (n + hue) mod 6 for n = 5, 3, 1 (red, green, blue) and hue in sixths of the circle.
    """
    r, g, b = x.unbind(1)
    high, low = x.amax(1), x.amin(1)
    span = high - low
    safe = torch.where(span > 0, span, 1.0)
    hue = torch.where(high == r, (g - b) / safe, torch.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4))
    n = send(torch.tensor([5.0, 3.0, 1.0]), x.device)[None, :, None, None]
    k = ((hue + 6 * by[:, None, None])[:, None] + n).remainder_(6)
    k = torch.minimum(k, 4 - k).clamp_(0, 1)
    return high[:, None] - k.mul_(span[:, None])


def _scaled(x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """(x - mean) / deviation, in place."""
    mean, std = (send(torch.tensor(v), x.device)[:, None, None] for v in (MEAN, STD))
    return x.sub_(mean).div_(std)
