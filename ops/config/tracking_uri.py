"""Where MLflow is: the tracking URI, checked before any work starts."""

import os
import re
import shlex
from pathlib import Path

from ops.errors import SettingsError
from ops.masking import shown

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")


def default_uri(out: Path) -> str:
    """MLFLOW_TRACKING_URI where it is set, else a SQLite file in the output folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{out.resolve()}/mlflow.db"


def check_uri(uri: str) -> str:
    """The URI, of a kind that MLflow takes and with an absolute path; raises SettingsError otherwise."""
    scheme = re.split("[:+]", uri.lower())[0]
    if scheme not in SCHEMES or (scheme != "databricks" and "://" not in uri):
        kinds = "sqlite:////absolute/path/mlflow.db, http(s)://HOST:PORT or a database's URI"
        raise SettingsError(f"tracking URI {shown(uri)!r} is of no kind that MLflow takes; give {kinds}")
    if scheme != "sqlite":
        return uri
    path = uri.partition(":///")[2].partition("?")[0]
    if path in ("", ":memory:"):
        raise SettingsError(f"tracking URI {uri!r} names no file; give sqlite:////absolute/path/mlflow.db")
    file = Path(path).absolute()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"tracking URI {uri!r}: {file.parent} cannot be made ({error.strerror})") from None
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise SettingsError(f"tracking URI {uri!r}: {file} cannot be written; choose another place for the SQLite file")
    return f"sqlite:///{file}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a checked SQLite URI, None for another URI."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:") else None


def ui_command(uri: str) -> str:
    """The command that opens MLflow's UI on this store, or the address of the server that has one."""
    if uri.startswith(("http", "databricks")):
        return shown(uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(shown(uri))} --host 127.0.0.1 --port 5000"
