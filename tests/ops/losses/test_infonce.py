"""The tiled loss against a ten-line dense reference: value and gradients, in every way of holding the weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ops.losses.infonce import hard_infonce
from ops.losses.pair_weights import PairWeights


def dense_weights(z, e, alpha, labels, trusted, beta):
    s = alpha * z @ z.T + (1 - alpha) * e @ e.T
    labels, trusted = labels.repeat(2), trusted.repeat(2)
    w = ((labels[:, None] == labels).to(z.dtype) - (s - s.min()) / (s.max() - s.min())).abs() ** beta
    return torch.where(trusted[:, None] & trusted, w, torch.ones_like(w))


def dense_loss(z, e, alpha, w, temperature):
    m = len(z)
    logits = w * (alpha * z @ z.T + (1 - alpha) * e @ e.T) / temperature
    positive = logits[torch.arange(m), (torch.arange(m) + m // 2) % m]
    others = logits.masked_fill(torch.eye(m, dtype=torch.bool), -torch.inf)
    return (others.logsumexp(1) - positive).mean()


def rows(n, d, dtype, seed):
    g = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(2 * n, d, dtype=dtype, generator=g))


def case(n, d, dtype, trusted, seed=0):
    g = torch.Generator().manual_seed(seed + 99)
    labels = torch.randint(0, 3, (n,), generator=g)
    mask = {"empty": torch.zeros(n), "full": torch.ones(n), "some": torch.rand(n, generator=g) < 0.6}[trusted]
    return rows(n, d, dtype, seed), rows(n, d, dtype, seed + 1), labels, mask.bool()


def with_gradients(loss, z, e, alpha):
    z, e = z.clone().requires_grad_(), e.clone().requires_grad_()
    a = torch.tensor(alpha, dtype=z.dtype, requires_grad=True)
    value = loss(z, e, a)
    (3 * value).backward()  # a factor: the backward pass must respect what stands behind it
    return [value.detach(), z.grad, e.grad, a.grad]


def relative(ours, theirs):
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(ours, theirs, strict=True))


def compare(n, d, dtype, trusted, alpha, beta, temperature, storage, tile_rows, cache=1 << 30):
    z, e, labels, mask = case(n, d, dtype, trusted)
    weights = PairWeights(2 * n, beta, storage=storage, tile_rows=tile_rows)
    # the weights come from other rows than the loss: an update is older than the step it serves
    weights.update(rows(n, d, dtype, 7), rows(n, d, dtype, 8), 0.8, labels, mask)
    w = dense_weights(rows(n, d, dtype, 7), rows(n, d, dtype, 8), 0.8, labels, mask, beta)
    ours = with_gradients(lambda *x: hard_infonce(*x, weights, temperature, cache), z, e, alpha)
    return relative(ours, with_gradients(lambda *x: dense_loss(*x, w, temperature), z, e, alpha))


@pytest.mark.parametrize("trusted", ["empty", "some", "full"])
@pytest.mark.parametrize("storage", ["float", "recompute"])
@pytest.mark.parametrize("beta", [1, 2, 3, 4, 5, 2.5])
def test_float64_equals_dense(trusted, storage, beta):
    assert compare(37, 8, torch.float64, trusted, 0.7, beta, 0.5, storage, 16) < 1e-12


@pytest.mark.parametrize(("trusted", "bar"), [("empty", 1e-12), ("some", 1e-5), ("full", 5e-5)])
@pytest.mark.parametrize("beta", [1, 2, 3, 4, 5, 2.5])
def test_uint16_tiles(trusted, bar, beta):
    """16 bits hold 5 digits of a weight: where all pairs are light (H full), their sum has a little less."""
    assert compare(37, 8, torch.float64, trusted, 0.7, beta, 0.5, "uint16", 16) < bar


@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.0])
def test_float32_equals_dense_in_float64(temperature):
    z, e, labels, mask = case(150, 32, torch.float64, "some")
    w = dense_weights(z, e, 0.9, labels, mask, 2)
    theirs = with_gradients(lambda *x: dense_loss(*x, w, temperature), z, e, 0.9)
    weights = PairWeights(300, 2, tile_rows=64)
    weights.update(z.float(), e.float(), 0.9, labels, mask)
    ours = with_gradients(lambda *x: hard_infonce(*x, weights, temperature, 0), z.float(), e.float(), 0.9)
    assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("cache", [0, 20_000, 1 << 30])
def test_the_cache_changes_nothing(cache):
    assert compare(37, 8, torch.float64, "some", 0.7, 2, 0.5, "float", 16, cache) < 1e-12


def test_before_the_first_update_all_weights_are_one():
    z, e, _, _ = case(20, 4, torch.float64, "full")
    ours = with_gradients(lambda *x: hard_infonce(*x, PairWeights(40, 1, tile_rows=16), 1.0, 1 << 20), z, e, 0.9)
    theirs = with_gradients(lambda *x: dense_loss(*x, torch.ones(40, 40), 1.0), z, e, 0.9)
    assert relative(ours, theirs) < 1e-12


def test_exponents_beyond_float32_switch_to_float64():
    z, e, _, _ = case(20, 4, torch.float32, "full")
    weights = PairWeights(40, 1, tile_rows=16)
    ours = with_gradients(lambda *x: hard_infonce(*x, weights, 0.005, 1 << 20), z, e, 0.9)
    theirs = with_gradients(lambda *x: dense_loss(*x, torch.ones(40, 40), 0.005), z.double(), e.double(), 0.9)
    assert relative(ours, theirs) < 1e-4  # S / T itself carries float32's rounding times 200
    with pytest.raises(OverflowError, match="exceeds 600"):
        hard_infonce(z, e, torch.tensor(0.9), weights, 0.001)


@given(
    n=st.integers(3, 40), d=st.integers(2, 9), alpha=st.floats(-1, 2), beta=st.floats(1, 6),
    temperature=st.floats(0.1, 2), tile_rows=st.integers(1, 90), storage=st.sampled_from(["float", "recompute"]),
)  # fmt: skip
def test_any_shape_equals_dense(n, d, alpha, beta, temperature, tile_rows, storage):
    assert compare(n, d, torch.float64, "some", alpha, beta, temperature, storage, tile_rows) < 1e-11
