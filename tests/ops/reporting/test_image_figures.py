"""The figures of images: every image in its place, numbers that can be read."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ops.reporting.image_figures import confusion, mosaic, nearest, pairs

COLOURS = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
IMAGES = np.broadcast_to(COLOURS[:, :, None, None, None], (2, 3, 3, 10, 10)).copy()


def test_images_stand_beside_each_other_and_all_else_is_clear():
    sheet = mosaic(IMAGES, np.array([[True, True, True], [True, False, False]]))
    assert sheet.shape == (22, 33, 4)  # gaps of one pixel
    assert sheet[5, [5, 16, 27], 0].tolist() == COLOURS[0].tolist()
    assert sheet[16, 5].tolist() == [COLOURS[1, 0]] * 3 + [255]
    assert sheet[16, 16, 3] == sheet[5, 10, 3] == 0  # there is no such image, and a gap


def test_rows_are_called_by_cluster_and_size():
    ax = nearest(IMAGES, np.array([3, 1]), np.array([4, 7]), np.array([1200, 1])).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["4\n1,200 images", "7\n1 image"]
    assert tuple(ax.get_yticks()) == pytest.approx((5.06, 16.06), abs=0.1)  # the middles of the rows


def test_pairs_show_both_clusters_and_the_distance():
    images = np.stack([IMAGES[:, 0], IMAGES[:, 1]])
    figure = pairs(images, np.array([[1, 2], [3, 0]]), np.array([0.25, 0.5], np.float32))
    assert [t.get_text() for ax in figure.axes for t in ax.texts] == ["1 | 2    0.250", "3 | 0    0.500"]
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (10, 20, 3)
    assert drawn[5, [5, 15], 0].tolist() == [COLOURS[0, 0], COLOURS[1, 0]]


def test_shares_can_be_read():
    table = np.array([[90, 10, 0], [0, 50, 50]])
    ax = confusion(table, np.array([2, 0, 1]), ["cat", "dog"]).axes[0]
    assert {t.get_text(): t.get_position() for t in ax.texts}["90"] == (0, 0)
    assert sorted(t.get_text() for t in ax.texts) == ["10", "50", "50", "90"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "0", "1"]
    image = ax.images[0]
    for text in ax.texts:
        behind = image.cmap(image.norm(float(text.get_text())))[:3]
        weights = (0.299, 0.587, 0.114)
        assert abs(np.dot(to_rgb(text.get_color()), weights) - np.dot(behind, weights)) > 0.35
    many = confusion(np.ones((30, 30), np.int64), np.arange(30), list(map(str, range(30))))
    assert len(many.axes[0].texts) == 0  # no room for numbers
