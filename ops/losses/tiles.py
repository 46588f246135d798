"""Symmetric tiles: go through an M x M matrix by its upper triangle without ever storing it.

A symmetric matrix is covered by the tiles whose row block is not after their column block. A tile off the diagonal
stands for itself and its transpose. A sum over pairs visits each tile once and adds to both its rows and its columns.

Axes: M rows, R rows of a tile, C columns of a tile, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

TILE_ROWS = 512  # 1 MiB of float32 fits a core's L2, and its products already run at the matmul peak
GPU_TILE_ROWS = 8192  # 256 MiB: few kernels, each of which fills a GPU


def tile_rows_on(asked: Literal["auto"] | int, device: torch.device | None = None) -> int:
    """The rows of a tile: those `asked` for, or with `auto` those that suit the device (None: a CPU)."""
    if asked != "auto":
        return asked
    return TILE_ROWS if device is None or device.type == "cpu" else GPU_TILE_ROWS


@dataclass(frozen=True)
class Tile:
    """One tile of the upper triangle; `index` is its number, `diagonal` says that rows and columns are the same."""

    index: int
    rows: slice
    cols: slice

    @property
    def diagonal(self) -> bool:
        """Whether the tile is on the diagonal, so that it has both (i, j) and (j, i)."""
        return bool(self.rows.start == self.cols.start)

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C), rows and columns."""
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start

    @property
    def numel(self) -> int:
        """R * C, the number of entries."""
        return self.shape[0] * self.shape[1]


def upper_tiles(n_rows: int, tile_rows: int = TILE_ROWS) -> Iterator[Tile]:
    """The tiles of the upper triangle of a symmetric `n_rows` x `n_rows` matrix, row by row.

    The last block may be smaller. Raises ValueError unless both numbers are positive.
    """
    if n_rows < 1 or tile_rows < 1:
        raise ValueError(f"n_rows={n_rows} and tile_rows={tile_rows} must be at least 1")
    blocks = [slice(start, min(start + tile_rows, n_rows)) for start in range(0, n_rows, tile_rows)]
    index = 0
    for i, rows in enumerate(blocks):
        for cols in blocks[i:]:
            yield Tile(index, rows, cols)
            index += 1


def share_of_tiles(n_rows: int, tile_rows: int, rank: int, world: int) -> list[Tile]:
    """The upper tiles that worker `rank` of `world` walks: every `world`-th one."""
    return [tile for tile in upper_tiles(n_rows, tile_rows) if tile.index % world == rank]


def upper_numel(n_rows: int, tile_rows: int = TILE_ROWS) -> int:
    """How many entries the upper tiles have together, which is what one stored value a pair costs."""
    return sum(tile.numel for tile in upper_tiles(n_rows, tile_rows))


class TileBuffers:
    """Scratch memory for tiles, allocated once, since fresh memory pages cost more than the arithmetic on them."""

    def __init__(self, tile_rows: int, like: Tensor) -> None:
        self._flat: dict[str, Tensor] = {}
        self._size = tile_rows * tile_rows
        self._like = like

    def take(self, name: str, shape: tuple[int, int]) -> Float[Tensor, "R C"]:
        """The buffer `name` as a contiguous [R, C] tensor, whose contents are left over from its last use."""
        if name not in self._flat:
            self._flat[name] = torch.empty(self._size, dtype=self._like.dtype, device=self._like.device)
        return self._flat[name][: shape[0] * shape[1]].view(shape)


def similarity_tile(
    tile: Tile,
    z: Float[Tensor, "M D"],
    e: Float[Tensor, "M D"],
    scales: tuple[float | Tensor, float | Tensor],
    out: Float[Tensor, "R C"],
) -> Float[Tensor, "R C"]:
    """`scales[0] Z Z^T + scales[1] E E^T` on one tile (HSAN eq. 5: alpha and 1 - alpha), written to `out`.

    Only one side is scaled: alpha leaves [0, 1] during training, and then square roots for both sides would not exist.
    """
    torch.mm(z[tile.rows] * scales[0], z[tile.cols].T, out=out)
    return out.addmm_(e[tile.rows] * scales[1], e[tile.cols].T)
