"""The points of a run's map: for the page, and as a table that other programs open.

Axes: n rows that t-SNE has placed, m further rows, all n + m = M in the order of the data.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import Arrays
from ops.data.types.scaling import Scaling
from ops.reporting.clusters import Assignments
from ops.results.arrays import write_table
from ops.results.figure_rows import SHEET
from ops.results.stored_run import StoredRun
from ops.rng import generator

Places = NDArray[np.floating]  # [n, 2]
Coordinates = tuple[Places, Places]  # before and after training
NO_THUMBNAIL = 65535


@dataclass(frozen=True)
class MapPoints:
    """What a map draws: rows [M], places [M, 2] before and after training, and what is told of each row.

    `groups`: cluster and perhaps label by name; `values`: confidence and features; `thumbnails`: a sheet of images as
    WebP, of which row i has the one of number `drawn[i]`, -1 for none.
    """

    rows: NDArray[np.int64]
    ids: NDArray[np.generic]
    before: Places
    after: Places
    groups: dict[str, NDArray[np.int64]]
    values: dict[str, NDArray[np.floating]]
    drawn: NDArray[np.int64]
    thumbnails: bytes | None


def points_of(run: StoredRun, places: Coordinates | None, assignments: Assignments | None) -> MapPoints | None:
    """The map's points; `places` [n, 2] are t-SNE's, before and after training. None where there are none to draw.

    A further row stands at the mean of the three drawn rows that are nearest to it, with a small keyed offset.
    """
    sample = run.sample
    if not sample or places is None:
        return None
    n = len(sample["cluster"])
    rows = _all(sample, "rows") if "rows" in sample else np.arange(n)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    stored = assignments if assignments is not None and int(rows[-1]) < len(assignments.ids) else None
    groups = {"cluster": stored.clusters[rows] if stored else _all(sample, "cluster")[order]}
    groups |= {"label": _all(sample, "label")[order]} if "label" in sample else {}
    values = {"confidence": stored.confidence[rows]} if stored else {}
    if "features" in sample:
        names, restored = _as_given(run, sample["feature_columns"], _all(sample, "features")[order])
        values |= dict(zip(names, restored.T, strict=True))
    before, after = (
        _placed(xy, sample.get(f"more_{when}"))[order] for xy, when in zip(places, ("before", "after"), strict=True)
    )
    sheet = sample["thumbnails"].tobytes() if "thumbnails" in sample else None
    drawn = np.where(order < n, order, -1)
    return MapPoints(rows, stored.ids[rows] if stored else rows, before, after, groups, values, drawn, sheet)


def _all(sample: Arrays, name: str) -> NDArray[Any]:
    """An array of the drawn rows with that of the further ones below it."""
    return np.concatenate([sample[name], sample[f"more_{name}"]]) if "more_rows" in sample else sample[name]


def _placed(xy: Places, nearest: NDArray[np.int64] | None) -> Places:
    """Places [n, 2] of t-SNE, and below them those of the further rows beside their `nearest` [m, 3]."""
    if nearest is None:
        return xy
    middle = xy[nearest].mean(axis=1)
    extent = float(np.ptp(xy, axis=0).max())
    spread = np.minimum(np.linalg.norm(xy[nearest] - middle[:, None], axis=2).mean(axis=1), extent / 50) / 2
    offsets = generator(0, "map").standard_normal(middle.shape)
    return np.concatenate([xy, middle + offsets * (spread + extent / 400)[:, None]])


def _as_given(
    run: StoredRun, columns: NDArray[np.int64], x: NDArray[np.floating]
) -> tuple[list[str], NDArray[np.floating]]:
    """The names of some feature columns [c], and their values [M, c] as they were before any scaling."""
    from ops.results.model_store import ModelFile  # brings torch

    about = ModelFile.read_optional(run.path / "model" / "settings.json")
    names, scaling = (about.feature_names, about.scaler) if about else (None, None)
    if scaling:
        x = Scaling(scaling.kind, scaling.centre[columns], scaling.width[columns]).undo(x)
    return [str(names[c]) if names else f"column {c}" for c in columns.tolist()], x


def write_points(points: MapPoints, path: Path) -> None:
    """The points as Parquet: id, projection_x, projection_y, cluster, label, confidence and features."""
    places = {"id": points.ids, "projection_x": points.after[:, 0], "projection_y": points.after[:, 1]}
    groups = {name: values.astype(str) for name, values in points.groups.items()}  # names, not quantities
    write_table(path, {**points.values, **places, **groups})


def map_data(points: MapPoints) -> dict[str, object]:
    """What the interactive map draws, as JSON values. Ids that are row numbers are numbers, or left out where all."""
    n, ids = len(points.rows), points.ids
    are_rows = np.issubdtype(ids.dtype, np.integer) and np.array_equal(ids, points.rows)
    counted = are_rows and np.array_equal(ids, np.arange(n))
    data: dict[str, object] = {
        "n": n,
        "ids": None if are_rows else [str(each) for each in ids],
        "rows": None if counted or not are_rows else _text(points.rows.astype("<u4")),
        "layouts": [{"name": "after training", "xy": _scaled(points.after)},
                    {"name": "before (input)", "xy": _scaled(points.before)}],
        "channels": [*(_groups(name, each) for name, each in points.groups.items()),
                     *(_values(name, each) for name, each in points.values.items())],
    }  # fmt: skip
    if points.thumbnails:
        source = "data:image/webp;base64," + base64.b64encode(points.thumbnails).decode()
        of = _text(np.where(points.drawn < 0, NO_THUMBNAIL, points.drawn).astype("<u2"))
        data["thumbnails"] = {"source": source, "across": SHEET, "of": of}
    return data


def _text(values: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _scaled(xy: Places) -> str:
    """Coordinates [n, 2] as 16-bit numbers, one scale for both axes."""
    low = xy.min(axis=0)
    return _text(np.round((xy - low) / max(float((xy - low).max()), 1e-12) * 65535).astype("<u2"))


def _groups(name: str, values: NDArray[np.int64]) -> dict[str, object]:
    numbers, index = np.unique(values, return_inverse=True)
    names = [str(each) if each >= 0 else "none" for each in numbers.tolist()]
    return {"name": name, "kind": "group", "names": names, "values": _text(index.astype("<u2"))}


def _values(name: str, values: NDArray[np.floating]) -> dict[str, object]:
    low, high = float(values.min()), float(values.max())
    share = (values - low) / max(high - low, 1e-12)
    return {"name": name, "kind": "value", "low": low, "high": high,
            "values": _text(np.round(share * 255).astype(np.uint8))}  # fmt: skip
