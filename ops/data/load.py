"""`load(spec)`: a name, a file or a folder, here or on S3 -> (AttributedGraph, labels or None)."""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.data.catalog.graphs import ALIASES, SOURCES, canonical, data_file, read_named
from ops.data.io.builder import Raw, check_knn, finish
from ops.data.io.folder import read_folder
from ops.data.io.npz import SUFFIXES, read_file
from ops.data.io.readers import reading
from ops.data.io.remote import read_remote
from ops.data.synthetic.planted_partition import planted_graph
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError, SettingsError
from ops.storage.object_store import is_s3

DIGITS_KNN = 10
_PLANTED: dict[str, type[int] | type[float]] = {
    "nodes": int,
    "clusters": int,
    "features": int,
    "degree": float,
    "mixing": float,
    "seed": int,
    "separation": float,
}

Loaded = tuple[AttributedGraph, NDArray[np.int64] | None]


def load(spec: str, *, knn: int = 0, knn_metric: str = "euclidean") -> Loaded:
    """Load and check a data set; labels int64 [N] in 0..K-1 come back beside the graph, never in it.

    `spec` is, in this order: a known name without slash or suffix (`cora`, `digits`, `planted:nodes=500,seed=1`; write
    `./cora` for a file or folder of that name), s3://..., a folder, a file, or the NAME of a NAME.npz in TESSERA_DATA.
    `knn` > 0 links every row of a feature table without edges to its nearest others; digits takes 10 by itself.
    Raises DataError for input that is missing or malformed, SettingsError for a wrong `knn`, metric or planted value.
    """
    check_knn(knn, knn_metric)
    name, _, parameters = spec.partition(":")
    bare = _is_bare(name) and "://" not in spec
    known = canonical(name) if bare else None
    key = name.strip().lower()
    if bare and key == "planted":
        return _planted(parameters, knn)
    if parameters and bare and (known or key == "digits"):
        raise SettingsError(f"--dataset {spec}: {name} takes no parameters; only planted does")
    if bare and key == "digits":
        return finish(_digits(), knn or DIGITS_KNN, knn_metric)
    if known:
        graph, labels = finish(read_named(known), knn, knn_metric)
        if os.path.exists(name):
            graph = graph.with_notes(f"{name!r} is read as the known name; write ./{name} for the path")
        return graph, labels
    return finish(_from_path(spec, bare), knn, knn_metric)


def read_rows(spec: str, known: NDArray[Any] | None = None) -> Raw:
    """What `load` reads, unchecked and without labels, for rows that come to a trained model: edges may be missing.

    In a folder whose features have ids, edges may also end in the ids `known` of other nodes (`read_folder`).
    Raises as `load` does for what cannot be read.
    """
    name = spec.partition(":")[0]
    bare = _is_bare(name) and "://" not in spec
    canon = canonical(name) if bare else None
    if canon:
        return replace(read_named(canon), labels=None)
    key = name.strip().lower()
    if bare and key == "digits":
        return replace(_digits(), labels=None)
    if bare and key == "planted":
        graph, _ = load(spec)
        return Raw(graph.name, spec, graph.x, graph.edge_index)
    path = os.path.expanduser(spec)
    raw = read_folder(Path(path), known) if spec and os.path.isdir(path) else _from_path(spec, bare)
    return replace(raw, labels=None)


def table_file(spec: str) -> Path | None:
    """The one file of a feature table without edges (.csv .parquet .npy, or a folder of only that), else None.

    DataError for a folder that may not be read.
    """
    path = Path(os.path.expanduser(spec))
    if os.path.isdir(path):
        with reading(path):
            parts = {p.stem: p for p in path.iterdir() if not p.name.startswith(".")}
        path = parts.get("features", path) if "edges" not in parts else path
    return path if os.path.isfile(path) and path.suffix.lower() in (".csv", ".parquet", ".npy") else None


def known_names() -> list[str]:
    """Every name `load` knows, aliases included, sorted."""
    return sorted({"digits", "planted", *SOURCES, *ALIASES})


def _from_path(spec: str, bare: bool) -> Raw:
    if is_s3(spec):
        return read_remote(spec)
    path = os.path.expanduser(spec)
    if spec and os.path.isdir(path):
        return read_folder(Path(path))
    if os.path.exists(path):
        return read_file(Path(path))
    if bare:
        own = data_file(spec)
        if own is not None:
            return read_file(own)
        raise DataError(_unknown(spec))
    if "://" in spec:
        raise DataError(f"{spec}: only local files, folders and s3:// can be read; download it first")
    stem = canonical(Path(path).stem)
    hint = f"; the known data set is --dataset {stem}" if stem else ""
    raise DataError(f"{spec}: no such file or folder{hint}")


def _is_bare(name: str) -> bool:
    return not (set(name) & {"/", os.sep}) and not name.startswith(("~", ".")) and not Path(name).suffix


def _unknown(spec: str) -> str:
    near = difflib.get_close_matches(spec.lower(), known_names(), n=3)
    return (
        f"{spec!r}: no such data set, file or folder; "
        + (f"nearest names: {', '.join(near)}; " if near else "")
        + f"known names: {', '.join(known_names())}; or give a file ({' '.join(SUFFIXES)}) or a folder with features.* "
        "and edges.*"
    )


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Raw("digits", "digits", bunch.data.astype(np.float32) / 16, labels=bunch.target)


def _planted(parameters: str, knn: int) -> Loaded:
    if knn:
        raise SettingsError(f"--knn {knn}: planted has edges; --knn is for feature tables")
    values: dict[str, int | float] = {}
    for part in filter(None, parameters.split(",")):
        key, _, text = (s.strip() for s in part.partition("="))
        if key not in _PLANTED:
            raise SettingsError(f"--dataset planted: unknown {key!r}; allowed: {', '.join(_PLANTED)}")
        try:
            values[key] = _PLANTED[key](text)
        except ValueError:
            kind = "a whole number" if _PLANTED[key] is int else "a number"
            raise SettingsError(f"--dataset planted: {key}={text} must be {kind}") from None
    return planted_graph(**values)  # type: ignore[arg-type]
