"""Clusters of new rows by a trained DMoN: the network over their edges.

Axes: n rows, F features, D embedding width, K clusters, E edges.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from trainers.dmon.model import Edges, Network
from trainers.dmon.settings import Settings
from trainers.shared import features_of


@torch.no_grad()
def _rows(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> tuple[Float[Tensor, "n D"], Float[Tensor, "n K"]]:
    network = Network(x.shape[1], Settings.model_validate(settings), seed=0)
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    device, group = tensors["weight"].device, ProcessGroup()
    edges = Edges(adjacency(edge_index, len(x), self_loops=False, weight=weight), group, device)
    rows: tuple[Tensor, Tensor] = network.to(device)(features_of(x, group, device), edges.smoothing, group)
    return rows


def embed(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "n D"]:
    """Rows of a stored model for features `x` [n, F] over `edge_index` [2, E] (may be empty) with `weight` [E]."""
    return _rows(tensors, settings, x, edge_index, weight)[0]


def predict(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64] | None = None,
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]) of rows `x` [n, F]; without edges each row stands alone."""
    edges = np.empty((2, 0), dtype=np.int64) if edge_index is None else edge_index
    confidence, clusters = _rows(tensors, settings, x, edges, weight)[1].max(1)
    return clusters.cpu().numpy(), confidence.cpu().numpy()
