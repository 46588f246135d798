"""Features of nodes that have none, made of their edges (`--make-features`).

Axes: N nodes, E directed edges (both directions of each).
"""

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ops.errors import DataError

DEGREES = 100  # nodes of so many edges and more share a column
VECTORS = 32
DENSE = 500  # nodes up to which all eigenvectors are computed


def made_features(kind: str, edge_index: NDArray[np.int64], n_nodes: int) -> tuple[NDArray[np.float32], list[str]]:
    """Features [N, F] of `edge_index` [2, E] and their names.

    `degree`: a column a degree, 0 to 100 and more, with a 1 in the node's. `spectral`: the leading eigenvectors of
    D^-1/2 A D^-1/2 but the first, each of mean square 1, at most 32. Raises DataError where these are not found.
    """
    source, target = edge_index[:, edge_index[0] != edge_index[1]]
    degree = np.bincount(source, minlength=n_nodes)
    if kind == "degree":
        x = np.zeros((n_nodes, DEGREES + 1), dtype=np.float32)
        x[np.arange(n_nodes), np.minimum(degree, DEGREES)] = 1
        return x, [*(f"degree={i}" for i in range(DEGREES)), f"degree>={DEGREES}"]
    root = 1 / np.sqrt(np.maximum(degree, 1))
    a = sp.csr_array((root[source] * root[target], (source, target)), shape=(n_nodes, n_nodes))
    vectors = _leading(a, min(VECTORS + 1, n_nodes - 1))[:, 1:]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    # the last bits of an eigenvector are the library's
    x = np.round(vectors * np.sqrt(n_nodes), 4).astype(np.float32)
    return x, [f"eigenvector {i + 1}" for i in range(x.shape[1])]


def _leading(a: sp.csr_array, count: int) -> NDArray[np.float64]:
    """The eigenvectors [N, count] of the largest eigenvalues, these first."""
    if a.shape[0] <= DENSE:
        return np.asarray(np.linalg.eigh(a.toarray())[1][:, ::-1][:, :count])
    from scipy.sparse.linalg import ArpackError, eigsh

    try:
        values, vectors = eigsh(a, count, which="LA", v0=np.ones(a.shape[0]))
    except ArpackError as error:
        raise DataError(f"--make-features spectral: no eigenvectors were found ({error}); take degree") from None
    return np.asarray(vectors[:, np.argsort(-values)])
