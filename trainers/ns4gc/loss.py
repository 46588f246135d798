"""NS4GC's loss, exact, by tiles, with a hand-written backward pass (Liu et al., TKDE 2024).

With `S = Z1 Z2^T`, p_ij = sigmoid((S_ij - s) / tau) and M = N^2 - |E| - N pairs without an edge:

`L = - 1/N sum_i S_ii - a/|E| sum_(ij in E) S_ij + b/M ( sum_ij p_ij - sum_(ij in E or i = j) p_ij )`,
`dL/dS_ij = b p_ij (1 - p_ij) / (M tau)` off the links, `-1/N` on the diagonal, `-a/|E|` on the edges;
`dZ1 = G Z2`, `dZ2 = G^T Z1`. The sum over all pairs walks the tiles, the others the links. No N x N array exists.

Axes: N nodes, D width, R x C one tile, E entries of this worker's rows of A + I.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ops.distributed.process_group import ProcessGroup
from ops.losses.link_bce import Links
from ops.losses.precomputed_grad import with_gradients
from ops.losses.tiles import TileBuffers, share_of_tiles, tile_rows_on
from trainers.ns4gc.settings import Settings

_CHUNK = 2**20  # numbers gathered at a time for the links
Gradients = tuple[Tensor, Tensor] | None


def similarity_loss(
    z1: Float[Tensor, "N D"], z2: Float[Tensor, "N D"], links: Links, settings: Settings, group: ProcessGroup
) -> Float[Tensor, ""]:
    """The loss above, differentiable in both views, whose rows have unit length.

    Every worker of `group` has all rows, walks its share of the tiles and the links of its rows, and gets the whole
    loss. Its gradients are those of its share; their sum over the workers is the gradient of one process.
    """

    def compute(with_gradient: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        a, b = z1.detach(), z2.detach()
        gradients = (torch.zeros_like(a), torch.zeros_like(b)) if with_gradient else None
        total = _all_pairs(a, b, gradients, links, settings, group) + _linked(a, b, gradients, links, settings)
        return group.sum_(total).to(a.dtype), gradients or ()

    return with_gradients(compute, z1, z2)


def _weight(links: Links, settings: Settings) -> float:
    """b / M; 0 where every pair has an edge."""
    return settings.apart / max(links.n_nodes**2 - links.positives, 1)


def _all_pairs(
    a: Tensor, b: Tensor, gradients: Gradients, links: Links, settings: Settings, group: ProcessGroup
) -> Float[Tensor, ""]:
    """b/M sum of p over this worker's tiles of the upper triangle and their mirror images."""
    tau, weight = settings.temperature, _weight(links, settings)
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    tile_rows = tile_rows_on(settings.tile_rows, a.device)
    buffers = TileBuffers(tile_rows, a)
    for tile in share_of_tiles(len(a), tile_rows, group.rank, group.world):
        sides = [(tile.rows, tile.cols), (tile.cols, tile.rows)]
        for rows, cols in sides[:1] if tile.diagonal else sides:  # S is not symmetric
            shape = rows.stop - rows.start, cols.stop - cols.start
            s = torch.mm(a[rows], b[cols].T, out=buffers.take("s", shape))
            p = s.sub_(settings.threshold).mul_(1 / tau).sigmoid_()
            total += p.sum(dtype=torch.float64) * weight
            if gradients is not None:
                slope = p.sub_(torch.mul(p, p, out=buffers.take("square", shape)))
                gradients[0][rows].addmm_(slope, b[cols], alpha=weight / tau)
                gradients[1][cols].addmm_(slope.T, a[rows], alpha=weight / tau)
    return total


def _linked(a: Tensor, b: Tensor, gradients: Gradients, links: Links, settings: Settings) -> Float[Tensor, ""]:
    """The terms of S_ii and of the edges of this worker's rows, less what `_all_pairs` has counted for these pairs."""
    n, tau, weight = links.n_nodes, settings.temperature, _weight(links, settings)
    edge_weight = settings.neighbours / max(links.positives - n, 1)
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    step = max(1, _CHUNK // a.shape[1])
    for at in range(0, len(links.source), step):
        i, j = links.source[at : at + step], links.target[at : at + step]
        rows, cols = a[i], b[j]
        s = torch.linalg.vecdot(rows, cols)
        p = ((s - settings.threshold) / tau).sigmoid()
        pull = torch.where(i == j, s.new_full((), 1 / n), s.new_full((), edge_weight))
        total -= (pull * s + weight * p).sum(dtype=torch.float64)
        if gradients is not None:
            slope = -(pull + weight / tau * p * (1 - p))[:, None]
            gradients[0].index_add_(0, i, cols * slope)
            gradients[1].index_add_(0, j, rows * slope)
    return total
