"""The layer against torch_geometric's HGTConv and by its own rules: own neighbours only, every relation its own."""

import warnings

import pytest
import torch

from trainers.hgt.layer import dropout, hgt_layer, layer_weights

U, N = "user", "note"
RELATIONS = [  # neither alphabetical nor grouped by type
    (U, "share", N), (N, "rev_follow", U), (U, "follow", N), (N, "rev_share", U), (U, "knows", U),
]  # fmt: skip
SIZES = {U: 9, N: 7}
TARGETS = {U: 5, N: 4}
PREFIX = "layer1."


def drawn(seed=0, fanout=3, width=8, relations=RELATIONS):
    """States and blocks with holes, a target without any neighbour and (fan-out 3 of 7 nodes) duplicates."""
    g = torch.Generator().manual_seed(seed)
    h = {kind: torch.randn(n, width, generator=g) for kind, n in SIZES.items()}
    blocks = {}
    for source, name, target in relations:
        shape = (TARGETS[target], fanout)
        neighbours = torch.randint(SIZES[source], shape, generator=g)
        mask = torch.rand(shape, generator=g) < 0.7
        neighbours[0, 1], mask[0, :2] = neighbours[0, 0], True  # a multi-edge
        mask[TARGETS[target] - 1] = False
        blocks[source, name, target] = (neighbours, mask)
    return h, blocks


def weights_of(width=8, out=8, heads=2, seed=0, relations=RELATIONS):
    example = layer_weights(PREFIX, [U, N], relations, (width, out), heads, seed)
    g = torch.Generator().manual_seed(9)
    for name in example:  # away from the start of ones, which would hide a mistaken prior or skip
        if "prior" in name or "skip" in name:
            example[name] = torch.rand(example[name].shape, generator=g) + 0.5
    return {name: value.requires_grad_() for name, value in example.items()}


def hgt_conv(weights, width, out, heads):
    """HGTConv with our weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import HGTConv
    conv = HGTConv({U: width, N: width}, out, ([U, N], RELATIONS), heads=heads)
    w = {name.removeprefix(PREFIX): value.detach() for name, value in weights.items()}
    with torch.no_grad():
        for kind in (U, N):
            kqv = [w[f"{role}.{kind}.weight"].T for role in ("key", "query", "value")]
            conv.kqv_lin.lins[kind].weight.copy_(torch.cat(kqv))
            conv.kqv_lin.lins[kind].bias.copy_(torch.cat([w[f"{r}.{kind}.bias"] for r in ("key", "query", "value")]))
            conv.out_lin.lins[kind].weight.copy_(w[f"out.{kind}.weight"].T)
            conv.out_lin.lins[kind].bias.copy_(w[f"out.{kind}.bias"])
            conv.skip[kind].copy_(w[f"skip.{kind}"])
        for place, relation in enumerate(RELATIONS):
            name = "__".join(relation)
            for head in range(heads):
                at = head * len(RELATIONS) + place
                conv.k_rel.weight[at] = w[f"attention.{name}"][head]
                conv.v_rel.weight[at] = w[f"message.{name}"][head]
            conv.p_rel[name].copy_(w[f"prior.{name}"][None])
    return conv


def edges_of(blocks):
    """The blocks' edges in the metadata's order, without which HGTConv is silently wrong."""
    edges = {}
    for relation in RELATIONS:
        neighbours, mask = blocks[relation]
        row, slot = mask.nonzero(as_tuple=True)
        edges[relation] = torch.stack([neighbours[row, slot], row])
    return edges


def by_conv(conv, h, blocks):
    """The targets' rows of HGTConv."""
    return {kind: x[: TARGETS[kind]] for kind, x in conv(h, edges_of(blocks)).items()}


@pytest.mark.parametrize(("width", "out", "heads"), [(8, 8, 2), (6, 12, 3), (8, 8, 1)])
def test_equals_hgtconv_in_value_and_gradient(width, out, heads):
    h, blocks = drawn(width=width)
    weights = weights_of(width, out, heads)
    conv = hgt_conv(weights, width, out, heads)
    ours, theirs = ({kind: x.clone().requires_grad_() for kind, x in h.items()} for _ in range(2))
    got, expected = hgt_layer(weights, PREFIX, ours, blocks, TARGETS), by_conv(conv, theirs, blocks)
    g = torch.Generator().manual_seed(3)
    pull = {kind: torch.randn(x.shape, generator=g) for kind, x in expected.items()}
    for kind, x in expected.items():
        torch.testing.assert_close(got[kind], x, rtol=0, atol=1e-5)
    sum((got[kind] * pull[kind]).sum() for kind in pull).backward()
    sum((expected[kind] * pull[kind]).sum() for kind in pull).backward()
    for kind in h:
        torch.testing.assert_close(ours[kind].grad, theirs[kind].grad, rtol=1e-4, atol=1e-5)
        kqv = [weights[f"{PREFIX}{role}.{kind}.weight"].grad.T for role in ("key", "query", "value")]
        torch.testing.assert_close(torch.cat(kqv), conv.kqv_lin.lins[kind].weight.grad, rtol=1e-4, atol=1e-5)
        if width == out:
            skip = weights[f"{PREFIX}skip.{kind}"].grad
            torch.testing.assert_close(skip[None], conv.skip[kind].grad, rtol=1e-4, atol=1e-5)
    for place, relation in enumerate(RELATIONS):
        name = "__".join(relation)
        for ours_name, theirs_weight in (("attention", conv.k_rel.weight), ("message", conv.v_rel.weight)):
            rows = theirs_weight.grad[place :: len(RELATIONS)]
            torch.testing.assert_close(weights[f"{PREFIX}{ours_name}.{name}"].grad, rows, rtol=1e-4, atol=1e-5)
        prior = weights[f"{PREFIX}prior.{name}"].grad
        torch.testing.assert_close(prior[None], conv.p_rel[name].grad, rtol=1e-4, atol=1e-5)


def test_orders_of_relations_and_types_change_no_bit():
    h, blocks = drawn()
    weights = weights_of()
    first = hgt_layer(weights, PREFIX, h, blocks, TARGETS)
    turned = hgt_layer(
        weights, PREFIX, dict(reversed(h.items())), dict(reversed(blocks.items())), dict(reversed(TARGETS.items()))
    )
    assert list(first) == list(turned)
    assert all(torch.equal(first[kind], turned[kind]) for kind in first)


def test_a_target_attends_to_its_own_neighbours_only():
    """Moving one source moves exactly the targets that have it, over whichever relation."""
    h, blocks = drawn(seed=4)
    weights = weights_of()
    before = hgt_layer(weights, PREFIX, h, blocks, TARGETS)
    moved = 8  # a user that is no target itself
    h[U] = h[U].clone()
    h[U][moved] += 1
    after = hgt_layer(weights, PREFIX, h, blocks, TARGETS)
    touched = 0
    for kind in (U, N):
        of = [(n, m) for (source, _, target), (n, m) in blocks.items() if source == U and target == kind]
        has = torch.stack([((n == moved) & m).any(1) for n, m in of]).any(0)
        assert torch.equal((before[kind] != after[kind]).any(1), has)
        touched += int(has.sum())
    assert 0 < touched < sum(TARGETS.values())


def test_without_neighbours_the_message_is_zero_and_gradients_are_finite():
    h, blocks = drawn()
    blocks = {r: (n, torch.zeros_like(m)) for r, (n, m) in blocks.items()}
    weights = weights_of()
    h = {kind: x.requires_grad_() for kind, x in h.items()}
    got = hgt_layer(weights, PREFIX, h, blocks, TARGETS)
    gate = weights[f"{PREFIX}skip.{U}"].sigmoid()
    torch.testing.assert_close(got[U], gate * weights[f"{PREFIX}out.{U}.bias"] + (1 - gate) * h[U][: TARGETS[U]])
    sum(x.sum() for x in got.values()).backward()
    assert all(torch.isfinite(x.grad).all() for x in h.values())
    nothing = hgt_layer(weights, PREFIX, h, {}, TARGETS)
    assert all(torch.equal(nothing[kind], got[kind]) for kind in got)


def test_dropout_is_a_function_of_its_generator():
    x = torch.ones(200, 50)
    state = torch.random.get_rng_state()
    one, two = (dropout(x, 0.3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert abs((one == 0).float().mean().item() - 0.3) < 0.02
    torch.testing.assert_close(one[one > 0], torch.full((int((one > 0).sum()),), 1 / 0.7))
    assert dropout(x, 0.3, None) is x
    h, blocks = drawn()
    weights = weights_of()
    plain = hgt_layer(weights, PREFIX, h, blocks, TARGETS)
    noisy = hgt_layer(weights, PREFIX, h, blocks, TARGETS, 0.5, torch.Generator().manual_seed(0))
    assert not torch.equal(plain[U], noisy[U])
