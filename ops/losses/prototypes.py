"""Prototypical contrastive loss of ProPos and HaDis (Huang et al., TPAMI 2022; arXiv 2401.14038).

c_q is the mean of a cluster's rows of unit length in the batch, scaled to unit length; c_k is the same for the target's
rows. The loss is `-log(exp(c_q . c_k / T) / (exp(c_q . c_k / T) + sum over the other clusters' exp(c_q . c_q' / T)))`,
a mean over the clusters that have a row in the batch; the others count nowhere.

Axes: B rows of the global batch, D width, K clusters.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

_ABSENT = -100


def prototype_loss(
    q: Float[Tensor, "B D"], k: Float[Tensor, "B D"], labels: Int64[Tensor, "B"], n_clusters: int, temperature: float
) -> Float[Tensor, ""]:
    """The loss of a batch with pseudo labels in [0, K); `q` and `k` (no gradient) have rows of unit length.

    It is 0 for a batch of one cluster, which has no others.
    """
    members = one_hot(labels, n_clusters)
    present = members.any(0)
    members = members.T.to(q.dtype)  # [K B]; a matrix product adds in the same order every time
    online, target = normalize(members @ q), normalize(members @ k.detach())
    logits = online @ online.T
    place = torch.arange(n_clusters, device=q.device)
    same = torch.linalg.vecdot(online, target)
    logits = torch.where(place[:, None] == place, same[:, None], logits) / temperature
    logits = logits.masked_fill(~present, -torch.inf)
    return cross_entropy(logits, torch.where(present, place, _ABSENT), ignore_index=_ABSENT)
