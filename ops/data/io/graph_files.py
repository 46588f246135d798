"""Graphs in the files of other programs: lists of edges, GraphML, GML (networkx), AnnData's .h5ad.

Axes: N nodes, E edges.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.builder import Raw
from ops.data.io.chunks import chunks_of, read_edge_table
from ops.data.io.dtypes import weights_of
from ops.data.io.ids import ids_of, joined_ids, whole_numbers
from ops.data.io.objects import of_anndata, of_networkx
from ops.data.io.readers import file_at, reading
from ops.data.io.schema import END_NAMES, edge_columns, table_names
from ops.data.types.hetero import Ids
from ops.errors import DataError

EDGE_LISTS = (".edgelist", ".edges")
GRAPH_FILES = (*EDGE_LISTS, ".graphml", ".gml", ".h5ad")
_GROWTH = 60  # how much larger networkx's objects are than their text


def graph_file(path: Path) -> Raw:
    """Read a graph file by its suffix. Raises DataError where it is malformed, or AnnData is not installed."""
    suffix = path.suffix.lower()
    with reading(path):
        memory.check_load(path.stat().st_size * (2 if suffix == ".h5ad" else _GROWTH), str(path))
    if suffix == ".h5ad":
        return _anndata(path)
    return _edge_list(path) if suffix in EDGE_LISTS else _networkx(path, suffix)


def is_edge_table(path: Path) -> bool:
    """Whether a .csv or .parquet has columns for two ends of edges, and nothing else but their weight and time."""
    names = table_names(file_at(str(path)))
    return len(END_NAMES & names) == 2 and not names - END_NAMES - {"weight", "time", "timestamp"}


def edge_table_alone(path: Path) -> Raw:
    """A table of edges without one of features: the nodes are all that its ends name, sorted."""
    file = file_at(str(path))
    columns = edge_columns(file, strict=False)
    parts = [read_edge_table(chunk)[:3] for chunk in chunks_of((file,), [columns], "the table of edges")]
    src, dst, weights = zip(*parts, strict=True)
    weighted = columns.named("weight") is not None
    return _of_ends(path, joined_ids([*src, *dst]), np.concatenate(weights) if weighted else None)


def _of_ends(path: Path, ends: Ids, weights: NDArray[Any] | None) -> Raw:
    """A graph without features of edges' ends [2 E], first all sources; its nodes are the ends, sorted."""
    ids, place = np.unique(ends, return_inverse=True)
    nothing = np.empty((len(ids), 0), dtype=np.float32)
    return Raw(path.stem, str(path), nothing, place.reshape(2, -1), ids=ids, weights=weights)


def _edge_list(path: Path) -> Raw:
    """Lines of two ends and perhaps a weight, with blanks, tabs or commas between; # begins a comment."""
    import pandas as pd
    import pyarrow as pa

    with reading(path):
        table = pd.read_csv(path, sep=r"[\s,]+", comment="#", header=None, dtype=str, engine="python", na_filter=False)
    if table.shape[1] not in (2, 3):
        raise DataError(f"{path}: {table.shape[1]} values in a line; an edge list has two ends and perhaps a weight")

    def at(row: int) -> str:
        return f"{path}, edge {row}"

    columns = [pa.array(table[c]) for c in table]
    weights = weights_of(columns[2], "the weight", at) if columns[2:] else None
    ends = ids_of(whole_numbers(pa.concat_arrays(columns[:2])), lambda row: at(row % len(table)))
    return _of_ends(path, ends, weights)


def _networkx(path: Path, suffix: str) -> Raw:
    import networkx as nx

    with reading(path):
        if suffix == ".graphml":
            graph = nx.read_graphml(path)
        else:
            try:
                graph = nx.read_gml(path)
            except nx.NetworkXError:  # nodes without a name, or two of one name
                graph = nx.read_gml(path, label="id")
    return of_networkx(path.stem, graph, str(path))


def _anndata(path: Path) -> Raw:
    try:
        import anndata
    except ImportError:
        raise DataError(
            f"{path}: reading .h5ad needs AnnData, which is not installed: pip install 'tessera[anndata]'"
        ) from None
    with reading(path):
        data = anndata.read_h5ad(path)
    return of_anndata(path.stem, data, str(path))
