"""Pair weights over several updates against a dense matrix that keeps its history, and through a checkpoint."""

import pytest
import torch
from test_infonce import dense_weights, rows

from ops.losses.pair_weights import PairWeights, raise_to
from ops.losses.tiles import TileBuffers, upper_tiles

N, D, TILE = 23, 6, 16
WAYS = [("paper", "float"), ("paper", "uint16"), ("paper", "recompute"), ("stale", "float"), ("stale", "uint16")]
UPDATES = [(0, 0.9, 0.6), (1, -0.2, 0.4), (2, 1.3, 0.5)]  # (seed, alpha, share of trusted rows)


def inputs(seed, alpha, share, dtype=torch.float64):
    g = torch.Generator().manual_seed(100 + seed)
    labels = torch.randint(0, 3, (N,), generator=g)
    trusted = torch.rand(N, generator=g) < share
    return rows(N, D, dtype, 2 * seed), rows(N, D, dtype, 2 * seed + 1), alpha, labels, trusted


def served(weights, dtype=torch.float64):
    """The whole matrix, put together from what `tile` serves."""
    m, like = weights.n_rows, torch.empty(0, dtype=dtype)
    whole, buffers = torch.full((m, m), torch.nan, dtype=dtype), TileBuffers(weights.tile_rows, like)
    for tile in upper_tiles(m, weights.tile_rows):
        w = weights.tile(tile, buffers)
        whole[tile.rows, tile.cols] = w
        whole[tile.cols, tile.rows] = w.T
    return whole


def history(beta, mode, updates):
    """The dense reference: the paper resets pairs outside H x H to 1, the released code leaves them as they were."""
    w = torch.ones(2 * N, 2 * N, dtype=torch.float64)
    for z, e, alpha, labels, trusted in updates:
        new = dense_weights(z, e, alpha, labels, trusted, beta)
        inside = trusted.repeat(2)[:, None] & trusted.repeat(2)
        w = torch.where(inside, new, w if mode == "stale" else torch.ones_like(w))
    return w


@pytest.mark.parametrize(("mode", "storage"), WAYS)
@pytest.mark.parametrize("beta", [1, 2.5, 5])
def test_every_update_equals_the_dense_history(mode, storage, beta):
    weights = PairWeights(2 * N, beta, mode, storage, TILE)
    bar = 1e-4 if storage == "uint16" else 1e-12
    done = []
    for update in UPDATES:
        done.append(inputs(*update))
        weights.update(*done[-1])
        expected = history(beta, mode, done)
        assert torch.allclose(served(weights), expected, rtol=0, atol=bar)
        pairs = expected[torch.arange(N), torch.arange(N) + N]
        assert torch.allclose(weights.positive(rows(N, D, torch.float64, 0)), pairs, rtol=0, atol=bar)


@pytest.mark.parametrize("storage", ["float", "uint16", "recompute"])
@pytest.mark.parametrize("tile_rows", [5, 16, 64])
def test_the_share_of_hard_pairs(storage, tile_rows):
    z, e, alpha, labels, trusted = inputs(0, 0.7, 0.6)
    result = PairWeights(2 * N, 2, "paper", storage, tile_rows).update(z, e, alpha, labels, trusted)
    base = dense_weights(z, e, alpha, labels, trusted, 1)
    inside = trusted.repeat(2)[:, None] & trusted.repeat(2)
    assert result == pytest.approx(float((base[inside] > 0.5).double().mean()), abs=1e-15)
    assert 0 < result < 1


@pytest.mark.parametrize(("mode", "storage"), WAYS)
def test_nobody_trusted(mode, storage):
    weights = PairWeights(2 * N, 2, mode, storage, TILE)
    z, e, alpha, labels, _ = inputs(0, 0.7, 1)
    share = weights.update(z, e, alpha, labels, torch.zeros(N, dtype=torch.bool))
    assert share != share
    assert (served(weights) == 1).all()
    assert (weights.positive(z) == 1).all()


def test_rows_that_are_all_alike_do_not_divide_by_zero():
    z = torch.nn.functional.normalize(torch.ones(2 * N, D))
    weights = PairWeights(2 * N, 1, tile_rows=TILE)
    weights.update(z, z, 0.5, torch.arange(N) % 2, torch.ones(N, dtype=torch.bool))
    assert torch.isfinite(served(weights, torch.float32)).all()


@pytest.mark.parametrize(("mode", "storage"), WAYS)
def test_before_the_first_update(mode, storage):
    weights = PairWeights(2 * N, 2, mode, storage, TILE)
    like = torch.empty(0)
    assert all(weights.tile(t, TileBuffers(TILE, like)) is None for t in upper_tiles(2 * N, TILE))
    assert torch.equal(weights.positive(like), torch.ones(N))
    assert weights.tensors() == {}
    again = PairWeights(2 * N, 2, mode, storage, TILE)
    again.update(*inputs(0, 0.7, 0.6))
    again.load({})
    assert again.tile(next(upper_tiles(2 * N, TILE)), TileBuffers(TILE, like)) is None


@pytest.mark.parametrize(("mode", "storage"), WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_way_through_a_file_keeps_every_bit(mode, storage, dtype, tmp_path):
    from safetensors.torch import load_file, save_file

    first = PairWeights(2 * N, 2.5, mode, storage, TILE)
    for update in UPDATES[:2]:
        first.update(*inputs(*update, dtype=dtype))
    save_file(first.tensors(), tmp_path / "weights.safetensors")
    second = PairWeights(2 * N, 2.5, mode, storage, TILE)
    second.load(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(served(first, dtype), served(second, dtype))
    like = torch.empty(0, dtype=dtype)
    assert torch.equal(first.positive(like), second.positive(like))
    # and both go on alike
    shares = [w.update(*inputs(*UPDATES[2], dtype=dtype)) for w in (first, second)]
    assert shares[0] == shares[1]
    assert torch.equal(served(first, dtype), served(second, dtype))
    assert torch.equal(first.positive(like), second.positive(like))


@pytest.mark.parametrize(("mode", "storage"), WAYS)
def test_an_update_leaves_its_inputs_and_keeps_no_hold_on_them(mode, storage):
    """The rows belong to the caller, who writes the next epoch's into the same memory."""
    weights = PairWeights(2 * N, 2, mode, storage, TILE)
    z, e, alpha, labels, trusted = inputs(*UPDATES[0])
    before = z.clone(), e.clone()
    weights.update(z, e, alpha, labels, trusted)
    assert torch.equal(z, before[0])
    assert torch.equal(e, before[1])
    whole = served(weights)
    z.zero_()
    e.zero_()
    labels.zero_()
    trusted.zero_()
    assert torch.equal(served(weights), whole)


def test_stale_weights_cannot_be_recomputed():
    with pytest.raises(ValueError, match="stale weights cannot be recomputed"):
        PairWeights(10, 1, "stale", "recompute")


def test_an_odd_number_of_rows():
    with pytest.raises(ValueError, match="n_rows=11 must be even"):
        PairWeights(11, 1)


@pytest.mark.parametrize("beta", [0.5, 0.7, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 8, 8.5])
def test_powers(beta):
    base = torch.linspace(0, 1, 101, dtype=torch.float64)
    expected = base**beta
    assert torch.allclose(raise_to(base.clone(), beta), expected, rtol=1e-14, atol=0)
    in_place = base.clone()
    assert raise_to(in_place, beta).data_ptr() == in_place.data_ptr()
