"""How node features enter a linear filter, without labels: raw, as rows of unit length, as TF-IDF, or standardised.

Axes: N nodes, n rows of a new table, F features.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

Treatment = Literal["raw", "l2", "tfidf", "standard"]
SPARSE_BELOW = 0.1  # share of features that are not 0, below which products skip the zeros
Table = sp.csr_array | NDArray[np.float32]


def table_of(x: Table) -> Table:
    """`x` [N, F], sparse where few of its values are not 0 (bags of words), so that products skip the zeros."""
    if isinstance(x, np.ndarray) and np.count_nonzero(x) < SPARSE_BELOW * x.size:
        return sp.csr_array(x)
    return x


def fit_treatment(x: Table, treatment: Treatment) -> dict[str, Tensor]:
    """What `treated` needs of the training's features `x` [N, F]: document frequencies, or mean and deviation.

    `idf_j = ln((1 + N) / (1 + df_j)) + 1`, where df_j counts the rows in which feature j is not 0 (scikit-learn's
    smooth TF-IDF).
    """
    if treatment == "tfidf":
        if isinstance(x, np.ndarray):
            rows = np.count_nonzero(x, axis=0)
        else:
            rows = np.bincount(x.indices, minlength=x.shape[1])
        idf = np.log((1 + x.shape[0]) / (1 + rows)) + 1
        return {"features.scale": torch.from_numpy(idf.astype(np.float32))}
    if treatment == "standard":
        x = _dense(x)
        deviation = x.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > 0, 1 / np.maximum(deviation, 1e-12), 0.0)
        mean = x.mean(axis=0, dtype=np.float64)
        return {"features.scale": torch.from_numpy(scale.astype(np.float32)),
                "features.mean": torch.from_numpy(mean.astype(np.float32))}  # fmt: skip
    return {}


def treated(x: Table, treatment: Treatment, fitted: Mapping[str, Tensor]) -> Table:
    """`x` [n, F] after the treatment, sparse where few features are not 0. Rows of zeros stay zeros."""
    if treatment == "standard":
        mean, factors = (fitted[f"features.{each}"].cpu().numpy() for each in ("mean", "scale"))
        return np.asarray((_dense(x) - mean) * factors, dtype=np.float32)
    scale = fitted["features.scale"].cpu().numpy() if treatment == "tfidf" else None
    table = table_of(x)
    if not isinstance(table, np.ndarray):
        rows = table.copy()
        if scale is not None:
            rows.data *= scale[rows.indices]
        return rows if treatment == "raw" else scaled_rows(rows, np.sqrt(rows.multiply(rows).sum(axis=1)))
    dense = table if scale is None else table * scale
    return dense if treatment == "raw" else scaled_rows(dense, np.linalg.norm(dense, axis=1))


def _dense(x: Table) -> NDArray[np.float32]:
    return x if isinstance(x, np.ndarray) else x.toarray()


def scaled_rows(x: Table, length: NDArray[np.floating]) -> Table:
    """The rows of `x` [n, F] divided by `length` [n]; rows of length 0 stay as they are."""
    factor = (1 / np.where(length > 0, length, 1)).astype(np.float32)
    if isinstance(x, np.ndarray):
        return x * factor[:, None]
    out = x.copy()
    out.data *= np.repeat(factor, np.diff(x.indptr))
    return out
