"""Clusters of new rows by a trained HSAN: the attribute encoders and the nearest centre.

Axes: n rows, N nodes, F features, D embedding width, K clusters.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ops.clustering.lloyd import nearest_two
from ops.device import send
from ops.graph.pca import Projection
from trainers.hsan.model import Encoders, filtered, fuse
from trainers.hsan.settings import Settings


@torch.no_grad()
def embed(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64],
    weight: NDArray[np.float32] | None = None,
) -> Float[Tensor, "N D"]:
    """Fused rows of a stored model for features `x` [N, F], filtered over `edge_index` [2, E], which may be empty."""
    chosen = Settings.model_validate(settings)
    rows = send(filtered(chosen, x, edge_index, Projection.load(tensors), weight), tensors["centres"].device)
    # a model of one node and one feature is enough: the weights that encode the rows are the stored ones
    return fuse(Encoders(1, 1, chosen, seed=0).local_attributes(rows, tensors).flatten(0, 1))


def predict(
    tensors: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    x: NDArray[np.float32],
    edge_index: NDArray[np.int64] | None = None,
    weight: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]) of rows `x` [n, F], by the attribute encoders and the nearest centre.

    Edges among the rows are used for the filter; without them each row stands alone. The structure encoders are
    transductive (one weight row a training node) and shape the clusters through training only.
    """
    edges = np.empty((2, 0), dtype=np.int64) if edge_index is None else edge_index
    fused = embed(tensors, settings, x, edges, weight)
    spherical = Settings.model_validate(settings).kmeans == "spherical"
    labels, confidence = nearest_two(normalize(fused) if spherical else fused, tensors["centres"])
    return labels.cpu().numpy(), confidence.cpu().numpy()
