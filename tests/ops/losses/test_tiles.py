"""The tiles cover a symmetric matrix: every pair once, whatever the sizes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ops.losses.tiles import Tile, TileBuffers, similarity_tile, upper_numel, upper_tiles


@given(n=st.integers(1, 60), size=st.integers(1, 70))
def test_every_pair_is_covered_once(n, size):
    seen = np.zeros((n, n), dtype=int)
    tiles = list(upper_tiles(n, size))
    for tile in tiles:
        seen[tile.rows, tile.cols] += 1
        assert tile.shape == seen[tile.rows, tile.cols].shape
        assert max(tile.shape) <= size
        if not tile.diagonal:  # it stands for its transpose too
            seen[tile.cols, tile.rows] += 1
    assert (seen == 1).all()
    assert [t.index for t in tiles] == list(range(len(tiles)))
    assert upper_numel(n, size) == sum(t.numel for t in tiles) >= n * (n + 1) // 2


def test_order_and_ragged_ends():
    assert list(upper_tiles(5, 2))[:4] == [
        Tile(0, slice(0, 2), slice(0, 2)), Tile(1, slice(0, 2), slice(2, 4)), Tile(2, slice(0, 2), slice(4, 5)),
        Tile(3, slice(2, 4), slice(2, 4)),
    ]  # fmt: skip
    assert [t.diagonal for t in upper_tiles(5, 2)] == [True, False, False, True, False, True]
    assert upper_numel(5, 2) == 4 + 4 + 2 + 4 + 2 + 1
    assert list(upper_tiles(3, 10)) == [Tile(0, slice(0, 3), slice(0, 3))]


@pytest.mark.parametrize(("n", "size"), [(0, 4), (4, 0), (-1, 4), (4, -2)])
def test_sizes_must_be_positive(n, size):
    with pytest.raises(ValueError, match=f"n_rows={n} and tile_rows={size} must be at least 1"):
        list(upper_tiles(n, size))


def test_buffers_are_one_piece_of_memory_a_name():
    buffers = TileBuffers(4, torch.empty(0, dtype=torch.float64))
    a, ragged, other = buffers.take("s", (4, 4)), buffers.take("s", (3, 2)), buffers.take("w", (4, 4))
    assert a.dtype == torch.float64
    assert ragged.is_contiguous()
    assert a.data_ptr() == ragged.data_ptr() != other.data_ptr()
    assert ragged.shape == (3, 2)


@pytest.mark.parametrize("alpha", [-0.5, 0.3, 1.7])
def test_similarity_equals_the_dense_block(alpha):
    g = torch.Generator().manual_seed(0)
    z, e = (torch.randn(11, 5, dtype=torch.float64, generator=g) for _ in range(2))
    dense = alpha * z @ z.T + (1 - alpha) * e @ e.T
    for tile in upper_tiles(11, 4):
        out = torch.full(tile.shape, torch.nan, dtype=torch.float64)  # what was there does not count
        found = similarity_tile(tile, z, e, (alpha, 1 - alpha), out)
        assert found.data_ptr() == out.data_ptr()
        assert torch.allclose(found, dense[tile.rows, tile.cols], rtol=0, atol=1e-13)
