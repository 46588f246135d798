"""Schedules, batches, views, networks, plans and settings of HaDis, each by itself."""

import math

import numpy as np
import pytest
import torch
from hadis_small import settings_of, small_features, small_images
from image_losses import dense_hardness, dense_prototypes
from torch.nn.functional import normalize

from ops.api import PlainRun
from ops.config.settings import build
from ops.distributed.process_group import ProcessGroup
from ops.errors import SettingsError
from trainers.hadis import Settings, estimate, exchanged, remarks
from trainers.hadis.cost import measure
from trainers.hadis.loss import ViewOutputs, objective
from trainers.hadis.model import Model, Standardise
from trainers.hadis.schedule import decay, learning_rate
from trainers.hadis.source import ImageSource, batches, inverse_sizes, steps_of
from trainers.hadis.training import HadisTrainer


def source(words=None, seed=0):
    features = "backbone" in (words or {})
    data = (small_features if features else small_images)()[0]
    return ImageSource(settings_of(**words or {}), data, seed, torch.device("cpu"))


def test_the_learning_rate_rises_by_step_and_falls_with_a_cosine_to_its_end():
    s = settings_of(epochs=10, warmup_epochs=2, lr=0.05, batch=512, lr_end=0.006)
    rates = [learning_rate(s, step, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) / 10 for i in range(10)])
    assert max(rates) == rates[9] == rates[10] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.006 * 0.1)
    assert rates[30] == pytest.approx(0.1 * (0.006 + 0.994 * (1 + math.cos(math.pi * 20 / 39)) / 2))
    assert learning_rate(settings_of(epochs=1, warmup_epochs=0), 0, 1) > 0


def test_the_targets_decay_is_constant_or_rises_to_one():
    assert {decay(settings_of(epochs=10), step, 5) for step in range(50)} == {0.9}
    rising = [decay(settings_of(epochs=10, ema_schedule="cosine"), step, 5) for step in range(51)]
    assert rising[0] == pytest.approx(0.9)
    assert rising[25] == pytest.approx(0.95)
    assert rising[50] == 1
    assert rising == sorted(rising)


def test_the_target_moves_towards_the_online_network_and_keeps_its_own_statistics():
    model = Model(settings_of(), (8, 8), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.online.parameters(), model.target.parameters(), strict=True))
    with torch.no_grad():
        for p in model.online.parameters():
            p.add_(1)
    model.online.projector[1].running_mean.add_(5)
    before = [p.clone() for p in model.target.parameters()]
    model.follow(0.75)
    for old, new in zip(before, model.target.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25, atol=1e-6)
    assert float(model.target.projector[1].running_mean.abs().max()) == 0


def test_a_seed_gives_the_same_start_whatever_was_drawn_before():
    one = Model(settings_of(), (8, 8), seed=1)
    torch.randn(5)
    again, other = Model(settings_of(), (8, 8), seed=1), Model(settings_of(), (8, 8), seed=2)
    weights = [m.online.encoder[0].weight for m in (one, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    linear = one.predictor[3]
    assert float(linear.bias.detach().abs().max()) == 0
    assert float(linear.weight.detach().std()) == pytest.approx(0.01, rel=0.2)


def test_an_epoch_has_every_image_once_in_batches_of_equal_parts():
    s = settings_of(batch=20, accumulate=4)
    first, again, other = (batches(s, 72, 0, epoch) for epoch in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.shape(first) == (3, 4, 5)
    assert len(np.unique(first)) == 60
    assert steps_of(s, 72) == 3
    assert np.shape(batches(s, 13, 0, 0)) == (1, 4, 3)  # fewer images than a batch
    few = batches(s.model_copy(update={"epoch_steps": 2}), 72, 0, 0)
    assert np.array_equal(few, first[:2])


def test_resampling_draws_small_clusters_as_often_as_large_ones():
    labels = torch.tensor([0] * 600 + [1] * 40 + [2] * 60)
    chances = inverse_sizes(labels)
    assert [chances[labels == c].sum() for c in range(3)] == pytest.approx([1 / 3] * 3)
    drawn = np.concatenate([np.ravel(batches(settings_of(), 700, 0, epoch, chances)) for epoch in range(20)])
    share = np.bincount(labels.numpy()[drawn]) / len(drawn)
    assert np.abs(share - 1 / 3).max() < 0.02


@pytest.mark.parametrize("words", [{}, {"backbone": "frozen:x.npy"}])
def test_a_view_is_keyed_by_seed_epoch_image_and_number(words):
    index = np.array([3, 8, 60, 1])
    s = source(words)
    view = s.view(index, 4, 1)
    assert torch.equal(view[2:3], s.view(index[2:3], 4, 1))
    for other in (s.view(index, 5, 1), s.view(index, 4, 0), source(words, 1).view(index, 4, 1)):
        assert not torch.allclose(view, other)


def test_views_of_features_have_the_noise_and_the_gaps_that_were_asked_for():
    s = source({"backbone": "frozen:x.npy", "feature_noise": 0.5, "feature_drop": 0.25})
    x, index = s.data.features, np.arange(72)
    views = np.stack([s.view(index, epoch, 0).numpy() for epoch in range(40)])
    mean, deviation = x.mean(0), x.std(0)
    gone = np.isclose(views, mean, rtol=1e-5)[:, :, 1:]
    assert gone.mean() == pytest.approx(0.25, abs=0.01)
    noise = ((views - x)[:, :, 1:] / deviation[1:])[~gone]
    assert noise.std() == pytest.approx(0.5, rel=0.02)
    assert np.allclose(views[:, :, 0], 7)  # a constant column stays
    scaled = Standardise(12)
    scaled.fit(*s.moments)
    standard = scaled(torch.from_numpy(x))
    assert float(standard.square().mean()) == pytest.approx(1)
    assert float(standard.mean(0).abs().max()) < 1e-5
    assert torch.allclose(standard.std(0, correction=0), torch.from_numpy(deviation) * scaled.scale, atol=1e-5)


def test_small_needs_at_most_20_mflop_and_resnets_are_the_published_ones():
    small = measure(Settings(backbone="small"), (32, 32))
    assert 15e6 < 2 * small.encoder <= 20e6
    sizes = {"resnet18": (11.17e6, 555e6), "resnet34": (21.28e6, 1160e6), "resnet50": (23.50e6, 1305e6)}
    for name, (weights, operations) in sizes.items():  # of the CIFAR forms, without the classifier
        work = measure(Settings(backbone=name, hidden=2, embedding_dim=2), (32, 32))
        assert work.encoder == pytest.approx(operations, rel=0.01)
        width = 2048 if name == "resnet50" else 512
        heads = 2 * width + 2 + 4 + 6 + (6 + 4 + 6)
        assert work.weights - heads == pytest.approx(weights, rel=0.01)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "small"])
def test_every_backbone_projects_images_of_any_size(backbone):
    model = Model(settings_of(backbone=backbone), (12, 9)).eval()
    assert model.online(torch.zeros(2, 3, 12, 9)).shape == (2, 16)


def test_the_plan_grows_with_what_it_depends_on():
    data = small_images()[0]
    base = estimate(settings_of(), data)
    assert estimate(settings_of(batch=72), data) > base
    assert estimate(settings_of(batch=72, accumulate=3), data) < estimate(settings_of(batch=72), data)
    assert estimate(settings_of(batch=72), data, 3) < estimate(settings_of(batch=72), data)
    assert exchanged(settings_of(), data, 1) == 0
    assert (
        exchanged(settings_of(batch_norm="local"), data, 2)
        < exchanged(settings_of(), data, 2)
        < exchanged(settings_of(), data, 4)
    )
    said = remarks(settings_of(), data)
    assert "3 steps of 24 images an epoch" in said[0]
    assert said[1] == "warm-up of 1 epochs, then prototypes and noise"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"warmup_epochs": 9, "epochs": 9}, "--warmup-epochs 9 must be below --epochs, which is 9: lower it"),
        ({"batch": 8, "accumulate": 5}, "--accumulate 5 leaves 1 images of --batch 8 in a part, which needs 2"),
        (
            {"backbone": "resnet19"},
            "--backbone: got 'resnet19'; allowed: resnet18, resnet34, resnet50, small or frozen:FILE.npy",
        ),
        ({"backbone": "frozen:"}, "--backbone: got 'frozen:'; allowed: "),
    ],
)
def test_settings_that_cannot_be_are_one_line(words, message):
    with pytest.raises(SettingsError, match=message):
        build(Settings, words, {})


def test_the_warm_up_is_a_tenth_unless_it_is_given():
    assert (Settings(epochs=50).warmup, Settings(epochs=5).warmup, Settings(warmup_epochs=7).warmup) == (5, 0, 7)
    assert math.isclose(Settings().warmup, 100)


@pytest.mark.parametrize("epoch", ["warm-up", "later"])
def test_the_objective_is_the_papers_written_out_for_both_orders(epoch):
    settings = settings_of(weight_hsd=0.7, weight_proto=0.3, temperature=0.4, hardness=0.6)
    g = torch.Generator().manual_seed(0)
    values = [torch.randn(12, 6, generator=g, dtype=torch.float64, requires_grad=number < 4) for number in range(6)]
    p, q, k = values[:2], values[2:4], values[4:]
    pseudo = None if epoch == "warm-up" else torch.tensor([0, 0, 2, 2, 0, 2, 0, 0, 2, 2, 0, 0])
    ours, parts, _ = objective(
        ViewOutputs(p[0], q[0], k[0]), ViewOutputs(p[1], q[1], k[1]), 12, ProcessGroup(), settings, pseudo
    )
    totals = []
    for a, b in ((0, 1), (1, 0)):
        pn, qn, kn = (normalize(t) for t in (p[a], q[a], k[b]))
        dsa, hsd = -2 * (pn * kn).sum(1).mean(), dense_hardness(kn, pn, 0.6)
        proto = torch.zeros(()) if pseudo is None else dense_prototypes(qn, kn, pseudo.tolist(), 3, 0.4)
        totals.append(torch.stack([dsa, hsd, proto.double()]))
    means = (totals[0] + totals[1]) / 2
    theirs = means[0] + 0.7 * means[1] + 0.3 * means[2]
    assert torch.allclose(parts, means.detach(), rtol=1e-12)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    seen = p if pseudo is None else [*p, *q]
    for mine, other in zip(torch.autograd.grad(ours, seen), torch.autograd.grad(theirs, seen), strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-14)


def test_a_step_passes_each_network_once_a_view_and_moves_the_target_before_the_optimiser():
    training = HadisTrainer(settings_of(batch=72, epochs=3), small_images()[0], PlainRun())
    model, passes = training.model, []
    for name in ("online", "target", "predictor"):
        getattr(model, name).register_forward_hook(lambda *_, name=name: passes.append(name))
    start = [p.detach().clone() for p in model.online.parameters()]
    training.epoch(0)
    assert sorted(passes) == ["online", "online", "predictor", "predictor", "target", "target"]
    assert all(torch.equal(a, b) for a, b in zip(start, model.target.parameters(), strict=True))
    moved = [p.detach().clone() for p in model.online.parameters()]
    assert not torch.equal(start[0], moved[0])
    training.epoch(1)
    for a, b, k in zip(start, moved, model.target.parameters(), strict=True):
        assert torch.allclose(k, 0.9 * a + 0.1 * b, atol=1e-6)


def test_the_predictor_learns_faster_and_decay_can_spare_norms_and_biases():
    training = HadisTrainer(
        settings_of(decay="weights", lr=0.2, batch=128, warmup_epochs=0), small_images()[0], PlainRun()
    )
    groups = training.optimizer.param_groups
    assert [(g["times"], g["weight_decay"]) for g in groups] == [(1, 5e-4), (1, 0), (10, 5e-4), (10, 0)]
    assert all(p.dim() > 1 for g in groups[::2] for p in g["params"])
    assert all(p.dim() == 1 for g in groups[1::2] for p in g["params"])
    training.epoch(0)
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.1, 1.0, 1.0])
    everything = HadisTrainer(settings_of(), small_images()[0], PlainRun()).optimizer.param_groups
    assert [g["weight_decay"] for g in everything] == [5e-4, 5e-4]


def test_an_accumulated_step_is_the_mean_of_its_parts():
    data, result = small_images()[0], []
    for parts in (1, 2):
        training = HadisTrainer(settings_of(batch=48, accumulate=parts), data, PlainRun())
        training.model.train()
        index = np.arange(48)
        for number, part in enumerate(np.split(index, 2)):
            if parts == 2:
                training._learn(0, number, part, 2)
        if parts == 1:
            shares = []
            for number, part in enumerate(np.split(index, 2)):
                training._learn(0, number, part, 1)
                shares.append([p.grad.clone() for p in training.model.predictor.parameters()])
                training.optimizer.zero_grad()
            result.append([(a + b) / 2 for a, b in zip(*shares, strict=True)])
        else:
            result.append([p.grad for p in training.model.predictor.parameters()])
    for a, b in zip(*result, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * float(b.abs().max()) + 1e-9)
