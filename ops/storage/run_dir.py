"""Where a run lives: its identity, its name, its folder and the lock on it (design decision 2).

A run for S3 lives in a scratch folder of this machine, which `ops.storage.mirror` keeps the same in the bucket.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from operator import truediv
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from ops.atomic_io import read_json, write_json
from ops.errors import SettingsError, naming
from ops.storage.location import Location, is_s3, parse
from ops.storage.object_store import listing

RUN_FILE, LOCK_FILE, PROBE = "run.json", ".lock", ".write-test"
MARK_FILE = ".mirror.json"  # whose image in the bucket the folder is
BIRTH_FILE = ".birth"  # tells the folder from a later one of the same name and inode
_NO_FILES_OF_THE_RUN = (LOCK_FILE, PROBE, MARK_FILE, BIRTH_FILE, f".{RUN_FILE}.tmp", f".{BIRTH_FILE}.tmp")


@runtime_checkable
class Launch(Protocol):
    """What is asked of here of a command: `--out` (a folder or s3://BUCKET/PREFIX) and `--scratch`."""

    out: str
    scratch: str


def identity(method: str, settings: Mapping[str, object], digest: str) -> dict[str, object]:
    """What makes two runs the same but for the seed: method, resolved settings, hash of features and edges."""
    return {"method": method, "settings": dict(settings), "data": digest}


def fingerprint(value: Mapping[str, object]) -> str:
    """SHA-256 of an identity, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def default_name(method: str, dataset: str, value: Mapping[str, object]) -> str:
    """METHOD-DATASET-first 8 characters of the identity."""
    clean = re.sub(r"[^a-z0-9_.]+", "-", dataset.lower()).strip("-.") or "data"
    return f"{method}-{clean[:40]}-{fingerprint(value)[:8]}"


def scratch(chosen: str = "") -> Path:
    """The folder for runs that belong on S3: the chosen one, or this user's below the system's temporary folder.

    Raises SettingsError where it cannot be made, or somebody else has made it.
    """
    folder = Path(chosen).expanduser().absolute() if chosen else Path(tempfile.gettempdir()) / f"tessera-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    except OSError as error:
        raise SettingsError(f"--scratch {folder}: cannot be made ({error.strerror}); give another folder") from None
    if not chosen and owner != os.getuid():
        raise SettingsError(f"--scratch {folder}: belongs to another user; give a folder of your own")
    return folder


def local_out(launch: Launch) -> Path:
    """The folder of this machine in which runs for `--out` are worked on: OUT itself, or scratch/BUCKET/PREFIX.

    Raises SettingsError for a place that is neither a folder nor on S3.
    """
    if (place := remote(launch)) is not None:
        return scratch(launch.scratch) / place.bucket / place.key
    _check_out(launch.out)
    folder = Path(launch.out).expanduser()
    if _thrown_away(folder):
        raise SettingsError(
            f"--out {launch.out}: is in the job's copy of --working-dir, which is thrown away; "
            "give an absolute folder, or s3://BUCKET/PREFIX"
        )
    return folder


def _thrown_away(folder: Path) -> bool:
    """Whether a folder is in a Ray job's copy of its working directory, on whatever node the driver runs."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    copied = (job.get("runtime_env") or {}).get("working_dir")
    return bool(copied) and folder.resolve().is_relative_to(Path.cwd().resolve())


def remote(launch: Launch, *names: str) -> Location | None:
    """Where OUT/NAME... is on S3, None where OUT is a folder."""
    if not is_s3(launch.out):
        return None
    return reduce(truediv, names, parse(launch.out))


def check_remote(launch: Launch) -> None:
    """Ask the bucket of `--out` anything before data are loaded. Raises ServiceError, or SettingsError for scratch."""
    if (place := remote(launch)) is not None:
        local_out(launch)
        listing(place, start=PROBE, deep=False)


def shown(launch: Launch, path: Path) -> str:
    """A path below `local_out` as the user knows it: the URI where it is for S3."""
    if not is_s3(launch.out):
        return str(path)
    return str(remote(launch, *path.relative_to(local_out(launch)).parts))


def open_folder(out: str, name: str) -> Path:
    """OUT/NAME, made if need be. Raises SettingsError where the name is no plain name or nothing can be written."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", name):
        raise SettingsError(f"--name {name!r}: allowed are letters, digits and . _ - (at most 120, no folder)")
    _check_out(out)
    folder = Path(out).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _opened(folder / PROBE).close()
        (folder / PROBE).unlink()
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}); give a folder that can") from None
    return folder


def _opened(path: Path) -> IO[str]:
    """A file of the run's folder to read and append to, made if need be; OSError where it is a symbolic link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a+")


def _check_out(out: str) -> None:
    if "://" in out:
        raise SettingsError(f"--out {out}: results go to a folder or to s3://BUCKET/PREFIX; give one of them")


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock, which dies with the process; `wait` for it, or raise SettingsError while it is held."""
    try:
        file = _opened(folder / LOCK_FILE)
    except OSError as error:
        raise SettingsError(f"{folder / LOCK_FILE}: cannot be locked ({error.strerror}); remove it") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise SettingsError(
                f"{folder}: process {file.read().strip() or 'unknown'} is at work on this run; "
                "wait for it, end it, or give another --name"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def refuse_links(folder: Path) -> None:
    """Raise SettingsError for a symbolic link in a run's folder: what is written to it would lie elsewhere."""
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in (*folders, *files)):
            if path.is_symlink():
                raise SettingsError(f"{path}: is a symbolic link, which no run's folder may hold; remove it")


def claim(folder: Path, value: Mapping[str, object], *, fresh: bool, name: str = "") -> None:
    """Write the identity into a new folder, or check it against the one there; `fresh` empties the folder first.

    Raises SettingsError naming the keys that differ where the name belongs to another run; `name`: what messages call
    the folder.
    """
    with naming(folder, name or str(folder)):
        run_file = folder / RUN_FILE
        files = [p for p in folder.iterdir() if p.name not in _NO_FILES_OF_THE_RUN]
        if files and not run_file.exists():  # not even `fresh` may empty what is no run's
            raise SettingsError(f"{folder}: holds files that are no run's ({files[0].name}); give another --name")
        if fresh:
            for path in sorted(files, key=lambda p: p == run_file):  # the identity last: a kill leaves a run's folder
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        refuse_links(folder)
        there = read_json(run_file)
        if there is None or not isinstance(there.get("settings"), dict):
            if run_file.exists():
                raise SettingsError(f"{run_file}: is damaged; give another --name, or --fresh")
            write_json(run_file, value)
            return
        now = json.loads(json.dumps(value))
        if there == now:
            return
        old, new = there["settings"], now["settings"]
        differ = [k for k in old | new if old.get(k) != new.get(k)]
        keys = [f"{k} ({old.get(k, 'not set')} there, {new.get(k, 'not set')} now)" for k in differ]
        keys += [k for k in ("method", "data", "warm") if there.get(k) != now.get(k)]
        raise SettingsError(f"{folder}: is another run: {', '.join(keys)} differ; give another --name, or --fresh")


TRIAL, RAY = "trial-", "ray"
