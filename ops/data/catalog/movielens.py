"""ml-100k, read from the files that RecBole's wheel carries: a folder, an installed recbole, or its wheel from PyPI."""

import hashlib
import importlib.util
import os
from pathlib import Path

from ops.data.catalog.download import download
from ops.data.io.readers import cache_file, file_at
from ops.data.io.recbole import read_recbole
from ops.data.types.hetero import HeteroGraph
from ops.errors import DataError

NAMES = ("ml-100k", "ml_100k", "ml100k")
NAME, WHEEL = "ml-100k", "recbole==1.2.1"
WITHIN = f"dataset_example/{NAME}"
# bytes and SHA-256 of the files in that wheel
SUMS = {
    "inter": (1979230, "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
    "item": (66632, "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
    "user": (22697, "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972"),
}


def read_ml100k() -> HeteroGraph:
    """943 users, 1,682 notes (films) and their ratings 3, 4, 5 as follow_note, comment_note, share_note with times.

    Looked for in TESSERA_DATA/ml-100k, an installed recbole (which is not imported), the cache; then the wheel is
    fetched from the package index. Raises DataError where none of it works or a file is not the known one.
    """
    folder = _folder()
    files = {}
    for kind, (size, digest) in SUMS.items():
        path = folder / f"{NAME}.{kind}"
        if not path.is_file():
            raise DataError(f"{path}: no such file; ml-100k needs .inter, .item and .user in one folder")
        if path.stat().st_size != size or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise DataError(f"{path}: is not the file of {WHEEL} (size or SHA-256 differs); remove it, or give its "
                            "folder as --dataset PATH to use it as it is")  # fmt: skip
        files[kind] = file_at(str(path))
    return read_recbole(NAME, files)


def _folder() -> Path:
    """The first folder there is: the user's, an installed recbole's, the cache's."""
    given = os.environ.get("TESSERA_DATA", "")
    if given and os.path.isdir(folder := Path(given).expanduser() / NAME):
        return folder
    spec = importlib.util.find_spec("recbole")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (folder := Path(place) / WITHIN).is_dir():
            return folder
    cached = cache_file("x").parent / NAME
    reason = "" if os.path.isdir(cached) else download(NAME, NAME, cached)
    if reason:
        raise DataError(
            f"{NAME}: the download of {WHEEL} failed ({reason}); pip install {WHEEL} --no-deps, or put {NAME}.inter, "
            f".item and .user of that package's {WITHIN} into a folder {NAME} and set TESSERA_DATA to the folder above "
            "it"
        )
    return cached
