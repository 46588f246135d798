"""One file -> Raw: the .npz layout of Tessera, or a feature table (.npy, .csv, .parquet). Also writes the layout."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.csr import check_csr
from ops.data.io.builder import Raw
from ops.data.io.readers import read_npy, read_npz, reading
from ops.data.io.tables import feature_table
from ops.errors import DataError

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")
_LAYOUT = ("x", "x_indptr", "x_indices", "x_shape", "x_data", "edge_index", "y", "ids", "meta")
_SPARSE = ("format", "shape", "data", "indices", "indptr", "row", "col", "_is_array")


def read_file(path: Path) -> Raw:
    """Read one data file by its suffix; the graph is named after it. DataError where it is no such file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown kind of file {suffix or '(no suffix)'!r}; allowed: {', '.join(SUFFIXES)}")
    if suffix == ".npz":
        return _graph_npz(path)
    if suffix == ".npy":
        return Raw(path.stem, str(path), read_npy(path))
    table = feature_table(path)
    return Raw(path.stem, str(path), table.x, None, table.labels, table.ids, table.feature_names, table.notes)


def features_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Dense features [N, F] out of a .npz: `x`, CSR as x_indptr/x_indices/x_shape(/x_data), or scipy's save_npz."""
    if "x" in arrays:
        return arrays["x"]
    with reading(path):
        if "x_indptr" in arrays:
            missing = [k for k in ("x_indices", "x_shape") if k not in arrays]
            if missing:
                raise DataError(f"{path}: features as CSR need {', '.join(missing)} beside x_indptr")
            indices = arrays["x_indices"]
            data = arrays.get("x_data", np.ones(indices.shape, dtype=np.float32))
            return _from_csr(path, data, indices, arrays["x_indptr"], arrays["x_shape"])
        if "format" in arrays and "shape" in arrays:
            return _from_scipy(path, arrays)
    found = ", ".join(sorted(arrays)) or "nothing"
    raise DataError(f"{path}: no features: needs x, or x_indptr, x_indices, x_shape (CSR); found {found}")


def write_npz(path: Path, raw: Raw, **meta: str) -> None:
    """Write the .npz layout (features as CSR where that is smaller), under a temporary name first, then renamed."""
    from scipy import sparse

    arrays: dict[str, NDArray[Any]] = {"x": raw.x}
    if np.count_nonzero(raw.x) * 2 < raw.x.size:
        csr = sparse.csr_matrix(raw.x)
        arrays = {"x_indptr": csr.indptr, "x_indices": csr.indices, "x_shape": np.array(csr.shape), "x_data": csr.data}
    optional = {"edge_index": raw.edges, "y": raw.labels, "ids": raw.ids}
    arrays |= {k: v for k, v in optional.items() if v is not None}
    arrays["meta"] = np.array(json.dumps({"name": raw.name, **meta}))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as f:
            np.savez_compressed(f, allow_pickle=False, **arrays)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _graph_npz(path: Path) -> Raw:
    arrays = read_npz(path)
    x = features_npz(path, arrays)
    other = [k for k in arrays if k not in _LAYOUT and not ("format" in arrays and k in _SPARSE)]
    notes = [f"arrays ignored: {', '.join(other[:5])}"] if other else []
    return Raw(path.stem, str(path), x, arrays.get("edge_index"), arrays.get("y"), arrays.get("ids"), None, notes)


def _from_scipy(path: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in ("csr", "csc"):
        raise DataError(f"{path}: a sparse matrix as {kind!r}; allowed: csr, csc (save it after .tocsr())")
    missing = [k for k in ("data", "indices", "indptr") if k not in arrays]
    if missing:
        raise DataError(f"{path}: a sparse matrix without {', '.join(missing)}")
    shape = arrays["shape"]
    # a CSC matrix is the transpose of the CSR matrix of the same three arrays
    dense = _from_csr(
        path, arrays["data"], arrays["indices"], arrays["indptr"], shape if kind == "csr" else shape[::-1]
    )
    return dense if kind == "csr" else dense.T


def _from_csr(
    path: Path, data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: NDArray[Any]
) -> NDArray[Any]:
    """Dense [N, F] float32 (float64 stays). Every index is checked first: scipy writes outside memory otherwise."""
    from scipy import sparse

    if shape.ndim != 1 or shape.dtype.kind not in "iu":
        raise DataError(f"{path}: the CSR array shape must be whole numbers [n], found {shape.dtype} {shape.shape}")
    if shape.size != 2 or data.dtype.kind not in "biuf":
        raise DataError(f"{path}: CSR features need two sizes and numbers, found {shape.size} sizes and {data.dtype}")
    n, f = (int(s) for s in shape)
    check_csr(str(path), indptr, indices, (n, f))
    if data.shape != indices.shape:
        raise DataError(f"{path}: CSR data must be one value for each of {indices.size} indices, found {data.shape}")
    values: Any = data.astype(np.float64 if data.dtype == np.float64 else np.float32)
    matrix = sparse.csr_matrix((values, indices.astype(np.int64), indptr.astype(np.int64)), shape=(n, f))
    dense: NDArray[Any] = matrix.toarray()
    return dense
