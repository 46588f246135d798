"""HaDis's losses written pair by pair, as the paper has them: the references of its tests."""

import math

import torch


def dense_hardness(k, p, tau):
    """Mean over the anchors; weights are numbers, distances have gradients."""
    total = 0.0
    for i in range(len(k)):
        student = torch.stack([(k[i] - row).norm() for row in p])
        teacher = torch.stack([(k[i] - row).norm() for row in k])
        near_by, away = student.tolist(), teacher.tolist()
        negatives = [j for j in range(len(k)) if away[j] > near_by[i]]
        positives = [j for j in range(len(k)) if j not in negatives]
        far = max(positives, key=near_by.__getitem__)
        a, b = torch.zeros_like(student[0]), max(near_by[far] - away[far], 0.0) * student[far]
        if negatives:
            near = min(negatives, key=near_by.__getitem__)
            a = max(away[near] - near_by[near], 0.0) * student[near]
        total = total - torch.log(torch.exp(a / tau) / (torch.exp(a / tau) + torch.exp(b / tau)))
    return total / len(k)


def dense_prototypes(q, k, labels, n_clusters, temperature):
    """Mean over the clusters of the batch."""
    online, target = {}, {}
    for c in range(n_clusters):
        rows = [i for i in range(len(q)) if labels[i] == c]
        if rows:
            online[c] = sum(q[i] for i in rows) / len(rows)
            online[c] = online[c] / online[c].norm()
            target[c] = sum(k[i] for i in rows) / len(rows)
            target[c] = target[c] / target[c].norm()
    total = 0.0
    for c, centre in online.items():
        local = torch.exp(centre @ target[c] / temperature)
        others = sum(torch.exp(centre @ online[o] / temperature) for o in online if o != c)
        total = total - torch.log(local / (local + others))
    return total / len(online)


def dense_norm(x, weight, bias, eps=1e-5):
    """Batch normalisation of [B C S] by its definition."""
    mean = x.mean((0, 2), keepdim=True)
    var = (x - mean).square().mean((0, 2), keepdim=True)
    return (x - mean) / torch.sqrt(var + eps) * weight[:, None] + bias[:, None], mean.flatten(), var.flatten()


def rows(n, width, seed, scale=1.0):
    """Rows of unit length in float64; a small `scale` puts them close together."""
    g = torch.Generator().manual_seed(seed)
    base = torch.randn(1, width, generator=g, dtype=torch.float64)
    x = base + scale * math.sqrt(width) * torch.randn(n, width, generator=g, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)
