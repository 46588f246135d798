"""Checkpoints that load exactly or not at all: a temporary folder, checksums, one rename; no pickle.

A checkpoint is a folder `epoch-00000120` with `shared.safetensors`, `part-00000.safetensors` ..., `shared.json` and
`checksums.json`. Two are kept. A damaged one is passed over with a warning for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ops.errors import ResourceError
from ops.run.types import State

KEEP = 2
_CHECKSUMS = "checksums.json"


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write to a temporary name beside `path`, flush to disk, rename. Raises ResourceError on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ResourceError(f"{path}: {error.strerror}; free some space and start the same command again") from None


def write_json(path: Path, value: Any) -> None:
    """`atomic_write` of indented JSON; NaN becomes null, so that every reader can read it."""
    atomic_write(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """The value with NaN and infinities as None, mappings and sequences as dict and list."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return None
    return value


def save(folder: Path, state: State) -> Path:
    """Write `state` as the newest checkpoint of `folder` and drop all but two. Raises ResourceError on a full disk."""
    final = folder / f"epoch-{state.epoch:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write_files(temporary, state)
        sums = {p.name: _digest(p) for p in sorted(temporary.iterdir())}
        atomic_write(temporary / _CHECKSUMS, json.dumps(sums, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"{final}: {reason}; free some space and start the same command again") from None
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
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / "shared.safetensors")
    for part, arrays in state.parts.items():
        save_file(dict(arrays), folder / f"part-{part:05d}.safetensors")
    rest = {k: v for k, v in state.shared.items() if not isinstance(v, Tensor)}
    (folder / "shared.json").write_text(json.dumps({"epoch": state.epoch, "shared": rest}))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _load(path: Path) -> State:
    sums = json.loads((path / _CHECKSUMS).read_text())
    for name, digest in sums.items():
        if _digest(path / name) != digest:
            raise ValueError(f"checksum of {name} differs")
    head = json.loads((path / "shared.json").read_text())
    shared: dict[str, Any] = head["shared"] | load_file(path / "shared.safetensors")
    parts = {int(p.stem.removeprefix("part-")): load_file(p) for p in sorted(path.glob("part-*.safetensors"))}
    return State(int(head["epoch"]), shared, parts)


def save_model(folder: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """A model for `predict`: `model.safetensors` and `settings.json` (which names its method), renamed into place."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / ".model.safetensors.tmp"
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary)
        temporary.replace(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise ResourceError(f"{folder}: {error}; free some space and start the same command again") from None
    write_json(folder / "settings.json", settings)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
