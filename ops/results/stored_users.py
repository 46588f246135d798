"""What a run on users left besides clusters, read back and checked: recall of hidden notes, link scores, the map.

Axes: R rows and C columns of a map's grid, U = R C units.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from ops.errors import DataError

MAP = "map_"  # names of a map's arrays among a seed's
ARRAYS = ("umatrix", "hits", "unit_clusters", "errors")


@dataclass(frozen=True)
class StoredMap:
    """A seed's self-organising map, as it is drawn; hits and clusters lie on the grid."""

    seed: int
    umatrix: Float64[np.ndarray, "R C"]
    hits: Int64[np.ndarray, "R C"]
    clusters: Int64[np.ndarray, "R C"]
    quantisation: float
    topographic: float


def read_map(path: Path, seed: int) -> StoredMap | None:
    """The map in a seed's more.npz; None without the file or without a map in it. Raises DataError when damaged."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[MAP + name]) for name in ARRAYS if MAP + name in stored}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: is not a readable npz file; the file is damaged, run it again with --fresh"
        ) from error
    if not arrays:
        return None
    if missing := [MAP + name for name in ARRAYS if name not in arrays]:
        raise DataError(f"{path}: lacks {', '.join(missing)}; the file is damaged, run it again with --fresh")
    umatrix, hits, clusters, errors = (arrays[name] for name in ARRAYS)
    whole = all(np.issubdtype(a.dtype, np.integer) for a in (hits, clusters))
    if umatrix.ndim != 2 or not (hits.shape == clusters.shape == (umatrix.size,)) or errors.shape != (2,) or not whole:
        sizes = ", ".join(f"{MAP}{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: the arrays of the map do not fit each other ({sizes}); run it again with --fresh")
    if not (np.isfinite(umatrix).all() and np.isfinite(errors).all()):
        raise DataError(f"{path}: the map holds NaN or infinity; it cannot be drawn")
    grid = umatrix.shape
    hits, clusters = (a.astype(np.int64).reshape(grid) for a in (hits, clusters))
    return StoredMap(seed, umatrix.astype(np.float64), hits, clusters, float(errors[0]), float(errors[1]))


def check_hidden(path: Path, result: Mapping[str, Any]) -> None:
    """Raise DataError where what a result.json says of hidden notes, links or maps is not whole."""
    recall, links, errors = (result.get(key) for key in ("recall", "links", "map"))
    if recall is not None and not _is_recall(recall):
        raise DataError(
            f"{path}: recall lacks rows with name, note and metrics, or queries, users, left_out; the file is damaged"
        )
    for key, found in (("links", links), ("map", errors)):
        if found is not None and not _are_spreads(found):
            raise DataError(f"{path}: {key} lacks values and mean of its metrics; the file is damaged")


def _is_recall(recall: Any) -> bool:
    if not isinstance(recall, dict) or not isinstance(recall.get("rows"), list):
        return False
    counts = all(isinstance(recall.get(key), int) for key in ("queries", "users", "left_out"))
    return counts and all(
        isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and isinstance(row.get("note"), str)
        and _are_spreads(row.get("metrics"))
        for row in recall["rows"]
    )


def _are_spreads(metrics: Any) -> bool:
    """Whether these are metrics with a list of values and a mean each."""
    return isinstance(metrics, dict) and all(
        isinstance(m, dict) and isinstance(m.get("values"), list) and "mean" in m for m in metrics.values()
    )


def method_row(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the method's own clusters in the recall table, e.g. `hgt + SOM`; None where nothing was hidden."""
    rows = (result.get("recall") or {}).get("rows") or []
    return next((row for row in rows if row["name"].startswith(f"{result['method']} + ")), None)


def hidden_scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """Spreads of all scores on hidden test edges: `test/recall_at_50`, ..., `links/auc`; empty where none were hidden.

    MLflow takes no @ in names.
    """
    row = method_row(result)
    return ({} if row is None else test_scores(row)) | _named("links", result.get("links") or {})


def test_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """The spreads of one row of the recall table, by the names of `hidden_scores`."""
    return _named("test", row["metrics"])


def _named(group: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{group}/{key.replace('@', '_at_')}": spread for key, spread in found.items()}
