"""A homogeneous folder -> Raw: features.{npy,npz,parquet,csv} + edges.{csv,parquet,npy} + labels.{npy,csv,parquet}.

Or the field's usual NAME_feat.npy + NAME_adj.npy (N x N) + NAME_label.npy.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.data.io.builder import Raw
from ops.data.io.graph_files import edge_table_alone
from ops.data.io.ids import Lookup, as_keys, check_ids, find_rows, joined_ids
from ops.data.io.labels import label_table
from ops.data.io.npz import Npz, features_npz
from ops.data.io.readers import escaped, file_at, read_npy, reading
from ops.data.io.tables import edge_table, end_rows, feature_table
from ops.data.types.encoding import Encoding
from ops.data.types.hetero import Ids
from ops.errors import DataError

KINDS = {
    "features": (".npy", ".npz", ".parquet", ".csv"),
    "edges": (".csv", ".parquet", ".npy"),
    "labels": (".npy", ".csv", ".parquet"),
}
FIELD = {"features": "_feat.npy", "edges": "_adj.npy", "labels": "_label.npy"}
_ADJACENCY_ROWS = 1024


def read_folder(
    path: Path, more_ids: NDArray[Any] | None = None, unread: Sequence[str] = (), encoding: Encoding | None = None
) -> Raw:
    """Read a folder; the graph is named after it. Edges may be left out where a k-NN graph is asked for.

    With an `id` column in the features, edges (and labels with an `id` column) refer to those ids; otherwise to row
    numbers counted from 0. edges.npy is [2, E] or [E, 2] (2 x 2: [2, E]). Edges may also end in
    `more_ids` of other nodes: those that are not among the features' are rows N, N + 1, ... then, in their order.
    `unread` are files that `path` has no copy of. DataError where a part is missing, stands twice, or does not fit.
    """
    with reading(path):
        files = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    parts = {kind: _part(path, files, kind) for kind in KINDS}
    features, edges, labels = parts.values()
    if features is None and edges is None:
        names = ", ".join(p.name for p in files[:5]) or "nothing"
        raise DataError(f"{path}: no features: needs features.{{npy,npz,parquet,csv}}; found {escaped(names)}")
    table = _features(features, encoding) if features is not None else _nodes(edges, path)
    if table.x.ndim != 2:
        raise DataError(f"{features}: features must be a table [N, F], found shape {table.x.shape}")
    ends, weights, notes = (None, None, []) if edges is None else _edges(edges, _all_ids(table.ids, more_ids))
    y = table.labels
    if labels is not None:
        if y is not None and features is not None:
            raise DataError(
                f"{path}: labels stand twice, as a column of {features.name} and as {labels.name}; keep one"
            )
        y = _labels(labels, table)
    left = [p for p in files if p not in parts.values() and p.name[0] != "_"]
    unread = [*unread, *(f"{p.name}/" if p.is_dir() else p.name for p in left)]
    notes += [f"files not read: {escaped(', '.join(unread[:5]))}{' ...' if unread[5:] else ''}"] if unread else []
    name = escaped(path.resolve().name)
    return replace(
        table, name=name, origin=str(path), edges=ends, weights=weights, labels=y, notes=[*table.notes, *notes]
    )


def _nodes(edges: Path | None, folder: Path) -> Raw:
    """The nodes of edges alone, without features: those that the ends name, or the rows of the matrix."""
    assert edges is not None, "a folder has features or edges"
    if edges.suffix.lower() != ".npy":
        return edge_table_alone(edges)
    with reading(edges):
        array = read_npy(edges, mapped=True)
        n = len(array) if edges.name.endswith(FIELD["edges"]) else 1 + int(array.max(initial=-1))
    return Raw(folder.name, str(folder), np.empty((n, 0), dtype=np.float32))


def _part(path: Path, files: list[Path], kind: str) -> Path | None:
    """The file of the folder that holds the features, edges or labels."""
    parts = [p for p in files if p.stem == kind] or [p for p in files if p.name.endswith(FIELD[kind])]
    allowed = ",".join(s[1:] for s in KINDS[kind])
    wrong = [p for p in parts if p.suffix.lower() not in KINDS[kind]]
    if wrong:
        raise DataError(f"{wrong[0]}: unknown kind of file; allowed: {kind}.{{{allowed}}}")
    if len(parts) > 1:
        raise DataError(f"{path}: more than one {kind} file: {', '.join(p.name for p in parts)}; keep one")
    return parts[0] if parts else None


def _all_ids(ids: NDArray[Any] | None, more_ids: NDArray[Any] | None) -> Ids | None:
    """The ids that edges may end in: the features', then those of `more_ids` that are not among them."""
    if ids is None or more_ids is None:
        return ids
    return joined_ids([as_keys(ids), as_keys(more_ids)[find_rows(more_ids, ids) < 0]])


def _features(path: Path, encoding: Encoding | None) -> Raw:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return Raw(path.stem, str(path), read_npy(path))
    if suffix == ".npz":
        with Npz(path) as arrays:
            x, ids = features_npz(arrays), arrays.get("ids")
            ids = None if ids is None or x.ndim != 2 else check_ids(ids, len(x), origin=str(path))
            return Raw(path.stem, str(path), x, ids=ids)
    return feature_table(path, encoding)


def _labels(path: Path, table: Raw) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        return read_npy(path)
    lookup = None if table.ids is None else Lookup("node", as_keys(table.ids))
    return label_table((file_at(str(path)),), table.x.shape[0], lookup)


def _edges(path: Path, ids: Ids | None) -> tuple[NDArray[Any], NDArray[Any] | None, list[str]]:
    if path.suffix.lower() != ".npy":
        return edge_table(file_at(str(path)), ids)
    if path.name.endswith(FIELD["edges"]):
        return *_adjacency(path), []
    array = read_npy(path)
    if array.ndim != 2 or 2 not in array.shape:
        raise DataError(f"{path}: edges must have the shape [2, E] or [E, 2], found {array.shape}")
    array = array if array.shape[0] == 2 else array.T
    if ids is None:
        return array, None, []
    lookup = Lookup("node", ids)
    keys = [as_keys(end, str(path)) for end in array]
    return np.stack([end_rows(end, lookup, name, lambda row: f"{path}, edge {row}")
                     for end, name in zip(keys, ("source", "target"), strict=True)]), None, []  # fmt: skip


def _adjacency(path: Path) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The edges [2, E] of a matrix N x N, every entry that is not 0, and the entries [E]; read by blocks of rows."""
    matrix = read_npy(path, mapped=True)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind not in "biuf":
        raise DataError(f"{path}: an adjacency must be numbers [N, N], found {matrix.dtype} {matrix.shape}")
    parts, weights, edges = [np.empty((2, 0), np.int64)], [np.empty(0, matrix.dtype)], 0
    for first in range(0, len(matrix), _ADJACENCY_ROWS):
        block = matrix[first : first + _ADJACENCY_ROWS]
        rows, columns = np.nonzero(block)
        edges += len(rows)
        memory.check_load(48 * edges, f"{path}: {edges:,} edges and more")
        parts.append(np.stack([rows + first, columns]))
        weights.append(block[rows, columns])
    return np.concatenate(parts, axis=1), np.concatenate(weights)
