"""The structure loss of a graph auto-encoder, exact, by symmetric tiles, with a hand-written backward pass.

`A^ = sigmoid(C C^T)` against `A + I` by binary cross-entropy, mean over all N^2 pairs, a positive pair weighing
`pos_weight` (CaEGCN, Huo et al. 2023, structure loss of the graph auto-encoder). With s = C C^T and w = pos_weight:

`L = 1/N^2 [ sum_ij softplus(s_ij) + sum_(ij in A+I) ( (w - 1) softplus(s_ij) - w s_ij ) ]`,
`dL/dC = 2/N^2 [ sigmoid(s) C + W C ]`,  `W_ij = (w - 1) sigmoid(s_ij) - w` on the pairs of A + I.

The first sum walks the tiles of the upper triangle, the second the edges. No N x N array exists.

Axes: N nodes, n of them on this worker, D width, E entries of this worker's rows of A + I, R x C one tile.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import softplus

from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.losses.precomputed_grad import with_gradients
from ops.losses.tiles import TILE_ROWS, TileBuffers, share_of_tiles

_STRAIGHT = 40.0  # from here on softplus(s) equals s, as exp(-40) is below float64's last bit
_CHUNK = 2**20  # values that are gathered at a time for the edges


@dataclass(frozen=True)
class Links:
    """The entries of A + I in this worker's rows.

    `source` counts from the first of all rows; `positives` is how many entries all workers have.
    """

    source: Int64[Tensor, "E"]
    target: Int64[Tensor, "E"]
    n_nodes: int
    positives: int

    @property
    def balance(self) -> float:
        """The `pos_weight` with which linked and unlinked pairs weigh alike: `(N^2 - |A + I|) / |A + I|`."""
        return (self.n_nodes**2 - self.positives) / self.positives


def links_of(a: sp.csr_array, group: ProcessGroup, device: torch.device | None = None) -> Links:
    """The links of a symmetric matrix A [N, N], that is A + I, whatever its values and its diagonal are."""
    n = a.shape[0]
    whole = sp.csr_array(a + sp.eye_array(n, format="csr"))  # a node with a loop has one entry there too
    shard = group.shard(n)
    entries = sp.csr_array(whole[shard]).tocoo()
    source, target = (torch.from_numpy(each.astype(np.int64)) for each in (entries.row, entries.col))
    device = device or torch.device("cpu")
    return Links(send(source + shard.start, device), send(target, device), n, int(whole.nnz))


def structure_loss(
    codes: Float[Tensor, "N D"],
    links: Links,
    pos_weight: float = 1.0,
    *,
    group: ProcessGroup | None = None,
    tile_rows: int = TILE_ROWS,
) -> Float[Tensor, ""]:
    """The loss above, differentiable in `codes`.

    Every worker of `group` has all rows, walks its share of the tiles and the links of its rows, and gets the whole
    loss. Its gradients are those of its share; their sum over the workers is the gradient of one process.
    """
    group = group or ProcessGroup()

    def compute(with_gradient: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        c = codes.detach()
        gradient = torch.zeros_like(c) if with_gradient else None
        total = _all_pairs(c, gradient, group, tile_rows) + _linked(c, gradient, links, pos_weight)
        group.sum_(total)
        scale = 1 / c.shape[0] ** 2
        gradients = () if gradient is None else (gradient.mul_(2 * scale),)
        return (total * scale).to(c.dtype), gradients

    return with_gradients(compute, codes)


def _all_pairs(c: Float[Tensor, "N D"], gradient: Tensor | None, group: ProcessGroup, tile_rows: int) -> Tensor:
    """Sum of softplus(s) over this worker's tiles and their transposes; adds sigmoid(s) C to `gradient`."""
    total = torch.zeros((), dtype=torch.float64, device=c.device)
    buffers = TileBuffers(tile_rows, c)
    for tile in share_of_tiles(c.shape[0], tile_rows, group.rank, group.world):
        s = torch.mm(c[tile.rows], c[tile.cols].T, out=buffers.take("s", tile.shape))
        part = softplus(s, threshold=_STRAIGHT).sum(dtype=torch.float64)
        total += part if tile.diagonal else 2 * part
        if gradient is None:
            continue
        p = s.sigmoid_()
        gradient[tile.rows].addmm_(p, c[tile.cols])
        if not tile.diagonal:
            gradient[tile.cols].addmm_(p.T, c[tile.rows])
    return total


def _linked(c: Float[Tensor, "N D"], gradient: Tensor | None, links: Links, pos_weight: float) -> Tensor:
    """Sum of (w - 1) softplus(s) - w s over this worker's links; adds W C to `gradient`.

    A + I is symmetric, so that the links of a row have all of its gradient: nothing is added to the columns.
    """
    total = torch.zeros((), dtype=torch.float64, device=c.device)
    step = max(1, _CHUNK // c.shape[1])
    for at in range(0, links.source.shape[0], step):
        i, j = links.source[at : at + step], links.target[at : at + step]
        there = c[j]
        s = torch.linalg.vecdot(c[i], there)
        total += ((pos_weight - 1) * softplus(s, threshold=_STRAIGHT) - pos_weight * s).sum(dtype=torch.float64)
        if gradient is not None:
            weight = (pos_weight - 1) * s.sigmoid() - pos_weight
            gradient.index_add_(0, i, there.mul_(weight[:, None]))
    return total
