"""TEMI's linear heads: the loss against its formula pair by pair, planted clusters, draws by seed, sampled rows."""

import numpy as np
import torch

from ops.clustering import temi as module
from ops.clustering.temi import temi, temi_loss
from ops.evaluation.labelled import evaluator


def reference(student, teacher, mean, beta):
    """L by head from probabilities [2 B H K] and q [H K]: loops over pairs and heads."""
    _, pairs, heads, _ = student.shape
    total = [0.0] * heads
    for b in range(pairs):
        weight = sum((teacher[0, b, h] * teacher[1, b, h]).sum() for h in range(heads)) / heads
        for h in range(heads):
            pmi = [torch.log(((student[v, b, h] * teacher[1 - v, b, h]) ** beta / mean[h]).sum()) for v in (0, 1)]
            total[h] = total[h] - weight * (pmi[0] + pmi[1]) / 2 / pairs
    return torch.stack(total)


def test_the_loss_and_its_gradient_are_the_formulas():
    g = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 3, 4, generator=g, dtype=torch.float64) for _ in range(2))
    mean = torch.rand(3, 4, generator=g, dtype=torch.float64).softmax(1)
    values, gradients = [], []
    for ours in (True, False):
        logits = student.clone().requires_grad_()
        if ours:
            value = temi_loss(logits.log_softmax(3), teacher.log_softmax(3), mean.log(), 0.7)
        else:
            value = reference(logits.softmax(3), teacher.softmax(3), mean, 0.7)
        (gradient,) = torch.autograd.grad((value * torch.tensor([1.0, 2.0, -3.0])).sum(), logits)
        values.append(value)
        gradients.append(gradient)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.01


def planted(n=240, k=4, width=96):
    """Unit directions far apart, drowned rows around them: more columns than components are kept."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, n)
    x = rng.standard_normal((k, width))[labels] * 2 + rng.standard_normal((n, width))
    return x.astype(np.float32), labels


def test_planted_clusters_are_found_by_any_seed_and_from_a_sample(monkeypatch):
    x, labels = planted()
    scored = evaluator(labels)
    monkeypatch.setattr(module, "EPOCHS", 60)
    first = temi(x, 4, 0)
    assert (first.dtype, first.shape, scored(first)["acc"]) == (np.int64, (240,), 1.0)
    assert np.array_equal(temi(x, 4, 0), first)
    assert not np.array_equal(temi(x, 4, 1), first), "another seed numbers them otherwise"
    monkeypatch.setattr(module, "ROWS", 120)
    assert scored(temi(x, 4, 2))["acc"] == 1.0
    assert temi(x[:5], 4, 0).shape == (5,), "hardly more rows than clusters"
