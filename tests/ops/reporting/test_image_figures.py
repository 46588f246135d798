"""The figures of images: every image in its place, numbers that can be read in both modes."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ops.reporting.image_figures import confusion, mosaic, nearest, pairs, picture_figures
from ops.reporting.theme import DARK, LIGHT
from ops.results.stored_images import Confusion, Near, Pairs, StoredPictures

COLOURS = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
IMAGES = np.broadcast_to(COLOURS[:, :, None, None, None], (2, 3, 3, 10, 10)).copy()


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_images_stand_beside_each_other(theme):
    shown = np.array([[True, True, True], [True, False, False]])
    sheet = mosaic(IMAGES, shown, theme)
    assert sheet.shape == (22, 33, 3)  # gaps of one pixel
    assert sheet[5, [5, 16, 27], 0].tolist() == COLOURS[0].tolist()
    assert sheet[16, 5, 0] == COLOURS[1, 0]
    back = np.rint(np.array(to_rgb(theme.back)) * 255).tolist()
    assert sheet[16, 16].tolist() == back  # there is no such image
    assert sheet[5, 10].tolist() == back


def test_rows_are_called_by_cluster_and_size():
    found = Near(IMAGES, np.array([3, 1]), np.array([4, 7]), np.array([1200, 1]))
    ax = nearest(found).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["4\n1,200 images", "7\n1 image"]
    low, high = ax.get_yticks()
    assert (low, high) == pytest.approx((5.06, 16.06), abs=0.1)  # the middles of the rows


def test_pairs_show_both_clusters_and_the_distance():
    images = np.stack([IMAGES[:, 0], IMAGES[:, 1]])
    figure = pairs(Pairs(images, np.array([[1, 2], [3, 0]]), np.array([0.25, 0.5], np.float32)))
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    assert texts == ["1 | 2    0.250", "3 | 0    0.500"]
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (10, 20, 3)
    assert drawn[5, [5, 15], 0].tolist() == [COLOURS[0, 0], COLOURS[1, 0]]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_shares_can_be_read(theme):
    table = np.array([[90, 10, 0], [0, 50, 50]])
    ax = confusion(Confusion(table, np.array([2, 0, 1]), ("cat", "dog")), theme).axes[0]
    assert {t.get_text(): t.get_position() for t in ax.texts}["90"] == (0, 0)
    assert sorted(t.get_text() for t in ax.texts) == ["10", "50", "50", "90"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "0", "1"]
    back, full = np.array(to_rgb(theme.back)), np.array(to_rgb(theme.cycle[0]))
    for text in ax.texts:
        share = int(text.get_text()) / 100
        behind = back + share * (full - back)
        weights = (0.299, 0.587, 0.114)
        assert abs(np.dot(to_rgb(text.get_color()), weights) - np.dot(behind, weights)) > 0.35
    many = Confusion(np.ones((30, 30), np.int64), np.arange(30), tuple(map(str, range(30))))
    assert len(confusion(many, theme).axes[0].texts) == 0  # no room for numbers


def test_only_what_is_stored_is_drawn():
    near = Near(IMAGES, np.array([3, 1]), np.array([4, 7]), np.array([12, 1]))
    assert list(picture_figures(StoredPictures(0, near, None, None))) == ["nearest"]
    table = Confusion(np.ones((2, 2), np.int64), np.arange(2), ("a", "b"))
    assert list(picture_figures(StoredPictures(0, None, None, table))) == ["confusion"]
