"""The hard-sample-aware contrastive loss of HSAN, exact, by symmetric tiles, with a hand-written backward pass.

`L = -(1/M) sum_i log( exp(w_ii' S_ii' / T) / sum_{j != i} exp(w_ij S_ij / T) )`,  `S = alpha Z Z^T + (1-alpha) E E^T`
(Liu et al., AAAI 2023, eq. 5 and 10; i' = i +- N is the other view of row i; the paper has T = 1).

With e_ij = exp(w_ij S_ij / T) and r_i = sum_{j != i} e_ij:  `L = mean_i( log r_i - w_ii' S_ii' / T )` and
`G_ij = w_ij e_ij (1/r_i + 1/r_j) / (M T)`, `G_ii = 0`, minus `2 w_ii' / (M T)` at (i, i');
`dZ = alpha G Z`, `dE = (1 - alpha) G E`, `dalpha = 1/2 (<G Z, Z> - <G E, E>)`.

Pass 1 sums r over the tiles and keeps w_ij e_ij of as many tiles as the budget holds; pass 2 forms G tile by tile
(recomputing what was not kept). No M x M array exists. Operations: 2 M^2 D in
pass 1, 4 in pass 2, up to 2 more for recomputed tiles (the dense similarity alone is 4, a dense training step 12).

Axes: N nodes, M = 2N rows (view 1, then view 2), D width, R x C one tile.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ops.losses.pair_weights import PairWeights
from ops.losses.precomputed_grad import with_gradients
from ops.losses.tiles import Tile, TileBuffers, similarity_tile

# |w S / T| <= (|alpha| + |1 - alpha|) / T since rows are unit length and 0 <= w <= 1. Up to this bound no exponential
# and no sum of 1e8 of them overflows or underflows float32, so no running maximum is needed; beyond it, float64.
_FLOAT32_BOUND = 60.0
_FLOAT64_BOUND = 600.0


def hard_infonce(
    z: Float[Tensor, "M D"],
    e: Float[Tensor, "M D"],
    alpha: Float[Tensor, ""],
    weights: PairWeights,
    temperature: float,
    cache_bytes: int = 0,
    host_alpha: float | None = None,
) -> Float[Tensor, ""]:
    """The loss above, differentiable in z, e and alpha.

    Rows of `z` and `e` must have unit length, which bounds the exponents. `cache_bytes` is how much memory the kept
    tiles may take; 0 recomputes all tiles. `host_alpha` is alpha as the host read it last, from which the precision of
    the exponentials is chosen; None reads it, for which the host waits. Raises OverflowError if (|alpha| + |1 - alpha|)
    / T > 600, where even float64 exponentials overflow: the run has diverged.

    Every worker of `weights.group` has all rows, walks its share of the tiles and gets the whole loss. Its gradients
    are those of its tiles; their sum over the workers is the gradient of one process.
    """

    def compute(with_gradient: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        kept = cache_bytes if with_gradient else 0
        bound = _bound(float(alpha.detach()) if host_alpha is None else host_alpha, temperature)
        walk = _Walk(z.detach(), e.detach(), alpha.detach().double(), weights, temperature, kept, bound)
        loss, totals = walk.row_totals()
        return loss, walk.gradients(totals) if with_gradient else ()

    return with_gradients(compute, z, e, alpha)


def _bound(alpha: float, temperature: float) -> float:
    """The largest exponent that is possible."""
    bound = (abs(alpha) + abs(1 - alpha)) / temperature
    if not bound <= _FLOAT64_BOUND:
        raise OverflowError(f"(|alpha| + |1 - alpha|) / temperature = {bound:.3g} exceeds {_FLOAT64_BOUND:g}")
    return bound


class _Walk:
    """One evaluation of the loss: the tiles, their scratch buffers and the tiles that are kept."""

    def __init__(
        self, z: Tensor, e: Tensor, alpha: Float[Tensor, ""], weights: PairWeights, temperature: float,
        cache_bytes: int, bound: float,
    ) -> None:  # fmt: skip
        self.z, self.e, self.alpha, self.weights, self.temperature = z, e, alpha, weights, temperature
        self.wide = z.dtype == torch.float64 or bound > _FLOAT32_BOUND
        self.buffers = TileBuffers(weights.tile_rows, z)
        self.group, self.tiles = weights.group, weights.share
        self.kept: dict[int, Tensor] = {}
        self.room = cache_bytes

    def pressure(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """(e, w e) of one tile; e is zero on the diagonal of S."""
        scales = (self.alpha / self.temperature, (1 - self.alpha) / self.temperature)
        s = similarity_tile(tile, self.z, self.e, scales, self.buffers.take("s", tile.shape))
        w = self.weights.tile(tile, self.buffers)
        exponent = s if w is None else s.mul_(w)
        p = exponent.double().exp_() if self.wide else exponent.exp_()
        if tile.diagonal:
            p.fill_diagonal_(0.0)
        return p, p if w is None else p * w

    def row_totals(self) -> tuple[Tensor, Tensor]:
        """(loss, r [M] float64); a tile adds to the r_i of its rows and, by symmetry, of its columns."""
        totals = torch.zeros(self.z.shape[0], dtype=torch.float64, device=self.z.device)
        for tile in self.tiles:
            p, u = self.pressure(tile)
            totals[tile.rows] += p.sum(1)
            if not tile.diagonal:
                totals[tile.cols] += p.sum(0)
            size = u.numel() * u.element_size()
            if size <= self.room:
                self.room -= size
                self.kept[tile.index] = u.clone() if u is p else u
        self.group.sum_(totals)
        n = self.z.shape[0] // 2
        z, e = self.z, self.e
        positive = self.alpha * (z[:n] * z[n:]).sum(1) + (1 - self.alpha) * (e[:n] * e[n:]).sum(1)
        mean = totals.log().mean() - (self.weights.positive(z) * positive / self.temperature).double().mean()
        return mean.to(z.dtype), totals

    def gradients(self, totals: Float[Tensor, "M"]) -> tuple[Tensor, Tensor, Tensor]:
        """(dZ [M, D], dE [M, D], dalpha) of this worker's tiles from the row totals."""
        z, e = self.z, self.e
        m, n = z.shape[0], z.shape[0] // 2
        gz, ge = torch.zeros_like(z), torch.zeros_like(e)
        share = (1.0 / (totals * (m * self.temperature))).to(torch.float64 if self.wide else z.dtype)
        for tile in self.tiles:
            u = self.kept.pop(tile.index, None)
            u = self.pressure(tile)[1] if u is None else u
            factor = torch.add(share[tile.rows, None], share[None, tile.cols], out=self._factor(tile))
            g = u.mul_(factor).to(z.dtype)
            for total, x in ((gz, z), (ge, e)):
                total[tile.rows].addmm_(g, x[tile.cols])
                if not tile.diagonal:
                    total[tile.cols].addmm_(g.T, x[tile.rows])
        first = self.group.shard(n)  # the positive pairs are shared out like the nodes
        second = slice(first.start + n, first.stop + n)
        pull = (self.weights.positive(z)[first] * (-2 / (m * self.temperature)))[:, None]
        for total, x in ((gz, z), (ge, e)):
            total[first].addcmul_(pull, x[second])
            total[second].addcmul_(pull, x[first])
        dalpha = ((gz * z).sum(dtype=torch.float64) - (ge * e).sum(dtype=torch.float64)) / 2
        return gz.mul_(self.alpha), ge.mul_(1 - self.alpha), dalpha.to(z.dtype)

    def _factor(self, tile: Tile) -> Tensor:
        if self.wide:
            return torch.empty(tile.shape, dtype=torch.float64, device=self.z.device)
        return self.buffers.take("rest", tile.shape)
