"""Images on S3, by way of the local cache: a Parquet file, or all images or Parquet files below a prefix."""

from __future__ import annotations

from pathlib import Path

from ops.data.images.sources import SUFFIXES
from ops.data.io.remote import copy_wanted


def images_copy(spec: str, tables: bool = False) -> Path:
    """The file or folder of images on S3 in the local cache, as fresh as it is there; `tables`: .npy and .csv too.

    Raises DataError where nothing is there, ServiceError where storage cannot be asked.
    """
    endings = (*SUFFIXES, ".parquet", *((".npy", ".csv") if tables else ()))
    advice = "give a Parquet file or a folder of images"
    return copy_wanted(
        spec, lambda name: name.lower().endswith(endings) and "/." not in f"/{name}", "no images", advice, deep=True
    )
