"""The picture of a map: what is drawn where."""

import io

import numpy as np
import pytest
from PIL import Image

from ops.reporting.som_figure import _borders, _colours, som_picture
from ops.reporting.theme import pngs

CLUSTERS = np.array([[0, 0, 1], [0, 2, 1]])
HITS = np.array([[4, 0, 16], [1, 9, 0]])


def test_circles_have_areas_like_hits_and_empty_units_none():
    ax = som_picture(np.ones((2, 3)), HITS, CLUSTERS).axes[0]
    circles = next(c for c in ax.collections if type(c).__name__ == "EllipseCollection")
    assert circles.get_offsets().tolist() == [[0, 0], [2, 0], [0, 1], [1, 1]]  # x = column, y = row
    area = (2 * circles._widths) ** 2  # matplotlib keeps half of them
    assert area / area.max() == pytest.approx(np.array([4, 16, 1, 9]) / 16)
    assert 2 * circles._widths.max() <= 1  # inside its cell
    assert len(np.unique(circles.get_facecolor(), axis=0)) == 3


def test_borders_run_between_clusters_only():
    pieces = {tuple(sorted(piece)) for piece in _borders(CLUSTERS)}
    expected = {((1.5, -0.5), (1.5, 0.5)), ((0.5, 0.5), (0.5, 1.5)), ((1.5, 0.5), (1.5, 1.5)), ((0.5, 0.5), (1.5, 0.5))}
    assert pieces == expected
    assert _borders(np.zeros((3, 3), dtype=np.int64)) == []


def test_a_name_stands_at_the_unit_with_most_rows_and_the_label_counts():
    ax = som_picture(np.ones((2, 3)), HITS, CLUSTERS).axes[0]
    places = {text.get_text(): text.get_position() for text in ax.texts}
    assert places == {"0": (0.0, 0.0), "1": (2.0, 0.0), "2": (1.0, 1.0)}
    assert ax.get_xlabel() == "2 x 3 units; largest circle: 16 of 30 rows;\nempty units: 2"


def test_neighbouring_clusters_differ_in_colour():
    clusters = np.arange(12).reshape(3, 4)
    clusters[0, 1] = 10  # beside 0, whose colour it would repeat
    chosen = _colours(clusters, 10)
    assert chosen[0] == 0
    assert chosen[10] != 0
    for r, c in np.ndindex(3, 4):
        around = clusters[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2].ravel()
        assert all(chosen[int(a)] != chosen[int(clusters[r, c])] for a in around if a != clusters[r, c])
    assert set(_colours(clusters, 2).values()) <= {0, 1}  # more neighbours than colours


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (12, 1), (20, 30)])
def test_any_grid_is_drawn_the_same_each_time(shape):
    rng = np.random.default_rng(0)
    given = rng.random(shape), rng.integers(50, size=shape), rng.integers(4, size=shape)
    first, second = (pngs(som_picture(*given))[0] for _ in range(2))
    assert first == second
    assert max(Image.open(io.BytesIO(first)).size) < 1300


def test_a_map_without_distances_or_rows():
    pngs(som_picture(np.zeros((2, 2)), np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2), dtype=np.int64)))[0]
