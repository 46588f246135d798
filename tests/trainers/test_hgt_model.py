"""The network on hand-made samples: what the roots depend on, its weights' names and starts, dropout's draws."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ops.errors import SettingsError
from trainers.hgt.layer import hgt_layer
from trainers.hgt.model import Metadata, forward, parameters
from trainers.hgt.settings import Settings

FOLLOW, BACK = ("user", "follow", "note"), ("note", "rev_follow", "user")
METADATA = Metadata({"user": 30, "note": 20}, {"user": 4, "note": 0}, (FOLLOW, BACK))


@dataclass(frozen=True)
class Sample:
    nodes: tuple
    blocks: tuple
    features: dict
    numbers: dict = field(default_factory=dict)


def settings_of(**values):
    return Settings.model_validate(
        {"n_clusters": 3, "hidden": 8, "heads": 2, "fan_out": "2,2", "dropout": 0.3} | values
    )


def sampled(hops=2, fanout=2, seed=0):
    """A sample drawn from nothing: nested nodes (depth d + 1 begins with depth d) and random blocks with holes."""
    g, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    pools = {"user": rng.permutation(30), "note": rng.permutation(20)}
    sizes = [{"user": 3 + 5 * d, "note": 2 + 4 * d} for d in range(hops + 1)]
    nodes = tuple({kind: pools[kind][:n] for kind, n in size.items()} for size in sizes)
    blocks = []
    for inner, outer in pairwise(sizes):
        hop = {}
        for relation in (FOLLOW, BACK):
            shape = (inner[relation[2]], fanout)
            mask = torch.rand(shape, generator=g) < 0.8
            hop[relation] = (torch.randint(outer[relation[0]], shape, generator=g), mask)
        blocks.append(hop)
    features = {"user": torch.randn(len(nodes[-1]["user"]), 4, generator=g)}
    return Sample(nodes, tuple(blocks), features)


def test_two_layers_are_two_layers_by_hand():
    settings, sample = settings_of(), sampled()
    w = parameters(settings, METADATA, 0)
    got = forward(w, settings, sample)
    h = {
        "user": sample.features["user"] @ w["input.user.weight"] + w["input.user.bias"],
        "note": w["input.note.bias"].repeat(len(sample.nodes[2]["note"]), 1),
    }
    h = hgt_layer(w, "layer1.", h, sample.blocks[1], {"user": 8, "note": 6})
    h = hgt_layer(w, "layer2.", h, sample.blocks[0], {"user": 3, "note": 2})
    for kind in h:
        torch.testing.assert_close(got[kind], normalize(h[kind]))
    assert list(w) == sorted(w)
    assert {name.split(".")[0] for name in w} == {"input", "layer1", "layer2"}


@pytest.mark.parametrize("fan_out", ["2", "2,2", "2,2,2"])
def test_every_number_of_layers_reaches_its_weights(fan_out):
    settings = settings_of(fan_out=fan_out, norm="layer", id_buckets=64)
    w = parameters(settings, METADATA, 0)
    z = forward(w, settings, sampled(settings.layers), torch.Generator().manual_seed(0))
    sum((x * torch.arange(8.0)).sum() for x in z.values()).backward()
    assert {name for name, value in w.items() if value.grad is None} == set()
    torch.testing.assert_close(z["user"].norm(dim=1), torch.ones(3))


def test_id_rows_tell_nodes_apart_and_unseen_ones_have_none():
    plain = Metadata(METADATA.counts, {}, METADATA.relations)
    with pytest.raises(SettingsError, match=r"no node type has features, .* --id-buckets, e.g. 30 "):
        parameters(settings_of(), plain, 0)
    settings, sample = settings_of(id_buckets=25), sampled()
    w = parameters(settings, plain, 0)
    assert w["input.user.ids"].shape == (25, 8)
    assert w["input.note.ids"].shape == (20, 8)
    z = forward(w, settings, sample)["user"]
    assert (z[0] - z[1]).abs().max() > 1e-3
    unseen = tuple({kind: np.full_like(ids, -1) for kind, ids in nodes.items()} for nodes in sample.nodes)
    got = forward(w, settings, Sample(unseen, sample.blocks, {}))
    without = {name: value for name, value in w.items() if not name.endswith(".ids")}
    expected = forward(without, settings, Sample(sample.nodes, sample.blocks, {}))
    torch.testing.assert_close(got["user"], expected["user"])


def test_starts_depend_on_seed_and_name_alone():
    one, two = parameters(settings_of(), METADATA, 3), parameters(settings_of(), METADATA, 4)
    assert all(torch.equal(one[name], value) for name, value in parameters(settings_of(), METADATA, 3).items())
    assert not torch.equal(one["input.user.weight"], two["input.user.weight"])
    more = Metadata({**METADATA.counts, "tag": 5}, METADATA.features, (*METADATA.relations, ("tag", "on", "note")))
    wider = parameters(settings_of(), more, 3)
    assert all(torch.equal(wider[name], value) for name, value in one.items())


def test_a_sample_of_another_depth_or_without_features_is_refused():
    settings = settings_of()
    w = parameters(settings, METADATA, 0)
    with pytest.raises(ValueError, match="a sample of 1 hops for a network of 2 layers"):
        forward(w, settings, sampled(1))
    sample = sampled()
    with pytest.raises(ValueError, match="no features of type user"):
        forward(w, settings, Sample(sample.nodes, sample.blocks, {}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fan_out": "5,x"}, "1 to 8 whole numbers"),
        ({"fan_out": "0"}, "1 to 8 whole numbers"),
        ({"heads": 3}, "--heads 3 must divide --hidden, which is 8"),
        ({"loss": "softmax", "hardness": 0.5}, "--loss softmax takes the batch"),
        ({"cluster": "som", "som_rows": 1, "som_columns": 2}, "2 units, fewer than the 3 clusters"),
    ],
)
def test_settings_that_exclude_each_other(values, words):
    with pytest.raises(ValueError, match=words):
        settings_of(**values)


def test_fan_outs_are_read_from_text_and_yaml():
    assert settings_of(fan_out=[10, 5]).fan_outs == settings_of(fan_out="10, 5").fan_outs == (10, 5)
    assert settings_of(fan_out=7).layers == 1
    assert settings_of(label_relations="follow, share").labels == ("follow", "share")
    assert settings_of().labels == ()
