"""HSAN from the model of an earlier run (`--warm-start`).

Attribute encoders, alpha, and the structure rows of the nodes that the earlier run had go on from their stored values.
Structure rows of new nodes start as usual. Features pass through the PCA that the encoders were trained with: a PCA
that is fitted to the grown data would give the encoders other inputs.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ops.api import Warm
from ops.data.types.graph import AttributedGraph
from ops.graph.pca import Projection
from trainers.hsan.model import Encoders, prepare
from trainers.hsan.settings import Settings


def prepare_warm(
    settings: Settings, data: AttributedGraph, warm: Warm | None
) -> tuple[Float[Tensor, "N F"], Projection | None]:
    """`prepare`, with the PCA of the warm model where there is one."""
    return prepare(settings, data, None if warm is None else Projection.load(warm.model))


@torch.no_grad()
def begin_warm(model: Encoders, warm: Warm | None) -> None:
    """Write the weights of the warm model into a new `model`, in place; without a warm start do nothing."""
    if warm is None:
        return
    rows = torch.from_numpy(warm.rows)
    seen = rows >= 0
    for name, parameter in model.named_parameters():
        stored = warm.model[name].to(parameter.device)
        if name == "structure_weight":
            parameter[:, seen.to(parameter.device)] = stored[:, rows[seen].to(parameter.device)]
        else:
            parameter.copy_(stored)
