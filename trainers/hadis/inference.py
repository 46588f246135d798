"""Clusters of new images by a trained HaDis: the target's projections and the nearest centre.

Axes: n images, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ops.data.types.images import ImageSet
from ops.errors import DataError
from trainers.hadis.clusters import CHUNK, assign
from trainers.hadis.model import project, restored
from trainers.hadis.settings import Settings
from trainers.hadis.source import ImageSource


@torch.no_grad()
def embed(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], data: ImageSet) -> Float[Tensor, "n D"]:
    """Projections of unit length. Raises DataError for images of another size, or features of another width."""
    chosen = Settings.model_validate(settings)
    source = ImageSource(chosen, data, 0, device := tensors["centres"].device)
    wanted = tuple(tensors["input.shape"].tolist())
    if (data.features is None) != (chosen.frozen is None) or source.shape != wanted:
        given, need = ("x".join(map(str, shape)) or "none" for shape in (source.shape, wanted))
        what = "images of {} pixels" if chosen.frozen is None else "{} features"
        raise DataError(f"{data.name}: has {given}; the model takes {what.format(need)}")
    network = restored(chosen, tensors).to(device)
    pieces = (project(network, source.plain(slice(i, i + CHUNK))) for i in range(0, data.n_rows, CHUNK))
    return torch.cat([torch.zeros(0, chosen.embedding_dim, device=device), *pieces])


def predict(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], data: ImageSet
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cluster [n], confidence [n]); for the training images these are the run's own."""
    labels, confidence = assign(embed(tensors, settings, data), dict(tensors))
    return labels.cpu().numpy(), confidence.float().cpu().numpy()
