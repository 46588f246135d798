"""Pair weights of HSAN by tiles: `w_ij = |Q_ij - norm(S_ij)|^beta` inside H x H, 1 elsewhere (Liu et al., eq. 7-9).

Q_ij is 1 where both rows have the same pseudo label. norm scales S to 0 .. 1 by the least and largest entry of the
whole S, diagonal included. H are the rows whose pseudo label is trusted. Hard pairs (same cluster but dissimilar, or
different clusters but similar) get large weights, easy pairs small ones. The weights are constants: no gradient passes
through them.

There are three ways to store them, each smaller and slower than the one before: `float` tiles (exact), `uint16` tiles,
and `recompute` (exact), which stores only what the weights were computed from. uint16 stores the base |Q - norm(S)| in
fixed point, at most 8e-6 from the true value, and raises it to beta when it is read. Fixed point of w itself would lose
the small weights, whose sum makes most of the gradient once all rows are trusted.

Axes: N nodes, M = 2N rows (view 1, then view 2), D width, K clusters, R x C one tile.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ops.clustering.lloyd import squared_distances
from ops.distributed.process_group import ProcessGroup
from ops.losses.tiles import TILE_ROWS, Tile, TileBuffers, share_of_tiles, similarity_tile

Storage = Literal["float", "uint16", "recompute"]
_UINT16_MAX = 65535.0
_HARD = 0.5  # a pair is hard where its scaled similarity is on the wrong side of one half


def raise_to(base: Float[Tensor, "*any"], beta: float) -> Float[Tensor, "*any"]:
    """`base ** beta` in place; for whole and half beta by products and one root, tens of times faster than pow."""
    if beta == 1:
        return base
    if 2 * beta == int(2 * beta) and 1 <= beta <= 8:
        factor = base.clone()
        if beta != int(beta):
            base.sqrt_().mul_(factor)
        for _ in range(int(beta) - 1):
            base.mul_(factor)
        return base
    return base.pow_(beta)


def trusted_rows(fused: Float[Tensor, "N D"], centres: Float[Tensor, "K D"], confidence: float) -> Bool[Tensor, "N"]:
    """H: the rows that are trusted, those with the most certain cluster.

    A row's value is the least softmax over its K squared distances; it is trusted where this is at or below the floor(N
    (1 - tau))-th largest.
    """
    value = squared_distances(fused, centres).softmax(1).min(1).values
    place = math.floor(len(value) * (1 - confidence))
    return value <= value.sort(descending=True).values[max(place - 1, 0)]


def _one(storage: Storage) -> int:
    return int(_UINT16_MAX) if storage == "uint16" else 1


class PairWeights:
    """The weights of the last update, read tile by tile.

    `mode="paper"`: an update sets every pair outside H x H to 1. `mode="stale"` (the released code): it overwrites the
    pairs inside H x H and leaves the others as they were; these cannot be recomputed, so that `recompute` is refused.
    Each worker of `group` stores and reads the tiles of its `share`. What an update needs of all pairs (least and
    largest similarity, counts) is reduced over the workers.
    """

    def __init__(
        self,
        n_rows: int,
        beta: float,
        mode: Literal["paper", "stale"] = "paper",
        storage: Storage = "float",
        tile_rows: int = TILE_ROWS,
        group: ProcessGroup | None = None,
    ) -> None:
        if mode == "stale" and storage == "recompute":
            raise ValueError("stale weights cannot be recomputed from one snapshot: keep them (float or uint16)")
        if n_rows % 2:
            raise ValueError(f"n_rows={n_rows} must be even: two views of every node")
        self.n_rows, self.beta, self.mode, self.storage, self.tile_rows = n_rows, beta, mode, storage, tile_rows
        self.group = group or ProcessGroup()
        self.share = share_of_tiles(n_rows, tile_rows, self.group.rank, self.group.world)
        self.updated = False
        self._tiles: dict[int, Tensor] = {}
        self._snapshot: dict[str, Tensor] = {}
        self._positive: Tensor | None = None

    def tile(self, tile: Tile, buffers: TileBuffers) -> Float[Tensor, "R C"] | None:
        """The weights of one tile, or None while all are 1 (before the first update). Callers only read them."""
        if not self.updated:
            return None
        if self.storage == "recompute":
            base, inside = self._base(tile, self._similarity(tile, buffers), buffers)
            return raise_to(base, self.beta).masked_fill_(~inside, 1.0)
        kept = self._tiles[tile.index]
        if self.storage == "float":
            return kept
        return raise_to(buffers.take("weights", tile.shape).copy_(kept).mul_(1 / _UINT16_MAX), self.beta)

    def positive(self, like: Tensor) -> Float[Tensor, "N"]:
        """`w_ii'`, the weight of the pair of both views of each node."""
        if self._positive is None:
            return torch.ones(self.n_rows // 2, dtype=like.dtype, device=like.device)
        return self._positive

    @torch.no_grad()
    def update(
        self,
        z: Float[Tensor, "M D"],
        e: Float[Tensor, "M D"],
        alpha: float | Float[Tensor, ""],
        labels: Int64[Tensor, "N"],
        trusted: Bool[Tensor, "N"],
    ) -> Float64[Tensor, ""]:
        """Compute the weights from rows that were encoded again; returns the share of hard pairs among those in H x H.

        A pair is hard where |Q - norm(S)| > 0.5: its similarity contradicts its pseudo labels. NaN if H is empty.
        """
        buffers = TileBuffers(self.tile_rows, z)
        in_place = self.storage == "float" and self.mode == "paper"  # S is computed in the memory of the weights
        if not self._tiles and self.storage != "recompute":
            self._tiles = self._all_ones(z)
        alpha = torch.as_tensor(alpha, dtype=torch.float64, device=z.device)
        low, high = self._range(z, e, alpha, buffers, in_place)
        self._snapshot = {
            "z": z, "e": e, "labels": labels.repeat(2), "trusted": trusted.repeat(2),
            "scalars": torch.stack([alpha, low, high]),
        }  # fmt: skip
        counts = torch.zeros(2, dtype=torch.int64, device=z.device)  # pairs in H x H, and the hard ones among them
        for tile in self.share:
            s = self._tiles[tile.index] if in_place else self._similarity(tile, buffers)
            base, inside = self._base(tile, s, buffers)
            times = 1 if tile.diagonal else 2
            counts += times * torch.stack([inside.sum(), ((base > _HARD) & inside).sum()])
            if self.storage != "recompute":
                self._keep(tile, base, inside)
        self._update_positive(z, e)
        self.updated = True
        self._snapshot = self._snapshot | {"z": z.clone(), "e": e.clone()} if self.storage == "recompute" else {}
        total = self.group.sum_(counts).double()
        return total[1] / total[0]

    def tensors(self) -> dict[str, Tensor]:
        """All that `load` needs to give the same weights to the bit; of the tiles, those of this worker's share."""
        if not self.updated:
            return {}
        assert self._positive is not None
        tiles = {f"tile.{i}": t for i, t in self._tiles.items()}
        return {"positive": self._positive} | tiles | {f"snapshot.{k}": v for k, v in self._snapshot.items()}

    def load(self, tensors: dict[str, Tensor], device: torch.device | str = "cpu") -> None:
        """The inverse of `tensors`, also for those of all workers; an empty dict is the state before the first update.

        The tensors are taken over, not copied (the next update writes into them): a copy would double the memory of the
        pairs.
        """
        tensors = {k: v.to(device) for k, v in tensors.items()}
        self.updated = bool(tensors)
        self._positive = tensors.get("positive")
        kept = any(k.startswith("tile.") for k in tensors)
        self._tiles = {t.index: tensors[f"tile.{t.index}"] for t in self.share} if kept else {}
        self._snapshot = {k.removeprefix("snapshot."): v for k, v in tensors.items() if k.startswith("snapshot.")}

    def _all_ones(self, like: Tensor) -> dict[int, Tensor]:
        dtype, one = like.dtype if self.storage == "float" else torch.uint16, _one(self.storage)
        return {t.index: torch.full(t.shape, one, dtype=dtype, device=like.device) for t in self.share}

    def _range(
        self, z: Tensor, e: Tensor, alpha: Tensor, buffers: TileBuffers, in_place: bool
    ) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
        """The least and largest entry of S over all workers' tiles; `in_place` leaves S in the tiles that are kept."""
        ends = torch.full((2,), -math.inf, dtype=torch.float64, device=z.device)
        for tile in self.share:
            out = self._tiles[tile.index] if in_place else buffers.take("s", tile.shape)
            s = similarity_tile(tile, z, e, (alpha, 1 - alpha), out)
            torch.maximum(ends, torch.stack([-s.min(), s.max()]), out=ends)
        self.group.maximum_(ends)
        return -ends[0], ends[1]

    def _similarity(self, tile: Tile, buffers: TileBuffers) -> Float[Tensor, "R C"]:
        alpha = self._snapshot["scalars"][0]
        z, e = self._snapshot["z"], self._snapshot["e"]
        return similarity_tile(tile, z, e, (alpha, 1 - alpha), buffers.take("weights", tile.shape))

    def _scale(self, s: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        low, high = self._snapshot["scalars"][1:]
        return s.sub_(low).mul_(torch.where(high > low, 1 / (high - low), 0.0))

    def _base(
        self, tile: Tile, s: Float[Tensor, "R C"], buffers: TileBuffers
    ) -> tuple[Float[Tensor, "R C"], Bool[Tensor, "R C"]]:
        """Turn S into |Q - norm(S)| in place; returns it with the mask of the pairs in H x H."""
        labels, trusted = self._snapshot["labels"], self._snapshot["trusted"]
        inside = trusted[tile.rows, None] & trusted[None, tile.cols]
        same = buffers.take("rest", tile.shape).copy_(labels[tile.rows, None] == labels[None, tile.cols])
        return self._scale(s).sub_(same).abs_(), inside

    def _keep(self, tile: Tile, base: Float[Tensor, "R C"], inside: Bool[Tensor, "R C"]) -> None:
        kept = self._tiles[tile.index]
        new = raise_to(base, self.beta) if self.storage == "float" else base.mul_(_UINT16_MAX).round_()
        outside = kept.to(new.dtype) if self.mode == "stale" else new.new_full((), _one(self.storage))
        kept.copy_(torch.where(inside, new, outside))

    def _update_positive(self, z: Float[Tensor, "M D"], e: Float[Tensor, "M D"]) -> None:
        n = self.n_rows // 2
        alpha = self._snapshot["scalars"][0]
        trusted = self._snapshot["trusted"][:n]
        s = alpha * (z[:n] * z[n:]).sum(1) + (1 - alpha) * (e[:n] * e[n:]).sum(1)
        base = self._scale(s).sub_(1.0).abs_()  # Q_ii' = 1: the two views of a node share its pseudo label
        if self.storage == "uint16":
            base = base.mul_(_UINT16_MAX).round_().mul_(1 / _UINT16_MAX)
        w = raise_to(base, self.beta)
        old = self.positive(z) if self.mode == "stale" else torch.ones_like(w)
        self._positive = torch.where(trusted, w, old)
