"""A folder -> Raw: features.{npy,npz,parquet,csv} + edges.{csv,parquet,npy} + optional labels.{npy,csv,parquet}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.io.builder import Raw
from ops.data.io.npz import features_npz
from ops.data.io.readers import read_npy, read_npz, reading
from ops.data.io.tables import FeatureTable, edge_table, feature_table, find_rows, label_table, resolve_edges
from ops.data.io.validate import as_keys
from ops.errors import DataError

_KINDS = {
    "features": (".npy", ".npz", ".parquet", ".csv"),
    "edges": (".csv", ".parquet", ".npy"),
    "labels": (".npy", ".csv", ".parquet"),
}


def read_folder(path: Path, known: NDArray[Any] | None = None) -> Raw:
    """Read a folder; the graph is named after it. Edges may be left out where a k-NN graph is asked for.

    With an `id` column in the features, edges (and labels with an `id` column) refer to those ids; otherwise to row
    numbers counted from 0. edges.npy is [2, E] or [E, 2] (2 x 2: [2, E]). Edges may also end in `known` ids
    of other nodes: those that are not among the features' own are rows N, N + 1, ... then, in their order. DataError
    where a part is missing, stands there twice, or does not fit.
    """
    with reading(path):
        there = sorted(path.iterdir())
    features, edges, labels = (_part(path, there, kind) for kind in _KINDS)
    if features is None:
        found = ", ".join([p.name for p in there][:5]) or "nothing"
        raise DataError(f"{path}: no features: needs features.{{npy,npz,parquet,csv}}; found {found}")
    table = _features(features)
    ends, notes = (None, []) if edges is None else _edges(edges, _joined(table.ids, known))
    y = table.labels
    if labels is not None:
        if y is not None:
            raise DataError(
                f"{path}: labels stand twice, as a column of {features.name} and as {labels.name}; keep one"
            )
        y = read_npy(labels) if labels.suffix.lower() == ".npy" else label_table(labels, table.x.shape[0], table.ids)
    names = table.feature_names or None
    return Raw(path.resolve().name, str(path), table.x, ends, y, table.ids, names, [*table.notes, *notes])


def _joined(ids: NDArray[Any] | None, known: NDArray[Any] | None) -> NDArray[Any] | None:
    """The ids that edges may end in: the features' own, then those of `known` that are not among them."""
    if ids is None or known is None:
        return ids
    parts = [as_keys(ids), as_keys(known[find_rows(known, as_keys(ids)) < 0])]
    if parts[0].dtype.kind != parts[1].dtype.kind:  # then they compare as text
        parts = [part.astype(np.str_) for part in parts]
    return np.concatenate(parts)


def _part(path: Path, there: list[Path], kind: str) -> Path | None:
    files = [p for p in there if p.stem == kind and not p.name.startswith(".")]
    allowed = ",".join(s[1:] for s in _KINDS[kind])
    wrong = [p for p in files if p.suffix.lower() not in _KINDS[kind]]
    if wrong:
        raise DataError(f"{wrong[0]}: unknown kind of file; allowed: {kind}.{{{allowed}}}")
    if len(files) > 1:
        raise DataError(f"{path}: more than one {kind} file: {', '.join(p.name for p in files)}; keep one")
    return files[0] if files else None


def _features(path: Path) -> FeatureTable:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return FeatureTable(read_npy(path), [], None, None, [])
    if suffix == ".npz":
        arrays = read_npz(path)
        return FeatureTable(features_npz(path, arrays), [], arrays.get("ids"), None, [])
    return feature_table(path)


def _edges(path: Path, ids: NDArray[Any] | None) -> tuple[NDArray[Any], list[str]]:
    if path.suffix.lower() != ".npy":
        source, target, notes = edge_table(path, ids)
        return resolve_edges(source, target, ids, origin=str(path)), notes
    array = read_npy(path)
    if array.ndim != 2 or 2 not in array.shape:
        raise DataError(f"{path}: edges must have the shape [2, E] or [E, 2], found {array.shape}")
    source, target = array if array.shape[0] == 2 else array.T
    return resolve_edges(source, target, ids, origin=str(path)), []
