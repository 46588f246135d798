"""Graphs written as a folder of Parquet tables, in as many files as asked for."""

from pathlib import Path

import numpy as np
import pandas as pd

from ops.data.types.hetero import relation_name


def write_tables(graph, folder, pieces=3):
    folder = Path(folder)
    for kind, nodes in graph.nodes.items():
        columns = {"id": nodes.ids}
        if nodes.x is not None:
            columns |= {name: nodes.x[:, i] for i, name in enumerate(nodes.names)}
        _write(folder / "nodes" / kind, columns, pieces)
    for relation, edges in graph.edges.items():
        columns = {"src": graph.nodes[relation[0]].ids[edges.src], "dst": graph.nodes[relation[2]].ids[edges.dst]}
        columns |= {} if edges.weight is None else {"weight": edges.weight}
        columns |= {} if edges.time is None else {"time": edges.time}
        _write(folder / "edges" / relation_name(relation), columns, pieces)
    return folder


def _write(folder, columns, pieces):
    folder.mkdir(parents=True)
    count = len(next(iter(columns.values())))
    for i, rows in enumerate(np.array_split(np.arange(count), pieces)):
        pd.DataFrame({name: values[rows] for name, values in columns.items()}).to_parquet(folder / f"{i:03d}.parquet")
