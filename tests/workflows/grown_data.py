"""A planted graph as a folder that grows: old nodes, new ones, edges by id. For the tests of new nodes."""

from pathlib import Path

import numpy as np
import pandas as pd

from ops.data.synthetic.planted_partition import planted_graph

OLD, ALL, CLUSTERS, FEATURES = 90, 120, 3, 8
GRAPH, LABELS = planted_graph(ALL, CLUSTERS, FEATURES, degree=8, seed=3, separation=5.0)
IDS = np.array([f"n{i:03d}" for i in range(ALL)])
NAMES = [f"f{i}" for i in range(FEATURES)]


def write_folder(folder: Path, rows: np.ndarray, edges: np.ndarray | None = None, names: list[str] = NAMES) -> Path:
    """features.csv (id and named columns) of `rows` and edges.csv of `edges` [2, E], both by id."""
    folder.mkdir(parents=True)
    table = pd.DataFrame(GRAPH.x[rows], columns=NAMES)[names]
    table.insert(0, "id", IDS[rows])
    table.to_csv(folder / "features.csv", index=False)
    if edges is not None:
        pd.DataFrame({"source": IDS[edges[0]], "target": IDS[edges[1]]}).to_csv(folder / "edges.csv", index=False)
    return folder


def edges_among(rows: np.ndarray) -> np.ndarray:
    inside = np.isin(GRAPH.edge_index, rows).all(axis=0)
    return GRAPH.edge_index[:, inside]


def edges_touching(rows: np.ndarray) -> np.ndarray:
    touching = np.isin(GRAPH.edge_index, rows).any(axis=0)
    return GRAPH.edge_index[:, touching]


OLD_ROWS, NEW_ROWS, ALL_ROWS = np.arange(OLD), np.arange(OLD, ALL), np.arange(ALL)
FLAGS = "--n-clusters 3 --epochs 12 --embedding-dim 8 --low-pass-order 2 --threads 1"
