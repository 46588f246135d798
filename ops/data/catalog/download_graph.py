"""python -m ops.data.catalog.download_graph NAME FOLDER: torch_geometric's data set NAME as FOLDER/graph.npz.

Only this module touches torch_geometric, and only in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.graphs import SOURCES
from ops.data.io.builder import Raw
from ops.data.io.npz import write_npz
from ops.data.io.validate import make_graph


def fetch(name: str, folder: Path) -> Path:
    """Download into FOLDER/pyg (files that are there already are used) and write FOLDER/graph.npz."""
    import torch_geometric.datasets

    source = SOURCES[name]
    if source is None:
        raise ValueError(f"torch_geometric has no {name}")
    data = getattr(torch_geometric.datasets, source.dataset)(str(folder / "pyg"), **source.arguments)[0]
    path = folder / "graph.npz"
    write_npz(path, to_raw(name, data), source=f"torch_geometric {source.dataset} {source.arguments.get('name', '')}")
    return path


def to_raw(name: str, data: Any) -> Raw:
    """A torch_geometric Data as Raw; labels of several columns (one node, many labels) are left out."""
    x = data.x.to_dense() if data.x.layout != _strided() else data.x
    features: NDArray[Any] = x.numpy()
    edges: NDArray[Any] = data.edge_index.numpy()
    labels = None if data.y is None or (data.y.dim() > 1 and data.y.shape[1] > 1) else data.y.numpy().reshape(-1)
    source = SOURCES[name]
    if source is not None and source.dataset == "Airports":
        features = one_hot_degree(make_graph(name, features, edges).edge_index, features.shape[0])
    return Raw(name, name, features, edges, labels)


def one_hot_degree(edge_index: NDArray[np.int64], n: int) -> NDArray[np.float32]:
    """[N, largest degree + 1]: a one in the column of the node's degree, a self loop counted once (HSAN's bat)."""
    degree = np.bincount(edge_index[0], minlength=n)
    x = np.zeros((n, int(degree.max()) + 1), dtype=np.float32)
    x[np.arange(n), degree] = 1
    return x


def _strided() -> Any:
    import torch

    return torch.strided


if __name__ == "__main__":
    try:
        fetch(sys.argv[1], Path(sys.argv[2]))
    # the caller prints one line whatever happens; the class tells a refused connection from a changed file
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
