"""`load(spec)`: a name, a file or a folder, here or on S3 -> (AttributedGraph, labels or None)."""

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.download import in_data_folder
from ops.data.catalog.graphs import ALIASES, SOURCES, canonical, read_named
from ops.data.io.builder import Raw, check_knn, finished_graph, with_made_features
from ops.data.io.folder import FIELD, read_folder
from ops.data.io.graph_files import is_edge_table
from ops.data.io.npz import SUFFIXES, read_file
from ops.data.io.readers import check_name, reading
from ops.data.io.remote import read_remote
from ops.data.synthetic.planted_partition import read_planted
from ops.data.types.encoding import Encoding, MadeFeatures
from ops.data.types.graph import AttributedGraph
from ops.data.types.scaling import Scale
from ops.errors import DataError, SettingsError
from ops.storage.object_store import is_s3

DIGITS_KNN = 10
PREPARATION = {
    "knn": 0, "knn_metric": "euclidean", "scale": "none", "one_hot": False, "ignore": "", "make_features": "none"
}  # fmt: skip


def load(
    spec: str, *, knn: int = 0, knn_metric: str = "euclidean", scale: Scale = "none", one_hot: bool = False,
    ignore: str = "", make_features: MadeFeatures = "none", k_given: bool = True,
) -> tuple[AttributedGraph, NDArray[np.int64] | None]:  # fmt: skip
    """Load and check a data set; labels int64 [N] in 0..K-1 (-1: none) come back beside the graph, never in it.

    `spec` is, in this order: a known name without slash or suffix (`cora`, `digits`, `planted:nodes=500,seed=1`; write
    `./cora` for a file or folder of that name), s3://..., a folder, a file, or the NAME of a NAME.npz in TESSERA_DATA.
    `knn` > 0 links every row of a feature table without edges to its nearest others; digits takes 10 by itself.
    `one_hot` makes a column of each value of a table's columns of words, `ignore` (names, by commas) leaves columns
    out; `make_features` (degree, spectral) is for edges without features; `scale` brings the columns to one scale first
    (`ops.data.types.scaling`). `k_given`: see `finished_graph`. Raises DataError for missing or malformed input,
    SettingsError for a wrong `knn`, metric or planted value, ResourceError for what does not fit the memory.
    """
    check_knn(knn, knn_metric)
    raw = _read(spec, encoding=Encoding.asked(one_hot, ignore))
    if raw.encoding is None and (ignore or one_hot):
        raise SettingsError(f"{'--one-hot' if one_hot else f'--ignore {ignore}'}: {spec} is no table of named columns")
    knn = knn or (DIGITS_KNN if raw.origin == "digits" else 0)
    graph, labels = finished_graph(raw, knn, knn_metric, scale, make_features, k_given)
    if _is_bare(spec) and canonical(spec) and os.path.exists(spec):
        graph = graph.with_notes(f"{spec!r} is read as the known name; write ./{spec} for the path")
    return graph, labels


def prepared(source: object) -> dict[str, Any]:
    """How `load` is asked to prepare the data, from settings or a record that have the names of its parameters."""
    return {key: getattr(source, key) for key in PREPARATION}


def refuse_preparation(source: object, why: str) -> None:
    """SettingsError where `source` asks for what is done to feature tables and graphs only."""
    for key, value in prepared(source).items():
        if value != PREPARATION[key] and key != "knn_metric":
            raise SettingsError(f"--{key.replace('_', '-')}{'' if value is True else f' {value}'}: {why}")


def read_rows(spec: str, more_ids: NDArray[Any] | None = None, encoding: Encoding | None = None) -> Raw:
    """What `load` reads, unchecked and without labels, for rows that come to a trained model: edges may be missing.

    In a folder whose features have ids, edges may also end in `more_ids` of other nodes (`read_folder`). `encoding` is
    the training's of a table.
    """
    encoding = encoding or Encoding(categories={})
    raw = replace(_read(spec, more_ids, encoding), labels=None)
    return with_made_features(raw, encoding.made)


def table_file(spec: str) -> Path | None:
    """The one file of a feature table without edges (.csv .parquet .npy, or a folder of only that), else None.

    DataError for a folder that may not be read.
    """
    path = Path(os.path.expanduser(spec))
    if os.path.isdir(path):
        with reading(path):
            files = [p for p in path.iterdir() if not p.name.startswith(".")]
        parts = {p.stem: p for p in files}
        edges = "edges" in parts or any(p.name.endswith(FIELD["edges"]) for p in files)
        path = path if edges else parts.get("features", path)
    suffix = path.suffix.lower()
    is_table = os.path.isfile(path) and suffix in (".csv", ".parquet", ".npy")
    return path if is_table and (suffix == ".npy" or not is_edge_table(path)) else None


def known_names() -> list[str]:
    """Every name `load` knows, aliases included, sorted."""
    return sorted({"digits", "planted", *SOURCES, *ALIASES})


def _read(spec: str, more_ids: NDArray[Any] | None = None, encoding: Encoding | None = None) -> Raw:
    check_name(spec)
    name, _, parameters = spec.partition(":")
    key = name.strip().lower()
    bare = _is_bare(name) and "://" not in spec
    if bare and key == "planted":
        return read_planted(parameters)
    listed = canonical(name) if bare else None
    if parameters and bare and (listed or key == "digits"):
        raise SettingsError(f"--dataset {spec}: {name} takes no parameters; only planted does")
    if listed:
        return read_named(listed)
    if bare and key == "digits":
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return Raw("digits", "digits", bunch.data.astype(np.float32) / 16, labels=bunch.target)
    return read_remote(spec, encoding) if is_s3(spec) else _read_path(spec, bare, more_ids, encoding)


def _read_path(spec: str, bare: bool, more_ids: NDArray[Any] | None, encoding: Encoding | None) -> Raw:
    path = Path(os.path.expanduser(spec)) if spec else None
    if path is None or not os.path.exists(path):
        path = in_data_folder(f"{spec}.npz") if bare else None
    if path is None:
        raise DataError(_unknown(spec, bare))
    return read_folder(path, more_ids, encoding=encoding) if path.is_dir() else read_file(path, encoding)


def _is_bare(name: str) -> bool:
    return not (set(name) & {"/", os.sep}) and not name.startswith(("~", ".")) and not Path(name).suffix


def _unknown(spec: str, bare: bool) -> str:
    if "://" in spec:
        return f"{spec}: only local files, folders and s3:// can be read; download it first"
    if not bare:
        stem = canonical(Path(spec).stem)
        return f"{spec}: no such file or folder" + (f"; the known data set is --dataset {stem}" if stem else "")
    near = difflib.get_close_matches(spec.lower(), known_names(), n=3)
    return (
        f"{spec!r}: no such data set, file or folder; "
        + (f"nearest names: {', '.join(near)}; " if near else "")
        + f"known names: {', '.join(known_names())}; or give a file ({' '.join(SUFFIXES)}) or a folder with features.* "
        "and edges.*"
    )
