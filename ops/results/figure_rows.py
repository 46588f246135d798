"""The rows that a seed's figures draw, without the data: a part of the input and of the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.rng import generator

FIGURE_ROWS = 2000
FEATURES = 24  # that points can be coloured by


def figure_rows(n: int) -> NDArray[np.int64]:
    """The numbers of the at most 2,000 of n rows that are drawn."""
    return np.arange(n) if n <= FIGURE_ROWS else np.sort(generator(0, "figures").choice(n, FIGURE_ROWS, replace=False))


def figure_arrays(
    rows: NDArray[np.int64],
    x: NDArray[Any],
    embedding: NDArray[np.float32],
    assignment: NDArray[np.int64],
    labels: NDArray[np.int64] | None,
) -> dict[str, NDArray[Any]]:
    """What is drawn of these `rows` [n]: their input [n, F] (50 principal columns), embedding [n, D] and clusters [n].

    `feature_columns` [c] are at most 24 features, those that vary most, and `features` [n, c] their values.
    """
    centred = x - x.mean(0, dtype=np.float32)
    _, vectors = np.linalg.eigh((centred.T @ centred) if centred.shape[1] <= len(rows) else (centred @ centred.T))
    top = vectors[:, ::-1][:, :50]
    before = centred @ top if centred.shape[1] <= len(rows) else top * np.linalg.norm(centred.T @ top, axis=0)
    sample = {"rows": rows, "before": before.astype(np.float32), "after": embedding, "cluster": assignment}
    if x.dtype != np.uint8:  # of images a single pixel says nothing
        columns = np.sort(np.argsort(-x.var(axis=0), kind="stable")[:FEATURES])
        sample |= {"feature_columns": columns, "features": x[:, columns].astype(np.float32)}
    return sample if labels is None else sample | {"label": labels}
