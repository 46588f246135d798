"""Attention over all nodes in memory linear in their number: fused kernels, keys and values gathered over the workers.

Each worker has the queries of its rows. Keys and values are gathered on all workers; their gradients go back by
reduce-scatter.

Axes: N nodes, n of them on this worker, H heads, D width of a head.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

from ops.distributed.process_group import ProcessGroup

# the fused kernels only: the plain one would make the N x N array, and an error is better than that
_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def attend(
    queries: Float[Tensor, "n HD"],
    keys: Float[Tensor, "n HD"],
    values: Float[Tensor, "n HD"],
    heads: int,
    n_nodes: int,
    *,
    scale: float,
    group: ProcessGroup | None = None,
) -> Float[Tensor, "n HD"]:
    """`softmax_j(scale <q_i, k_j>) v_j` over all `n_nodes` nodes, head by head; the heads' results stand side by side.

    `keys` and `values` are those of this worker's rows. A worker without rows takes part only in the gathering.
    """
    group = group or ProcessGroup()
    if group.world == 1:
        k, v = keys, values
    else:
        k, v = group.gather(torch.stack((keys, values)), n_nodes).chunk(2)
        if queries.shape[0] == 0:
            return queries + 0 * (k.sum() + v.sum())  # tied to the gathering, whose backward pass every worker must run
    width = queries.shape[1] // heads
    q, k, v = (x.view(len(x), heads, width).transpose(0, 1)[None] for x in (queries, k, v))
    if width % 4 and queries.device.type != "cpu":
        # a GPU's fused kernels refuse such widths in float32: padded zeros add nothing, and are cut off afterwards
        q, k, v = (pad(x, (0, -width % 4)) for x in (q, k, v))
    with sdpa_kernel(_FUSED):
        attended = scaled_dot_product_attention(q, k, v, scale=scale)
    return attended[0, ..., :width].transpose(0, 1).flatten(1)
