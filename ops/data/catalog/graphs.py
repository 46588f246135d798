"""Data sets by name: a file in TESSERA_DATA, then the cache, then torch_geometric's download into the cache.

The downloading runs in a process of its own (`ops.data.catalog.download_graph`): torch_geometric loads files
of its own by `torch.load` and has no timeouts; neither happens in this process.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ops.data.io.builder import Raw
from ops.data.io.npz import read_file
from ops.data.io.readers import cache_file
from ops.errors import DataError

log = logging.getLogger(__name__)

FIRST_BYTE_S = 45  # the start of Python and torch_geometric included
_DOWNLOAD_S = 1800


@dataclass(frozen=True)
class Download:
    """A class of torch_geometric.datasets and its arguments after `root`."""

    dataset: str
    arguments: dict[str, Any] = field(default_factory=dict)


# None: torch_geometric has no such graph, so only a file can bring it. Where two editions exist, papers on deep
# clustering use these; HSAN's own citeseer has 124 self loops that Planetoid's has not, and its bat, eat and uat are
# Airports with the one-hot degree as features (torch_geometric: the identity), which download_graph.py makes.
SOURCES: dict[str, Download | None] = {
    "cora": Download("Planetoid", {"name": "Cora"}),
    "citeseer": Download("Planetoid", {"name": "CiteSeer"}),
    "pubmed": Download("Planetoid", {"name": "PubMed"}),
    "amap": Download("Amazon", {"name": "photo"}),
    "amac": Download("Amazon", {"name": "computers"}),
    "bat": Download("Airports", {"name": "brazil"}),
    "eat": Download("Airports", {"name": "europe"}),
    "uat": Download("Airports", {"name": "usa"}),
    "coauthor_cs": Download("Coauthor", {"name": "cs"}),
    "coauthor_physics": Download("Coauthor", {"name": "physics"}),
    "facebook_pagepage": Download("FacebookPagePage"),
    "wikics": Download("WikiCS", {"is_undirected": True}),
    "github": Download("GitHub"),
    "lastfm_asia": Download("LastFMAsia"),
    "deezer_europe": Download("DeezerEurope"),
    "wiki": Download("AttributedGraphDataset", {"name": "wiki"}),
    "blogcatalog": Download("AttributedGraphDataset", {"name": "blogcatalog"}),
    "flickr": Download("AttributedGraphDataset", {"name": "flickr"}),
    "facebook": Download("AttributedGraphDataset", {"name": "facebook"}),
    "ppi": Download("AttributedGraphDataset", {"name": "ppi"}),
    "cora_full": Download("CitationFull", {"name": "cora"}),
    "cora_ml": Download("CitationFull", {"name": "cora_ml"}),
    "dblp_full": Download("CitationFull", {"name": "dblp"}),
    "cornell": Download("WebKB", {"name": "cornell"}),
    "texas": Download("WebKB", {"name": "texas"}),
    "wisconsin": Download("WebKB", {"name": "wisconsin"}),
    "acm": None,
    "dblp": None,
    "usps": None,
    "hhar": None,
    "reuters": None,
}
TABLES = ("usps", "hhar", "reuters")  # without edges: they take --knn
ALIASES = {"photo": "amap", "computers": "amac", "physics": "coauthor_physics", "cs": "coauthor_cs"}


def canonical(name: str) -> str | None:
    """The known name behind a name or alias in any case, or None."""
    key = name.strip().lower().replace("-", "_")
    key = ALIASES.get(key, key)
    return key if key in SOURCES else None


def data_file(name: str) -> Path | None:
    """NAME.npz in the folder TESSERA_DATA if that is set and has it; DataError where the folder is missing."""
    folder = os.environ.get("TESSERA_DATA", "")
    if not folder:
        return None
    if not os.path.isdir(os.path.expanduser(folder)):
        raise DataError(f"TESSERA_DATA={folder}: no such folder")
    path = Path(folder).expanduser() / f"{name}.npz"
    return path if os.path.isfile(path) else None  # not path.is_file(): it raises for a name that is too long


def read_named(name: str) -> Raw:
    """Read the data set of a canonical name; downloads it where no file is there (DataError where that fails)."""
    path = data_file(name)
    if path is None:
        path = cache_file(name)
        if not path.is_file():
            _download(name, path)
    return replace(read_file(path), name=name)


def _download(name: str, path: Path) -> None:
    if SOURCES[name] is None:
        edges = "" if name in TABLES else ", edge_index=EDGES"
        advice = f"make it by numpy.savez('{path.name}', x=FEATURES{edges}, y=CLASSES)"
        raise DataError(_missing(name, path, f"torch_geometric offers no download of it: {advice}"))
    log.info("downloading %s to %s", name, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=path.parent) as folder:
            reason = fetch_apart("ops.data.catalog.download_graph", name, Path(folder), "graph.npz")
            if not reason:
                os.replace(Path(folder) / "graph.npz", path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); set TESSERA_CACHE to another folder") from error
    if reason:
        raise DataError(_missing(name, path, f"the download failed ({reason})"))


def _missing(name: str, path: Path, why: str) -> str:
    folder = os.environ.get("TESSERA_DATA", "")
    looked = f"{Path(folder) / path.name} or {path}" if folder else f"{path} (TESSERA_DATA is not set)"
    return (
        f"{name}: no file {looked}, and {why}; put {path.name} in a folder and set TESSERA_DATA to it, "
        "or give the data as --dataset PATH"
    )


def fetch_apart(module: str, name: str, folder: Path, wanted: str) -> str:
    """Run `python -m module name folder`; "" when FOLDER/wanted is there then, else the reason in one line."""
    root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
    # the module is ours and the name one of those it knows
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, "-W", "ignore", "-m", module, name, str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(output := (folder / "log").open("wb")),
    )
    try:
        late = _wait(child, folder)
    finally:
        child.kill()
        child.wait()
        output.close()
    if late:
        return late
    if child.returncode == 0 and (folder / wanted).is_file():
        return ""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"ended with code {child.returncode}"


def _wait(child: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait for the end; the reason to stop where nothing arrives, or it takes for ever."""
    start = time.monotonic()
    while True:
        try:
            child.wait(timeout=0.2)
            return ""
        except subprocess.TimeoutExpired:
            passed = time.monotonic() - start
        if passed > _DOWNLOAD_S:
            return f"not done after {_DOWNLOAD_S} s"
        if passed > FIRST_BYTE_S and not any(p.stat().st_size for p in folder.glob("*/**/*") if p.is_file()):
            return f"nothing arrived in {FIRST_BYTE_S} s"
