"""Tessera in Python: `import tessera; tessera.HSAN(n_clusters="auto").fit("table.csv").labels_`.

Every method by name in scikit-learn's words, and `load` for what was trained; a method is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from os import PathLike, fspath
from typing import Any

_CLASSES = {
    "caegcn": "CaEGCN",
    "degree": "Degree",
    "dmon": "DMoN",
    "hadis": "HaDis",
    "hgt": "HGT",
    "hsan": "HSAN",
    "ns4gc": "NS4GC",
    "s2cag": "S2CAG",
    "sagsc": "SAGSC",
    "sdcn": "SDCN",
    "ssgc": "SSGC",
    "twhin": "TwHIN",
}
_NAMES = sorted([*_CLASSES.values(), "__version__", "load"])


def __getattr__(name: str) -> Any:
    """An estimator by its name, or the version."""
    if name == "__version__":
        return version("tessera")
    method = next((method for method, each in _CLASSES.items() if each == name), None)
    if method is None:
        raise AttributeError(f"module 'tessera' has no attribute {name!r}; it has {', '.join(_NAMES)}")
    return getattr(import_module("trainers.caegcn" if method == "sdcn" else f"trainers.{method}"), name)


def __dir__() -> list[str]:
    return _NAMES


def load(place: str | PathLike[str], tracking_uri: str | None = None) -> Any:
    """The fitted estimator of a saved folder, a finished run or search (also s3://...), or models:/NAME@ALIAS.

    Raises DataError for what is none of these.
    """
    from ops.inference.estimator_files import load_estimator

    return load_estimator(fspath(place), lambda method: __getattr__(_CLASSES[method]), tracking_uri)
