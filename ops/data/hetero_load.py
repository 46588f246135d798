"""`load_hetero(spec)`: a name, a file or a folder, here or on S3 -> (HeteroGraph, groups by type or None)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ops.data.hetero import NODE, HeteroGraph, from_homogeneous
from ops.data.load import load

Groups = dict[str, NDArray[np.int64]]
Loaded = tuple[HeteroGraph, Groups | None]


def load_whole(spec: str) -> Loaded:
    """What is no folder of tables: known names, RecBole's files, .npz and everything else that `load` reads."""
    graph, labels = load(spec)
    return from_homogeneous(graph), None if labels is None else {NODE: labels}
