"""One file -> Raw: the .npz layout of Tessera, or a feature table (.npy, .csv, .parquet). Also writes the layout."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops import memory
from ops.atomic_io import save_arrays
from ops.data.io.builder import Raw
from ops.data.io.csr import check_csr
from ops.data.io.graph_files import GRAPH_FILES, edge_table_alone, graph_file, is_edge_table
from ops.data.io.readers import check_kind, read_npy, reading
from ops.data.io.tables import feature_table
from ops.data.types.encoding import Encoding
from ops.errors import DataError

SUFFIXES = (".npz", ".npy", ".csv", ".parquet", *GRAPH_FILES)
_LAYOUT = ("x", "x_indptr", "x_indices", "x_shape", "x_data", "edge_index", "edge_weight", "y", "ids", "meta")
_FEATURES = ("x", "x_indptr", "format")  # one of these is where there are features
_SPARSE = ("format", "shape", "data", "indices", "indptr", "row", "col", "_is_array")


def read_file(path: Path, encoding: Encoding | None = None) -> Raw:
    """Read one data file by its suffix; the graph is named after it. DataError where it is no such file."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown kind of file {suffix or '(no suffix)'!r}; allowed: {', '.join(SUFFIXES)}")
    if suffix == ".npz":
        return _graph_npz(path)
    if suffix == ".npy":
        return Raw(path.stem, str(path), read_npy(path))
    if suffix in GRAPH_FILES:
        return graph_file(path)
    check_kind(path)
    return edge_table_alone(path) if is_edge_table(path) else feature_table(path, encoding)


class Npz:
    """The arrays of a .npz file, each read when it is named; what is not named may hold anything."""

    def __init__(self, path: Path) -> None:
        """Raises DataError where it is something else, or cut off."""
        check_kind(path)
        self.path = path
        with reading(path), ExitStack() as stack:  # numpy leaves a file open that turns out to be no zip archive
            self._archive: Any = stack.enter_context(np.load(stack.enter_context(path.open("rb"))))
            self._stack = stack.pop_all()
        self.names: tuple[str, ...] = tuple(self._archive.files)

    def __enter__(self) -> "Npz":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._archive.zip.NameToInfo.get(f"{name}.npy")  # compressed, a small file may stand for a large array
        memory.check_load(info.file_size if info else 0, str(self.path))
        with reading(f"{self.path}: array {name!r}"):
            array: NDArray[Any] = self._archive[name]
            if not isinstance(array, np.ndarray):
                raise DataError(f"{self.path}: {name!r} is no array of NumPy; save it by numpy.savez")
        return array

    def get(self, name: str) -> NDArray[Any] | None:
        """The array, None where there is none of that name."""
        return self[name] if name in self.names else None


def features_npz(arrays: Npz) -> NDArray[Any]:
    """Dense features [N, F] out of a .npz: `x`, CSR as x_indptr/x_indices/x_shape(/x_data), or scipy's save_npz."""
    path, names = arrays.path, arrays.names
    if "x" in names:
        return arrays["x"]
    with reading(path):
        if "x_indptr" in names:
            missing = [k for k in ("x_indices", "x_shape") if k not in names]
            if missing:
                raise DataError(f"{path}: features as CSR need {', '.join(missing)} beside x_indptr")
            indices, data = arrays["x_indices"], arrays.get("x_data")
            data = np.ones(indices.shape, dtype=np.float32) if data is None else data
            return _from_csr(path, data, indices, arrays["x_indptr"], arrays["x_shape"])
        if "format" in names and "shape" in names:
            return _from_scipy(arrays)
    shown = ", ".join(sorted(names)) or "nothing"
    raise DataError(f"{path}: no features: needs x, or x_indptr, x_indices, x_shape (CSR); found {shown}")


def write_npz(path: Path, raw: Raw, **meta: str) -> None:
    """Write the .npz layout (features as CSR where that is smaller), under a temporary name first, then renamed."""
    from scipy import sparse

    arrays: dict[str, NDArray[Any]] = {"x": raw.x}
    if np.count_nonzero(raw.x) * 2 < raw.x.size:
        csr = sparse.csr_matrix(raw.x)
        arrays = {"x_indptr": csr.indptr, "x_indices": csr.indices, "x_shape": np.array(csr.shape), "x_data": csr.data}
    optional = {"edge_index": raw.edges, "edge_weight": raw.weights, "y": raw.labels, "ids": raw.ids}
    arrays |= {k: v for k, v in optional.items() if v is not None}
    save_arrays(path, **arrays, meta=np.array(json.dumps({"name": raw.name, **meta})))


def _graph_npz(path: Path) -> Raw:
    with Npz(path) as arrays:
        other = [k for k in arrays.names if k not in _LAYOUT and not ("format" in arrays.names and k in _SPARSE)]
        notes = [f"arrays ignored: {', '.join(other[:5])}"] if other else []
        edges, labels, ids = (arrays.get(name) for name in ("edge_index", "y", "ids"))
        if edges is not None and edges.size and edges.dtype.kind in "iu" and not set(arrays.names) & set(_FEATURES):
            x = np.empty((_node_count(edges, labels if ids is None else ids, notes), 0), dtype=np.float32)
        else:
            x = features_npz(arrays)
        return Raw(path.stem, str(path), x, edges, labels, ids, None, notes, weights=arrays.get("edge_weight"))


def _node_count(edges: NDArray[Any], of_nodes: NDArray[Any] | None, notes: list[str]) -> int:
    """A node for each value `of_nodes`, or up to the largest number in `edges`, which a note says."""
    if of_nodes is not None:
        return of_nodes.size
    n_nodes = max(int(edges.max()) + 1, 0)
    notes.append(f"{n_nodes:,} nodes, by the largest number in edge_index")
    return n_nodes


def _from_scipy(arrays: Npz) -> NDArray[Any]:
    path = arrays.path
    kind = arrays["format"].item()
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind not in ("csr", "csc"):
        raise DataError(f"{path}: a sparse matrix as {kind!r}; allowed: csr, csc (save it after .tocsr())")
    missing = [k for k in ("data", "indices", "indptr") if k not in arrays.names]
    if missing:
        raise DataError(f"{path}: a sparse matrix without {', '.join(missing)}")
    shape = arrays["shape"] if kind == "csr" else arrays["shape"][::-1]
    # a CSC matrix is the transpose of the CSR matrix of the same three arrays
    dense = _from_csr(path, arrays["data"], arrays["indices"], arrays["indptr"], shape)
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
    memory.check_load(8 * n * f, str(path))
    if data.shape != indices.shape:
        raise DataError(f"{path}: CSR data must be one value for each of {indices.size} indices, found {data.shape}")
    values: Any = data.astype(np.float64 if data.dtype == np.float64 else np.float32)
    matrix = sparse.csr_matrix((values, indices.astype(np.int64), indptr.astype(np.int64)), shape=(n, f))
    dense: NDArray[Any] = matrix.toarray()
    return dense
