"""The pass over rows that k-means and the SOM share: sums without rounding, and the same bits for any workers."""

from fractions import Fraction
from itertools import product

import lloyd_workers
import numpy as np
import pytest
import torch
from gloo import run_in_processes
from hypothesis import given
from hypothesis import strategies as st

from ops.clustering import lloyd as module
from ops.clustering import shards
from ops.clustering.lloyd import assign, assign_starts, farthest, nearest_two, prepare, rows_at, step
from ops.clustering.shards import Shard
from ops.distributed.process_group import ProcessGroup
from ops.errors import DataError

WHAT = ("pass", "kmeans", "starts", "released", "spherical", "empty", "som")
CALLS = [*product(("blocks", "parts"), WHAT), *product(("one has all",), ("empty", "som"))]


def alone(z):
    return Shard.even(len(z), ProcessGroup())


def points_of(z, **more):
    return prepare(z, alone(z), ProcessGroup(), **more)


@pytest.mark.slow
def test_three_workers_give_the_same_bits_as_one():
    one = lloyd_workers.many(0, 1, CALLS)
    several = run_in_processes(3, lloyd_workers.many, CALLS)
    for i, call in enumerate(CALLS):
        _, each, alike = one[i]
        for numbers, local, same in (worker[i] for worker in several):
            for whole, part in zip(each, local, strict=True):
                assert np.array_equal(whole[numbers], part), call
            for a, b in zip(alike, same, strict=True):
                assert np.array_equal(a, b), call
        assert sorted(np.concatenate([w[i][0] for w in several])) == list(range(lloyd_workers.TOTAL))


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 9))
def test_a_pass_by_hand(n, k, d, seed):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 10.0 ** (seed - 4)
    points = points_of(z)
    centres = points.read(slice(None))[torch.arange(k) % n] * 1.1
    result = assign(points, centres)
    distance = (points.read(slice(None)).double()[:, None] - centres.double()).square().sum(2)
    chosen = distance.gather(1, result.labels[:, None])[:, 0]
    assert torch.allclose(chosen, distance.min(1).values, rtol=1e-4, atol=1e-5 * float(distance.max()))
    for c in range(k):
        local = points.read(slice(None)).double()[result.labels == c]
        assert int(result.counts[c]) == len(local)
        exact = [sum((Fraction(v) for v in column.tolist()), Fraction(0)) for column in local.T]
        assert [Fraction(v) for v in result.sums[c].tolist()] == exact  # to the last bit
    assert result.inertia == pytest.approx(float(chosen.sum()), rel=1e-3, abs=1e-5 * float(distance.max()))


@pytest.mark.parametrize("scale", [1e-38, 1e-3, 1.0, 1e30])
def test_the_grid_keeps_the_rows(scale):
    z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * scale
    points = points_of(z, spherical=False)
    assert torch.allclose((points.read(slice(None)) + points.shift), z, rtol=1e-5, atol=1e-7 * scale)
    assert points.shift[0].tolist() == pytest.approx(z.double().mean(0).tolist(), rel=1e-5)
    if scale == 1.0:
        assert points.variance == pytest.approx(float(z.double().var(0, correction=0).mean()), rel=1e-5)


def test_unit_rows_have_length_one_and_no_shift():
    z = torch.randn(50, 3) * 7
    points = points_of(z, spherical=True)
    assert torch.allclose(points.norms, torch.ones(50), atol=1e-6)
    assert points.shift.tolist() == [[0.0] * 3]
    assert points.variance == pytest.approx(float(points.read(slice(None)).var(0, correction=0).mean()), rel=1e-5)


def test_the_input_is_left_alone_and_needs_no_gradient():
    for dtype in (torch.float32, torch.float64):
        z = torch.randn(30, 4, dtype=dtype, requires_grad=True)
        before = z.detach().clone()
        points = points_of(z)
        assign(points, points.read(slice(None))[:3])
        assert torch.equal(z.detach(), before)
        assert not points.read(slice(None)).requires_grad


def test_small_chunks_change_nothing(monkeypatch):
    z = torch.randn(300, 5)
    points = points_of(z)
    whole = assign(points, points.read(slice(None))[:7])
    two = nearest_two(points.read(slice(None)), points.read(slice(None))[:7])
    monkeypatch.setattr(module, "CHUNK_VALUES", 70)
    monkeypatch.setattr(shards, "BLOCK_ROWS", 64)
    pieces = assign(points, points.read(slice(None))[:7])
    assert torch.equal(whole.labels, pieces.labels)
    assert torch.equal(whole.sums, pieces.sums)
    assert torch.equal(two[0], nearest_two(points.read(slice(None)), points.read(slice(None))[:7])[0])


@given(st.integers(1, 40_000), st.integers(1, 5))
def test_shares_cover_all_rows_in_whole_blocks(total, world):
    shares = [Shard.even(total, ProcessGroup(rank, world)) for rank in range(world)]
    assert np.concatenate([s.numbers() for s in shares]).tolist() == list(range(total))
    assert all(first % shards.BLOCK_ROWS == 0 or count == 0 for s in shares for first, count in s.pieces)


def test_blocks_begin_at_pieces_and_at_global_multiples(monkeypatch):
    monkeypatch.setattr(shards, "BLOCK_ROWS", 10)
    rows = Shard.of_parts((0, 4, 27, 31), (0, 1))
    assert [(b.start, b.stop) for b in rows.blocks()] == [(0, 4), (4, 10), (10, 20), (20, 27)]
    apart = Shard.of_parts((0, 4, 27, 31), (0, 2))
    assert [(b.start, b.stop) for b in apart.blocks()] == [(0, 4), (4, 7), (7, 8)]  # rows 27-29 and 30
    assert apart.positions(np.array([2, 5, 28])).tolist() == [2, -1, 5]
    assert apart.count == 8


def test_farthest_rows_are_taken_in_order_and_ties_by_number():
    z = torch.tensor([[0.0], [1.0], [2.0], [2.0], [3.0]])
    points = points_of(z)
    nearest = torch.tensor([0.0, 4.0, 9.0, 9.0, 1.0])
    assert torch.equal(farthest(points, nearest, 3), points.read(slice(None))[[2, 3, 1]])
    assert torch.equal(rows_at(points, np.array([4, 0])), points.read(slice(None))[[4, 0]])


def test_an_empty_centre_takes_the_farthest_row():
    z = torch.tensor([[0.0], [1.0], [2.0], [9.0], [30.0]])
    points = points_of(z)
    centres = torch.tensor([[1.0], [500.0], [600.0]]) - points.shift
    result = assign(points, centres)
    assert (step(points, result, centres) + points.shift).flatten().tolist() == pytest.approx([8.4, 30.0, 9.0])


def test_no_row_is_away_from_its_centre():
    points = points_of(torch.ones(4, 2))
    centres = points.read(slice(None))[:3]
    assert torch.equal(step(points, assign(points, centres), centres), centres)


def test_confidence_is_the_simplified_silhouette():
    z, centres = torch.randn(80, 3), torch.randn(5, 3)
    distance = torch.cdist(z, centres)
    two = distance.sort(1).values
    labels, sure = nearest_two(z, centres)
    assert torch.equal(labels, distance.argmin(1))
    assert torch.allclose(sure, 1 - two[:, 0] / two[:, 1], atol=1e-4)
    joined, sure = nearest_two(z, centres, torch.tensor([0, 1, 0, 1, 1]))
    a, b = distance[:, [0, 2]].min(1).values, distance[:, [1, 3, 4]].min(1).values
    assert torch.equal(joined, (b < a).long())
    assert torch.allclose(sure, 1 - torch.minimum(a, b) / torch.maximum(a, b), atol=1e-4)


def test_confidence_at_its_ends():
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    labels, sure = nearest_two(z, z[[0, 2]])
    assert (labels.tolist(), sure.tolist()) == ([0, 0, 1], [1.0, 0.0, 1.0])
    assert nearest_two(z, z[:1])[1].tolist() == [1.0] * 3
    assert nearest_two(z, z[[0, 0]])[1].tolist() == [0.0] * 3  # two clusters at one place
    assert nearest_two(z[:0], z)[0].shape == (0,)


def test_sums_by_products_and_by_rows_are_the_same_bits(monkeypatch):
    points, centres = points_of(torch.randn(700, 300)), torch.randn(4, 16, 300)
    by_products = assign_starts(points, centres)
    monkeypatch.setattr(module, "PRODUCT_CLUSTERS", 0)
    for products, rows in zip(by_products, assign_starts(points, centres), strict=True):
        assert torch.equal(products.sums, rows.sums)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    z = torch.ones(5, 2)
    z[3, 1] = bad
    with pytest.raises(DataError, match="not finite"):
        points_of(z)


def test_rows_have_to_match_their_pieces():
    with pytest.raises(ValueError, match="4 rows given, but the pieces hold 5"):
        prepare(torch.ones(4, 2), Shard(9, ((0, 5),)), ProcessGroup())
    with pytest.raises(ValueError, match="0 rows in all"):
        prepare(torch.ones(0, 2), Shard(0, ()), ProcessGroup())
