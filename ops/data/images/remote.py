"""Images on S3, by way of the local cache: a Parquet file, or all images or Parquet files below a prefix."""

from __future__ import annotations

from pathlib import Path

from ops.data.images.sources import SUFFIXES
from ops.data.io.remote import cached_copy
from ops.errors import DataError
from ops.storage import s3


def images_copy(spec: str, tables: bool = False) -> Path:
    """The file or folder of images on S3 in the local cache, as fresh as it is there; `tables`: .npy and .csv too.

    Raises DataError where nothing is there, ServiceError where storage cannot be asked.
    """
    place = s3.parse(spec)
    try:
        if place.key:
            return cached_copy(place, {place.name: s3.stat(place)}, False)
    except s3.Missing:
        pass
    wanted = (*SUFFIXES, ".parquet", *((".npy", ".csv") if tables else ()))
    below = s3.listing(place)
    objects = {n: s for n, s in below.items() if n.lower().endswith(wanted) and not f"/{n}".count("/.")}
    if not objects:
        what = f"holds {', '.join(sorted(below)[:3])}, but no images" if below else "no such object or folder"
        raise DataError(f"{place}: {what} (endpoint {s3.endpoint()}); give a Parquet file or a folder of images")
    return cached_copy(place, objects, True)
