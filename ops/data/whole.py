"""Graphs that are read whole, once a process, for all their chunks."""

from __future__ import annotations

import os
from functools import lru_cache

from ops.data.io.sources import source
from ops.data.types.hetero import HeteroGraph


@lru_cache(maxsize=1)
def loaded(spec: str, stamp: str) -> HeteroGraph:
    """The graph of a small input; `stamp` tells one content of its file from another."""
    from ops.data.hetero_load import load_whole

    return load_whole(spec)[0]


def stamp_of(spec: str) -> str:
    """The stamp of a file of this machine; empty for anything else."""
    path = os.path.expanduser(spec)
    return source(path).stamp if os.path.isfile(path) else ""
