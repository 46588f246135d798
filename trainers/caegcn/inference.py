"""Clusters of new rows by a trained CaEGCN: the graph branch where there are edges, else the content branch.

Axes: n rows, F features, Z width of the content code.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.clustering.student_t import student_t
from ops.device import send
from ops.distributed.process_group import ProcessGroup
from ops.graph.adjacency import adjacency
from trainers.caegcn.model import Model, clusters, rows_of
from trainers.caegcn.settings import Settings


def _loaded(tensors: Mapping[str, Tensor], settings: Settings, n_features: int) -> Model:
    model = Model(n_features, settings, seed=0)
    model.load_state_dict(tensors)
    return model.to(tensors["centres"].device)


@torch.no_grad()
def embed(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "n Z"]:
    """Content codes of a stored model for features `x` [n, F]; edges have no effect on them."""
    del edge_index, weight
    model = _loaded(tensors, Settings.model_validate(settings), x.shape[1])
    return model.content.encode(send(x, model.centres.device))[-1]


@torch.no_grad()
def predict(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64] | None = None,
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]) of rows `x` [n, F].

    With edges [2, E] the graph branch assigns all rows together, which attend to each other as in training. Without
    edges the content branch assigns each row by itself, to its largest q.
    """
    chosen = Settings.model_validate(settings)
    model = _loaded(tensors, chosen, x.shape[1])
    if edge_index is None or not edge_index.size:
        q = student_t(model.content.encode(send(x, model.centres.device))[-1], model.centres, chosen.freedom)
        confidence, labels = q.max(1)
        return labels.cpu().numpy(), confidence.cpu().numpy()
    a = adjacency(edge_index, len(x), self_loops=False, weight=weight)
    rows = rows_of(x, a, ProcessGroup(), model.centres.device)
    labels, confidence = clusters(model(rows, ProcessGroup()).columns)
    return labels.cpu().numpy(), confidence.cpu().numpy()
