"""Checkpoints that load exactly or not at all: a temporary folder, checksums, one rename; no pickle.

A checkpoint is a folder `epoch-00000120` with `shared.safetensors`, `part-00000.safetensors` ..., `shared.json` and
`checksums.json`. Two are kept. A damaged one is passed over with a warning for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ops.api import State
from ops.atomic_io import sync, unwritable
from ops.errors import ResourceError
from ops.results.model_store import plain_tensors

KEEP = 2
_CHECKSUMS = "checksums.json"


def save(folder: Path, state: State) -> Path:
    """Write `state` as the newest checkpoint of `folder` and drop all but two. Raises ResourceError on a full disk."""
    final = folder / f"epoch-{state.epoch:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write_files(temporary, state)
        sums = {p.name: _digest(p) for p in sorted(temporary.iterdir())}
        (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
        sync(temporary / _CHECKSUMS)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(final, error) from None
        raise ResourceError(f"{final}: {error}; free some space and start the same command again") from None
    for old in sorted(folder.glob("epoch-*"))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_latest(folder: Path) -> State | None:
    """The newest checkpoint whose files carry their checksums, or None; damaged ones are warned of and passed over."""
    for path in sorted(folder.glob("epoch-*"), reverse=True):
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            warnings.warn(f"{path} is damaged ({error}) and passed over", stacklevel=2)
    return None


def _write_files(folder: Path, state: State) -> None:
    tensors = {k: v for k, v in state.shared.items() if isinstance(v, Tensor)}
    save_file(plain_tensors(tensors), folder / "shared.safetensors")
    for part, arrays in state.parts.items():
        save_file(plain_tensors(arrays), folder / f"part-{part:05d}.safetensors")
    rest = {k: v for k, v in state.shared.items() if not isinstance(v, Tensor)}
    (folder / "shared.json").write_text(json.dumps({"epoch": state.epoch, "shared": rest}))
    for path in folder.iterdir():
        sync(path)


def _load(path: Path) -> State:
    sums = json.loads((path / _CHECKSUMS).read_text())
    if not isinstance(sums, dict) or {*sums, _CHECKSUMS} != {p.name for p in path.iterdir()}:
        raise ValueError("its files are not those of its checksums")
    for name, digest in sums.items():
        if _digest(path / name) != digest:
            raise ValueError(f"checksum of {name} differs")
    head = json.loads((path / "shared.json").read_text())
    shared: dict[str, Any] = head["shared"] | load_file(path / "shared.safetensors")
    parts = {int(p.stem.removeprefix("part-")): load_file(p) for p in sorted(path.glob("part-*.safetensors"))}
    return State(int(head["epoch"]), shared, parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
