"""Where a finished run is read from: a folder, or a bucket."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from ops.atomic_io import inside
from ops.errors import DataError, SettingsError
from ops.storage import s3
from ops.storage.run_dir import scratch

FILES = ("result.json", "trials.json", "assignments.parquet", "model/settings.json", "model/model.safetensors")


@cache  # settings, model and ids are asked for one after the other
def local_folder(run: str) -> Path:
    """The folder of this machine that holds `run`: the one place where one kind of address is told from another.

    Of s3://BUCKET/OUT/NAME the results and the model are fetched into scratch for as long as this process lives.
    Raises SettingsError for an address of another kind, DataError where nothing is there, ServiceError.
    """
    if not s3.is_s3(run):
        if "://" in run:
            raise SettingsError(f"{run}: give a run's folder OUT/NAME or s3://BUCKET/OUT/NAME")
        return Path(run).expanduser()
    there = s3.parse(run)
    names = [name for name in s3.listing(there) if name.removeprefix("best/") in FILES]
    if not names:
        raise DataError(f"{run}: there is no finished run; give s3://BUCKET/OUT/NAME")
    here = Path(tempfile.mkdtemp(dir=scratch(), prefix="read-"))
    atexit.register(shutil.rmtree, here, ignore_errors=True)
    for name in names:
        s3.download(there / name, inside(here, name))
    return here
