"""Clusters of new rows by a trained NS4GC: the network over their edges, and the nearest centre.

Axes: n rows, F features, D embedding width, K clusters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.clustering.lloyd import nearest_two
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from trainers.ns4gc.model import Network, smoothing
from trainers.ns4gc.settings import Settings
from trainers.shared import features_of


@torch.no_grad()
def embed(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "n D"]:
    """Rows of unit length of a stored model, for features `x` [n, F] over `edge_index` [2, E], which may be empty."""
    del weight
    network = Network(x.shape[1], Settings.model_validate(settings), seed=0)
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    device, group = tensors["centres"].device, ProcessGroup()
    a = adjacency(edge_index, len(x), self_loops=False)
    rows: Tensor = network.to(device)(features_of(x, group, device), smoothing(a, group, device), group)
    return rows


def predict(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64] | None = None,
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]) of rows `x` [n, F]; without edges each row stands alone."""
    del weight
    edges = np.empty((2, 0), dtype=np.int64) if edge_index is None else edge_index
    labels, confidence = nearest_two(embed(tensors, settings, x, edges), tensors["centres"])
    return labels.cpu().numpy(), confidence.cpu().numpy()
