"""Checkpoints that load exactly or not at all: checksums that come last, no pickle.

A checkpoint is a folder `epoch-00000120` with `shared.safetensors`, `part-00000.safetensors` ..., `shared.json` and
`checksums.json`, the commit marker. One process writes it under a temporary name and renames it. Workers each upload
their share through Ray Train, to a folder that all of them see or to S3. Two are kept; a damaged one is passed over
with a warning for the one before it.
"""

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ops.api import State
from ops.atomic_io import atomic_write, inside, sha256, sync, unwritable
from ops.errors import ResourceError, ServiceError, TesseraError
from ops.results.model_store import plain_tensors
from ops.storage import object_store as s3

KEEP = 2
FOLDER = "checkpoints"  # of a seed
_CHECKSUMS = "checksums.json"
DAMAGED = (OSError, ValueError, KeyError, TypeError, SafetensorError, s3.Missing)  # what loading raises

Place = Path | s3.Location


class WorkerCheckpoints:
    """The checkpoints of a seed that `world` workers of Ray Train train together; each has one of these.

    `by_part`: rank r needs the parts p with p % world = r only, as they are of rows that ranks own; else all of them.
    """

    def __init__(self, place: Place, rank: int, world: int, *, by_part: bool = False) -> None:
        self._place, self._rank, self._world, self._by_part = place, rank, world, by_part

    def load(self) -> State | None:
        """The newest checkpoint whose files all ranks have read, each those that it needs; see `load_latest`."""
        names = [_names(self._place) if self._rank == 0 else []]
        if self._world > 1:
            dist.broadcast_object_list(names, src=0)
        for name in reversed(names[0]):
            state, faults = None, [""] * self._world
            try:
                state = load(self._place, name, self._needs)
            except DAMAGED as error:
                faults = [str(error) or type(error).__name__] * self._world
            if self._world > 1:
                dist.all_gather_object(faults, faults[0])
            if not any(faults):
                return state
            if self._rank == 0:
                _warn_of(self._place, name, next(fault for fault in faults if fault))
        return None

    def _needs(self, file: str) -> bool:
        return not self._by_part or not file.startswith("part-") or _part(file) % self._world == self._rank

    def save(self, state: State) -> None:
        """Upload this worker's share by Ray Train's report; when all have arrived, rank 0 writes the commit marker.

        `state` has the parts that this worker has, and on rank 0 what is shared. Raises ResourceError on a full disk,
        SettingsError or ServiceError where nothing can be written.
        """
        name = _name(state.epoch)
        try:
            self._upload(state, name)
        except (OSError, SafetensorError) as error:
            raise _refused(self._place / name, error) from None

    def _upload(self, state: State, name: str) -> None:
        import ray.train

        with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
            sums = _write_files(Path(folder), state, shared=self._rank == 0)
            all_sums = [sums] * self._world
            if self._world > 1:
                dist.all_gather_object(all_sums, sums)
            if self._rank == 0:
                remove(self._place, name)  # of an earlier start, perhaps of other parts
            # all ranks meet inside, before any of them uploads
            share = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"epoch": state.epoch}, checkpoint=share, checkpoint_dir_name=name)
        if self._world > 1:
            dist.barrier()
        if self._rank == 0:
            _commit(self._place, name, {file: digest for each in all_sums for file, digest in each.items()})
            _drop_old(self._place)


def save(folder: Path, state: State) -> Path:
    """Write `state` as the newest checkpoint of `folder` and drop all but two. Raises ResourceError on a full disk."""
    final = folder / _name(state.epoch)
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        sums = _write_files(temporary, state, shared=True)
        (temporary / _CHECKSUMS).write_text(json.dumps(sums, indent=1))
        sync(temporary / _CHECKSUMS)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _refused(final, error) from None
    _drop_old(folder)
    return final


def load_latest(place: Place) -> State | None:
    """The newest checkpoint whose files carry their checksums, or None; damaged ones are warned of and passed over.

    Raises ServiceError where a place on S3 cannot be reached.
    """
    for name in reversed(_names(place)):
        try:
            return load(place, name)
        except DAMAGED as error:
            _warn_of(place, name, str(error))
    return None


def _warn_of(place: Place, name: str, fault: str) -> None:
    warnings.warn(f"{place / name} is damaged ({fault}) and passed over", stacklevel=3)


def load(place: Place, name: str, needs: Callable[[str], bool] = lambda file: True) -> State:
    """What is shared in the checkpoint of that name, and the parts whose file is needed. Raises DAMAGED."""
    if isinstance(place, Path):
        return _load(place / name, {path.name for path in (place / name).iterdir()}, needs)
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as folder:
        files = set(s3.listing(place / name))
        for file in filter(needs, files):
            s3.download(place / name / file, inside(Path(folder), file))
        return _load(Path(folder), files, needs)


def remove(place: Place, name: str) -> None:
    """Remove one checkpoint, its commit marker first."""
    if isinstance(place, Path):
        with suppress(OSError):
            (place / name / _CHECKSUMS).unlink(missing_ok=True)
        shutil.rmtree(place / name, ignore_errors=True)
        return
    for file in sorted(s3.listing(place / name), key=lambda n: (n != _CHECKSUMS, n)):
        s3.delete(place / name / file)


def drop(place: Place) -> None:
    """Remove all checkpoints, and what Ray Train has noted of them."""
    if isinstance(place, Path):
        for name in _names(place):
            remove(place, name)
        shutil.rmtree(place, ignore_errors=True)
        return
    for name in s3.listing(place):
        s3.delete(place / name)


def _name(epoch: int) -> str:
    return f"epoch-{epoch:08d}"


def _names(place: Place) -> list[str]:
    """The checkpoints by name, the newest last."""
    if isinstance(place, Path):
        return sorted(path.name for path in place.glob("epoch-*"))
    return sorted({name.partition("/")[0] for name in s3.listing(place) if name.startswith("epoch-")})


def _drop_old(place: Place) -> None:
    for name in _names(place)[:-KEEP]:
        remove(place, name)


def _commit(place: Place, name: str, sums: dict[str, str]) -> None:
    content = json.dumps(sums, indent=1)
    if isinstance(place, Path):
        atomic_write(place / name / _CHECKSUMS, content)
    else:
        s3.write(place / name / _CHECKSUMS, content.encode())


def _write_files(folder: Path, state: State, *, shared: bool) -> dict[str, str]:
    """Write the parts and, where asked, what is `shared`; returns the checksum of each file."""
    if shared:
        tensors = {k: v for k, v in state.shared.items() if isinstance(v, Tensor)}
        save_file(plain_tensors(tensors), folder / "shared.safetensors")
        rest = {k: v for k, v in state.shared.items() if not isinstance(v, Tensor)}
        (folder / "shared.json").write_text(json.dumps({"epoch": state.epoch, "shared": rest}))
    for part, arrays in state.parts.items():
        save_file(plain_tensors(arrays), folder / f"part-{part:05d}.safetensors")
    for path in folder.iterdir():
        sync(path)
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def _load(path: Path, files: set[str], needs: Callable[[str], bool]) -> State:
    """Of all `files` of the checkpoint those that are needed, which lie in a folder."""
    sums = json.loads((path / _CHECKSUMS).read_text())
    if not isinstance(sums, dict) or {*sums, _CHECKSUMS} != files:
        raise ValueError("its files are not those of its checksums")
    for name in filter(needs, sums):
        if sha256(path / name) != sums[name]:
            raise ValueError(f"checksum of {name} differs")
    head = json.loads((path / "shared.json").read_text())
    if not isinstance(head, dict) or not isinstance(head["shared"], dict):
        raise ValueError("shared.json is no checkpoint's")
    parts = {_part(name): load_file(path / name) for name in sorted(sums) if name.startswith("part-") and needs(name)}
    return State(int(head["epoch"]), head["shared"] | load_file(path / "shared.safetensors"), parts)


def _part(file: str) -> int:
    """The number in part-00007.safetensors."""
    return int(file.removeprefix("part-").partition(".")[0])


def _refused(place: Place, error: OSError | SafetensorError) -> TesseraError:
    """The one line for a checkpoint that could not be written."""
    if isinstance(place, s3.Location):
        cause = " ".join(str(error).split())[:200]
        return ServiceError(f"{place}: cannot be written ({cause}); the same command goes on from the one before")
    if isinstance(error, OSError):
        return unwritable(place, error)
    return ResourceError(f"{place}: {error}; free some space and start the same command again")
