"""The dense form of CaEGCN, its variants, and what is common to its tests."""

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from trainers.caegcn.model import decoder_layers, encoder_layers

SDCN = {"depth": "full", "attention_at": "none", "decoder": False, "graph_mse": 0.0, "structure": 0.0}
VARIANTS = {
    "default": {},
    "text": {"residual": False, "attention_scale": "none", "structure_from": "last", "depth": "full"},
    "balanced": {"pos_weight": "balanced", "structure": 0.5, "freedom": 2.5, "gamma": 0.3},
    "everywhere": {"attention_at": "all", "depth": "full", "pos_weight": 3.0, "structure_from": "last"},
    "sdcn": SDCN | {"head_start": "random"},
}


def dense_adjacency(data):
    """(A + I, D^-1/2 (A + I) D^-1/2) as N x N float64 arrays."""
    a = torch.zeros(data.n_nodes, data.n_nodes, dtype=torch.float64)
    a[data.edge_index[0], data.edge_index[1]] = 1
    a.fill_diagonal_(1)
    scale = a.sum(1).rsqrt()
    return a, scale[:, None] * a * scale


def dense_attention(p, prefix, y, settings, width):
    """Attention of fused rows to all rows, every head's N x N weights written out."""
    scale = width**-0.5 if settings.attention_scale == "width" else 1.0
    q, k, v = (y @ p[f"{prefix}_{role}"] for role in ("query", "key", "value"))
    heads = [
        torch.softmax(scale * a @ b.T, 1) @ c
        for a, b, c in zip(q.split(width, 1), k.split(width, 1), v.split(width, 1), strict=True)
    ]
    out = torch.cat(heads, 1) @ p[f"{prefix}_out"]
    return y + out if settings.residual else out


def dense_layers(p, name, places, z, content, mixing, settings):
    """Graph layers: Y = gamma Z + (1 - gamma) H, attention, A~ R U, ReLU but after the last."""
    for number, place in enumerate(places):
        if place.fused is not None:
            z = settings.gamma * z + (1 - settings.gamma) * content[place.fused]
        if place.attends:
            z = dense_attention(p, f"{name}.attention.{number}", z, settings, settings.head_dim)
        z = mixing @ z @ p[f"{name}.weights.{number}"]
        z = z if place.last else relu(z)
    return z


def dense_loss(p, data, settings):
    """(the five parts of L, q, z) in float64 from parameters by name."""
    x = torch.from_numpy(data.x).double()
    a, mixing = dense_adjacency(data)
    hidden, opened, h = [], [], x
    for name, result in (("encoder", hidden), ("decoder", opened)):
        for layer in range(4):
            h = h @ p[f"content.{name}.{layer}.weight"].T + p[f"content.{name}.{layer}.bias"]
            h = relu(h) if layer < 3 else h
            result.append(h)
    z = dense_layers(
        p, "encoder", encoder_layers(settings, data.n_features), x, dict(enumerate(hidden)), mixing, settings
    )
    t = (1 + torch.cdist(hidden[-1], p["centres"]).square() / settings.freedom) ** (-(settings.freedom + 1) / 2)
    q = t / t.sum(1, keepdim=True)
    target = q.detach() ** 2 / q.detach().sum(0)
    target = target / target.sum(1, keepdim=True)
    kl = [(target * (target.log() - log)).sum(1).mean() for log in (q.log(), z.log_softmax(1))]
    nothing = torch.zeros((), dtype=torch.float64)
    decoded = None
    if settings.decoder:
        content = {-1: hidden[-1]} | dict(enumerate(opened))
        decoded = dense_layers(p, "decoder", decoder_layers(settings, data.n_features), z, content, mixing, settings)
    pairs = nothing
    if settings.structure:
        c = z if settings.structure_from == "bottleneck" else decoded
        weight = (a.numel() - a.sum()) / a.sum() if settings.pos_weight == "balanced" else settings.pos_weight
        pairs = binary_cross_entropy_with_logits(c @ c.T, a, pos_weight=torch.as_tensor(weight, dtype=torch.float64))
    graph_mse = nothing if decoded is None else (decoded - x).square().mean()
    return [(opened[-1] - x).square().mean(), *kl, graph_mse, pairs], q, z


def joint(run):
    """The records of joint training: those of pre-training have negative epochs."""
    return [r for r in run.history if r["epoch"] >= 0]
