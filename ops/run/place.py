"""Where a run lives: its identity, its name, its folder and the lock on it (design decision 2)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ops.errors import SettingsError
from ops.run.checkpoint import write_json
from ops.run.results import read_json

RUN_FILE, LOCK_FILE, PROBE = "run.json", ".lock", ".write-test"


def identity(method: str, settings: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """What makes two runs the same but for the seed: method, resolved settings, hash of features and edges."""
    return {"method": method, "settings": dict(settings), "data": digest}


def fingerprint(value: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def default_name(method: str, dataset: str, value: Mapping[str, Any]) -> str:
    """METHOD-DATASET-first 8 characters of the identity."""
    clean = re.sub(r"[^a-z0-9_.]+", "-", dataset.lower()).strip("-.") or "data"
    return f"{method}-{clean[:40]}-{fingerprint(value)[:8]}"


def open_folder(out: str, name: str) -> Path:
    """OUT/NAME, made if need be. Raises SettingsError where the name is no plain name or nothing can be written."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", name):
        raise SettingsError(f"--name {name!r}: allowed are letters, digits and . _ - (at most 120, no folder)")
    if "://" in out:
        raise SettingsError(f"--out {out}: results go to a folder of this machine so far; give its path")
    folder = Path(out).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / PROBE
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise SettingsError(f"--out {out}: cannot be written ({error.strerror}); give a folder that can") from None
    return folder


@contextmanager
def lock(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock, which dies with the process; `wait` for it, or raise SettingsError while it is held."""
    with (folder / LOCK_FILE).open("a+") as file:
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


def claim(folder: Path, value: Mapping[str, Any], *, fresh: bool) -> None:
    """Write the identity into a new folder, or check it against the one there; `fresh` empties the folder first.

    Raises SettingsError naming the keys that differ where the name belongs to another run.
    """
    run_file = folder / RUN_FILE
    files = [p for p in folder.iterdir() if p.name not in (LOCK_FILE, PROBE, f".{RUN_FILE}.tmp")]
    if files and not run_file.exists():  # not even `fresh` may empty what is no run's
        raise SettingsError(f"{folder}: holds files that are no run's ({files[0].name}); give another --name")
    if fresh:
        for path in sorted(files, key=lambda p: p == run_file):  # the identity last: a kill leaves a run's folder
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    there = read_json(run_file)
    if there is None:
        if run_file.exists():
            raise SettingsError(f"{run_file}: is damaged; give another --name, or --fresh")
        write_json(run_file, value)
        return
    if there == json.loads(json.dumps(value)):
        return
    old, new = there.get("settings", {}), value["settings"]
    keys = [f"{k} ({old.get(k)} there, {new.get(k)} now)" for k in old | new if old.get(k) != new.get(k)]
    keys += [k for k in ("method", "data") if there.get(k) != value[k]]
    raise SettingsError(f"{folder}: is another run: {', '.join(keys)} differ; give another --name, or --fresh")
