"""Random views: equal to torchvision's operations on one image, whatever the batch, and drawn as it draws."""

import numpy as np
import pytest
import torch

from ops.data.images.transforms import GREY, MEAN, RATIO, STD, augment, draw, normalise
from ops.rng import key64, uniforms

OPEN = {"crop_scale": (0.08, 1.0), "jitter": (0.4, 0.4, 0.4, 0.1), "jitter_p": 0.8, "grey_p": 0.2, "flip_p": 0.5}


def images(count, height=24, width=24, seed=0):
    images = torch.randint(0, 256, (count, 3, height, width), generator=torch.Generator().manual_seed(seed))
    return images.to(torch.uint8)


def one_by_one(image, drawn, i):
    """What torchvision makes of one image with the numbers that were drawn."""
    from torchvision.transforms.v2 import functional as tv

    top, left, height, width = (int(v) for v in drawn.crop[i])
    x = image.float() / 255
    x = tv.resized_crop(x, top, left, height, width, list(image.shape[1:]), antialias=True)
    x = tv.horizontal_flip(x) if drawn.flip[i] else x
    steps = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for kind in drawn.order[i]:
        x = steps[kind](x, float(drawn.factors[i, kind]))
    x = tv.rgb_to_grayscale(x, 3) if drawn.grey[i] else x
    return tv.normalize(x, MEAN, STD)


@pytest.mark.parametrize("size", [(24, 24), (17, 30)])
def test_a_batch_is_what_torchvision_makes_of_each_image(size):
    given = images(40, *size)
    drawn = draw(np.arange(40), key64(1, "augment", 2, 0), size, **OPEN)
    views = augment(given, 1, 2, torch.arange(40), 0)
    assert views.shape == given.shape
    for i in range(40):
        expected = one_by_one(given[i], drawn, i)
        assert torch.allclose(views[i], expected, atol=2e-5), i
    assert drawn.grey.any()
    assert drawn.flip.any()
    assert (drawn.factors[:, 3] == 0).any()  # not every image is jittered


def test_an_image_becomes_the_same_in_every_batch():
    """Alone, among others, in another order, and where the batch is cut into pieces: bit for bit."""
    given, index = images(150), torch.arange(150) * 7
    whole = augment(given, 3, 1, index, 0)
    for rows in ([5], [149, 5, 80], list(range(60, 131))):
        assert torch.equal(augment(given[rows], 3, 1, index[rows], 0), whole[rows])


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}, {"view": 1}, {"index": torch.arange(1, 9)}])
def test_every_part_of_the_key_counts(other):
    key = {"seed": 3, "epoch": 1, "index": torch.arange(8), "view": 0}
    first, second = (augment(images(8), **k) for k in (key, key | other))
    assert all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_drawn_leaves_the_image():
    given = images(5, 12, 20)
    views = augment(given, 0, 0, torch.arange(5), 0, crop_scale=(1.0, 1.0), jitter_p=0.0, grey_p=0.0, flip_p=0.0)
    assert views.shape == given.shape
    square = images(5)
    same = augment(square, 0, 0, torch.arange(5), 0, crop_scale=(1, 1), jitter=(0, 0, 0, 0), grey_p=0.0, flip_p=0.0)
    whole = draw(np.arange(5), key64(0, "augment", 0, 0), (24, 24), **OPEN | {"crop_scale": (1.0, 1.0)}).crop
    fits = (whole == [0, 0, 24, 24]).all(1)  # a ratio of 1 only: torchvision's middle crop is the whole square
    assert fits.any()
    assert torch.allclose(same[fits], normalise(square)[fits], atol=1e-6)


def test_normalised_images_are_scaled_by_channel():
    grey = torch.full((2, 3, 4, 4), 128, dtype=torch.uint8)
    expected = (128 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    assert torch.allclose(normalise(grey)[0, :, 0, 0], expected)
    assert grey.unique().tolist() == [128]  # not in place


def test_an_empty_batch_stays_empty():
    assert augment(images(0), 0, 0, torch.arange(0), 0).shape == (0, 3, 24, 24)


def test_crops_are_spread_as_torchvision_spreads_them():
    drawn = draw(np.arange(20_000), 11, (32, 32), **OPEN)
    top, left, height, width = drawn.crop.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    ratio = width / height
    assert ratio.min() > RATIO[0] * 0.8  # whole pixels
    assert ratio.max() < RATIO[1] * 1.25
    from torchvision.transforms.v2 import RandomResizedCrop

    torch.manual_seed(0)
    theirs = RandomResizedCrop(32, scale=(0.08, 1.0))
    sample = np.array([theirs.make_params([torch.empty(3, 32, 32)])["height"] for _ in range(4000)])
    assert abs(height.mean() - sample.mean()) < 0.5
    assert abs(height.std() - sample.std()) < 0.3
    assert abs(drawn.flip.mean() - 0.5) < 0.02
    assert abs(drawn.grey.mean() - 0.2) < 0.02
    assert abs((drawn.factors[:, 3] != 0).mean() - 0.8) < 0.02
    assert np.bincount(drawn.order[:, 0]).min() > 4700  # every operation comes first as often
    low, high = drawn.factors.min(0), drawn.factors.max(0)
    assert np.allclose(low, [0.6, 0.6, 0.6, -0.1], atol=1e-3)
    assert np.allclose(high, [1.4, 1.4, 1.4, 0.1], atol=1e-3)
    assert abs(sum(GREY) - 1) < 1e-3


def test_keyed_draws_are_uniform_and_pinned():
    drawn = uniforms(5, np.arange(50_000), 4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.006
    assert np.abs(np.corrcoef(drawn.T) - np.eye(4)).max() < 0.02
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.02
    assert np.array_equal(uniforms(5, np.array([7, 3]), 4), drawn[[7, 3]])
    assert uniforms(0, np.array([0]), 2)[0].tolist() == [0.8833108082136426, 0.43152799704850997]
