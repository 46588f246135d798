"""What a finished run or study left on disk, read back and checked: the reports' and comparisons' only input.

Nothing here trains, loads the data set or runs code from a file. A run folder holds result.json, seed-S/ and perhaps
auto.json; a study folder holds trials.json and best/, which is a run folder. `ops.results.stored_users` and
`ops.results.stored_images` read what is there of users and of images only.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import replacing
from ops.errors import DataError
from ops.results.stored_images import PICTURES, StoredPictures, read_pictures
from ops.results.stored_users import StoredMap, check_hidden, read_map

NEEDED = ("method", "dataset", "settings", "seeds", "last")
ARRAYS = ("before", "after", "cluster")
MORE = "more.npz"  # embeddings and the map of a seed of users; `ops.results.summary` writes it


@dataclass(frozen=True)
class Sample:
    """The rows that are drawn. Shapes: before [n, <= 50], after [n, D], cluster and label [n]; n <= 2,000."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    cluster: NDArray[np.int64]
    label: NDArray[np.int64] | None
    folder: Path


@dataclass(frozen=True)
class StoredRun:
    """One finished run: result.json, and per seed its result and history (epochs ascending, each once)."""

    path: Path
    result: dict[str, Any]
    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)
    histories: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    sample: Sample | None = None
    auto: dict[str, Any] | None = None
    explained: list[dict[str, Any]] | None = None
    map: StoredMap | None = None
    pictures: StoredPictures | None = None

    @property
    def n_clusters(self) -> tuple[int | None, str]:
        """K and where it is from; K is None where nothing stored tells it."""
        setting = self.result["settings"].get("n_clusters") or {}
        value, source = setting.get("value"), str(setting.get("source", "unknown"))
        if self.auto is not None:
            return int(self.auto["chosen"]), "chosen by --n-clusters auto"
        if isinstance(value, int):
            return value, f"from {source}"
        sizes = next((s["sizes"] for s in self.seeds.values() if s.get("sizes")), None)
        return (len(sizes) if sizes else None), f"from {source}"


def is_study(path: Path) -> bool:
    """True for a folder with trials.json."""
    return (path / "trials.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises DataError when it is missing, unreadable or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(
            f"{path}: is not readable JSON ({error}); the file is damaged, run it again with --fresh"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, expected a JSON object")
    return value


def read_result(run: Path) -> dict[str, Any]:
    """result.json of a run folder (of its best/ for a study).

    Raises DataError for a folder that is missing, no run, unfinished, or whose result.json is damaged.
    """
    if not run.is_dir():
        raise DataError(f"{run}: no such folder; give a run's folder OUT/NAME (it holds result.json)")
    if not (run / "result.json").is_file():
        if is_study(run):
            return read_result(run / "best")
        if any(run.glob("seed-*")):
            raise DataError(f"{run}: the run is not finished (no result.json); start its command again, it resumes")
        raise DataError(f"{run}: is not a run (no result.json in it); give a run's folder OUT/NAME")
    result = read_json(run / "result.json")
    missing = [key for key in NEEDED if key not in result]
    if missing:
        raise DataError(f"{run / 'result.json'}: lacks {', '.join(missing)}; not a result of this program, or damaged")
    for key in ("dataset", "settings", "last"):
        if not isinstance(result[key], dict):
            raise DataError(f"{run / 'result.json'}: {key} is a {type(result[key]).__name__}, expected an object")
    check_hidden(run / "result.json", result)
    for key, setting in result["settings"].items():
        if not isinstance(setting, dict) or "value" not in setting:
            raise DataError(f"{run / 'result.json'}: setting {key} is no object with value and source")
    return result


def read_auto(path: Path) -> dict[str, Any] | None:
    """auto.json, None where there is none; raises DataError when it is damaged."""
    if not path.is_file():
        return None
    auto = read_json(path)
    if not isinstance(auto.get("k"), list) or not isinstance(auto.get("chosen"), int):
        raise DataError(f"{path}: lacks k (a list) or chosen (a whole number); the file is damaged")
    return auto


def read_explained(path: Path) -> list[dict[str, Any]] | None:
    """The clusters of explain.json with their features, None where there is none; DataError when it is damaged."""
    if not path.is_file():
        return None
    clusters = read_json(path).get("clusters")
    needed = {"feature", "binary", "inside", "outside", "difference"}
    if not isinstance(clusters, list) or not all(
        isinstance(c, dict) and isinstance(c.get("features"), list) and all(needed <= set(f) for f in c["features"])
        for c in clusters
    ):
        raise DataError(f"{path}: lacks clusters with their features; the file is damaged")
    return clusters


def read_history(path: Path) -> list[dict[str, Any]]:
    """The epochs of history.jsonl, ascending; of an epoch written twice the later line counts. Missing file: []."""
    if not path.is_file():
        return []
    epochs: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line)
            epochs[int(record["epoch"])] = record
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: line {number} is no epoch's JSON object; the file is damaged") from error
    return [epochs[e] for e in sorted(epochs)]


def read_sample(folder: Path) -> Sample | None:
    """figures.npz of a seed's folder, None where there is none; raises DataError when it is damaged."""
    path = folder / "figures.npz"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in (*ARRAYS, "label") if name in stored}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: is not a readable npz file; the file is damaged, run it again with --fresh"
        ) from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}; found {', '.join(arrays) or 'nothing'}")
    lengths = {name: len(a) for name, a in arrays.items()}
    if len(set(lengths.values())) > 1 or arrays["before"].ndim != 2 or arrays["after"].ndim != 2:
        raise DataError(f"{path}: its arrays do not fit each other ({lengths} rows)")
    if not (np.isfinite(arrays["before"]).all() and np.isfinite(arrays["after"]).all()):
        raise DataError(f"{path}: before or after holds NaN or infinity; the embedding cannot be drawn")
    return Sample(
        before=arrays["before"].astype(np.float32),
        after=arrays["after"].astype(np.float32),
        cluster=arrays["cluster"].astype(np.int64),
        label=arrays["label"].astype(np.int64) if "label" in arrays else None,
        folder=folder,
    )


def read_run(run: Path) -> StoredRun:
    """All stored of a finished run; raises DataError as `read_result` does."""
    result = read_result(run)
    folders = {int(s): run / f"seed-{int(s)}" for s in result["seeds"]}
    samples = (read_sample(folder) for folder in folders.values())
    maps = (read_map(folder / MORE, seed) for seed, folder in folders.items())
    return StoredRun(
        path=run,
        result=result,
        seeds={s: read_json(f / "result.json") for s, f in folders.items() if (f / "result.json").is_file()},
        histories={s: read_history(f / "history.jsonl") for s, f in folders.items()},
        sample=next((s for s in samples if s is not None), None),
        auto=read_auto(run / "auto.json"),
        explained=read_explained(run / "explain.json"),
        map=next((m for m in maps if m is not None), None),
        pictures=read_pictures(run / PICTURES),
    )


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file or none (`ops.atomic_io.replacing`)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write an npz file as `write_file` does."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the first name for allow_pickle
    write_file(path, buffer.getvalue())
