"""HSAN from the model of an earlier run (`--warm-start`).

Attribute encoders, alpha and the structure rows of nodes that it had go on from where they were; structure rows of
new nodes have the usual start. Features pass through the PCA that the encoders were trained behind: another
one, fitted to the grown data, would turn their input space under them.
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
    """`prepare`, with the warm model's PCA where there is one."""
    return prepare(settings, data, None if warm is None else Projection.load(warm.model))


@torch.no_grad()
def begin_warm(model: Encoders, warm: Warm | None) -> None:
    """Write the warm model's weights into a new `model`, in place; nothing without one."""
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
