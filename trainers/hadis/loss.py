"""HaDis' objective on a part of a batch, `L_dsa + weight_hsd L_hsd + weight_proto L_proto`, mean of both view orders.

Every worker computes its share: its anchors of L_dsa and L_hsd, and 1 / W of L_proto. The shares of all workers sum to
the loss of one process. So do their gradients, as rows are gathered with their true gradient.

Axes: B rows of the part over all workers, n of this worker, D width, W workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.losses.hardness import hardness_loss
from ops.losses.prototypes import prototype_loss
from trainers.hadis.settings import Settings

PARTS = ("dsa", "hsd", "proto")


@dataclass(frozen=True)
class ViewOutputs:
    """This worker's rows of one view: p and q before normalisation, and the target's rows k."""

    p: Float[Tensor, "n D"]
    q: Float[Tensor, "n D"]
    k: Float[Tensor, "n D"]


def objective(
    first: ViewOutputs,
    second: ViewOutputs,
    total: int,
    group: ProcessGroup,
    settings: Settings,
    pseudo: Int64[Tensor, "B"] | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, "3"], Float[Tensor, "B D"]]:
    """This worker's share of the loss, its shares of L_dsa, L_hsd and L_proto, and the second view's k of all workers.

    `total` is B. Without `pseudo` labels L_proto is 0.
    """
    shard = group.shard(total)
    with torch.no_grad():
        k = group.gather(normalize(torch.stack([first.k, second.k]), dim=-1), total).view(2, total, -1)
    rows = [first.p, second.p] if pseudo is None else [first.p, second.p, first.q, second.q]
    online = group.gather(normalize(torch.stack(rows), dim=-1), total).view(len(rows), total, -1)
    shares = []
    for order in (0, 1):
        teacher, student = k[1 - order], online[order]
        dsa = -2 * (student[shard] * teacher[shard]).sum() / total
        hsd = hardness_loss(teacher, student, settings.hardness, shard)
        proto = dsa.new_zeros(())
        if pseudo is not None:
            q = online[2 + order]
            proto = prototype_loss(q, teacher, pseudo, settings.k, settings.temperature) / group.world
        shares.append(torch.stack([dsa, hsd, proto]))
    parts = (shares[0] + shares[1]) / 2
    weights = send(torch.tensor([1.0, settings.weight_hsd, settings.weight_proto], dtype=parts.dtype), parts.device)
    return parts @ weights, parts.detach(), k[1]
