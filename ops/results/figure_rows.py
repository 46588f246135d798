"""The rows that a seed's figures draw, without the data: a part of the input and of the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.rng import generator

FIGURE_ROWS = 2000
FEATURES = 24  # that points can be coloured by


def figure_arrays(
    x: NDArray[Any],
    embedding: NDArray[np.float32],
    assignment: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
) -> dict[str, NDArray[Any]]:
    """At most 2,000 rows of the input [N, F] (50 principal columns) and the embedding [N, D], with their clusters.

    `feature_columns` [c] are at most 24 features, those that vary most, and `features` [n, c] their values.
    """
    n = len(x)
    rows = np.arange(n) if n <= FIGURE_ROWS else np.sort(generator(0, "figures").choice(n, FIGURE_ROWS, replace=False))
    centred = x[rows] - x[rows].mean(0, dtype=np.float32)
    _, vectors = np.linalg.eigh((centred.T @ centred) if centred.shape[1] <= len(rows) else (centred @ centred.T))
    top = vectors[:, ::-1][:, :50]
    before = centred @ top if centred.shape[1] <= len(rows) else top * np.linalg.norm(centred.T @ top, axis=0)
    sample = {"rows": rows, "before": before.astype(np.float32), "after": embedding[rows], "cluster": assignment[rows]}
    if x.dtype != np.uint8:  # of images a single pixel says nothing
        columns = np.sort(np.argsort(-x[rows].var(axis=0), kind="stable")[:FEATURES])
        sample |= {"feature_columns": columns, "features": x[rows][:, columns].astype(np.float32)}
    return sample if labels is None else sample | {"label": labels[rows]}
