"""Data sets by name: a file in TESSERA_DATA, then the cache, then torch_geometric's download into the cache.

The downloading (`ops.data.catalog.fetch`) runs in another process, as torch_geometric loads files by `torch.load`.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ops.data.catalog.download import download, in_data_folder
from ops.data.io.builder import Raw
from ops.data.io.npz import read_file
from ops.data.io.readers import cache_file
from ops.errors import DataError


@dataclass(frozen=True)
class Source:
    """A class of torch_geometric.datasets and its arguments after `root`."""

    dataset: str
    arguments: dict[str, Any] = field(default_factory=dict)


# None: torch_geometric has no such graph, so only a file can bring it. Where two editions exist, papers on deep
# clustering use these; HSAN's own citeseer has 124 self loops that Planetoid's has not, and its bat, eat and uat are
# Airports with the one-hot degree as features (torch_geometric: the identity), which fetch.py makes.
SOURCES: dict[str, Source | None] = {
    "cora": Source("Planetoid", {"name": "Cora"}),
    "citeseer": Source("Planetoid", {"name": "CiteSeer"}),
    "pubmed": Source("Planetoid", {"name": "PubMed"}),
    "amap": Source("Amazon", {"name": "photo"}),
    "amac": Source("Amazon", {"name": "computers"}),
    "bat": Source("Airports", {"name": "brazil"}),
    "eat": Source("Airports", {"name": "europe"}),
    "uat": Source("Airports", {"name": "usa"}),
    "coauthor_cs": Source("Coauthor", {"name": "cs"}),
    "coauthor_physics": Source("Coauthor", {"name": "physics"}),
    "facebook_pagepage": Source("FacebookPagePage"),
    "wikics": Source("WikiCS", {"is_undirected": True}),
    "github": Source("GitHub"),
    "lastfm_asia": Source("LastFMAsia"),
    "deezer_europe": Source("DeezerEurope"),
    "wiki": Source("AttributedGraphDataset", {"name": "wiki"}),
    "blogcatalog": Source("AttributedGraphDataset", {"name": "blogcatalog"}),
    "flickr": Source("AttributedGraphDataset", {"name": "flickr"}),
    "facebook": Source("AttributedGraphDataset", {"name": "facebook"}),
    "ppi": Source("AttributedGraphDataset", {"name": "ppi"}),
    "cora_full": Source("CitationFull", {"name": "cora"}),
    "cora_ml": Source("CitationFull", {"name": "cora_ml"}),
    "dblp_full": Source("CitationFull", {"name": "dblp"}),
    "cornell": Source("WebKB", {"name": "cornell"}),
    "texas": Source("WebKB", {"name": "texas"}),
    "wisconsin": Source("WebKB", {"name": "wisconsin"}),
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


def read_named(name: str) -> Raw:
    """Read the data set of a canonical name; downloads it where no file is there (DataError where that fails)."""
    path = in_data_folder(f"{name}.npz") or cache_file(name)
    if not os.path.isfile(path):
        if SOURCES[name] is None:
            edges = "" if name in TABLES else ", edge_index=EDGES"
            how = f"make it by numpy.savez('{path.name}', x=FEATURES{edges}, y=CLASSES)"
            lacks = f"torch_geometric offers no download of it: {how}"
        else:
            reason = download(name, "graph.npz", path)
            lacks = f"the download failed ({reason})" if reason else ""
        if lacks:
            folder = os.environ.get("TESSERA_DATA", "")
            looked = f"{Path(folder) / path.name} or {path}" if folder else f"{path} (TESSERA_DATA is not set)"
            raise DataError(
                f"{name}: no file {looked}, and {lacks}; put {path.name} in a folder and set TESSERA_DATA to it, "
                "or give the data as --dataset PATH"
            )
    return replace(read_file(path), name=name)
