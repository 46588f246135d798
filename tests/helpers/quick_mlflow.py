"""What MLflow does slowly and always alike is done once: the migrations of its database, its look at all packages."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ops.config.tracking_uri import sqlite_file
from ops.tracking import store, tracker

connect = store.connect


@cache
def empty_database() -> bytes:
    """A database as MLflow makes it, without our experiment, which knows its place on disk."""
    folder = Path(tempfile.mkdtemp())
    connect(f"sqlite:///{folder}/mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("delete from experiments where name = 'tessera'")
    content = (folder / "mlflow.db").read_bytes()
    shutil.rmtree(folder)
    return content


def quick_connect(uri: str) -> tuple[Any, str]:
    """`connect`, to a copy of the empty database where there is none."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        part = file.with_name(f"mlflow-{os.getpid()}.db")
        part.write_bytes(empty_database())
        with suppress(FileExistsError):
            os.link(part, file)
        part.unlink()
    return connect(uri)


def install() -> None:
    """For all trainings of this process, which also give up a required server that is away soon."""
    tracker.connect = quick_connect
    tracker.PATIENCE = 3.0


def warm_up() -> None:
    """Before a process forks others."""
    import mlflow.pyfunc
    from mlflow.utils import requirements_utils

    assert mlflow.pyfunc
    empty_database()
    requirements_utils._init_modules_to_packages_map()
