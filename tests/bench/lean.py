"""The opponent: HSAN's loss with S, exp and w as M x M float32 autograd tensors, nothing wasted, nothing tiled."""

import torch


def lean_loss(z, e, alpha, w, temperature):
    """The same loss as `ops.losses.infonce.hard_infonce`, dense: three M x M arrays live until the backward pass."""
    m = len(z)
    s = alpha * (z @ z.T) + (1 - alpha) * (e @ e.T)
    p = torch.exp(w * s / temperature)
    rows = p.sum(1) - p.diagonal()
    i = torch.arange(m)
    j = (i + m // 2) % m
    return (rows.log() - (w[i, j] * s[i, j]) / temperature).mean()


def dense_weights(z, e, alpha, labels, trusted, beta):
    """The weights of an update as one M x M array."""
    with torch.no_grad():
        w = alpha * (z @ z.T) + (1 - alpha) * (e @ e.T)
        low, high = w.min(), w.max()
        w.sub_(low).div_(high - low)
        labels, trusted = labels.repeat(2), trusted.repeat(2)
        w.sub_((labels[:, None] == labels).to(w.dtype)).abs_().pow_(beta)
        return w.masked_fill_(~(trusted[:, None] & trusted), 1.0)
