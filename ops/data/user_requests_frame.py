"""Users to place from a data frame with one row an edge: what MLflow hands over (`ops.inference.mlflow_pyfunc`).

Axes: M rows, n users, F features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.data.io.ids import as_keys
from ops.data.types.hetero import Ids, Relation, find_relations, relation_name
from ops.data.user_requests import Arrived, Pieces, Vocabulary, arrived, check_width, rows_of
from ops.errors import DataError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ("relation", "weight", "time")


def users_from_frame(frame: pd.DataFrame, model: Vocabulary) -> Arrived:
    """Users in the order in which they first stand there; columns as `ops.inference.mlflow_pyfunc` describes them.

    Raises DataError for columns or values that do not fit, and as `ops.data.user_requests.read_new` does.
    """
    ends = (model.rows, model.others) if model.rows != model.others else ("src", "dst")
    missing = [name for name in ends if name not in frame.columns]
    if missing:
        raise DataError(
            f"predict: has no column {missing[0]}; give one row an edge with the columns {', '.join(ends)}, relation, "
            "and features where the model has any"
        )
    owners, none = _ids(frame, ends[0])
    if none.any():
        raise DataError(f"predict: row {int(none.argmax())}: {ends[0]} is missing; every row needs one")
    if not len(owners):
        raise DataError("predict: has no rows; at least one is needed")
    _, first = np.unique(owners, return_index=True)
    first = np.sort(first)
    others, none = _ids(frame, ends[1])
    linked = np.flatnonzero(~none)
    edges: dict[Relation, Pieces] = {}
    for relation, of_relation in _relations(frame, linked, model).items():
        rows = linked[of_relation]
        pair = (owners[rows], others[of_relation])
        pair = pair if relation[0] == model.rows else pair[::-1]
        edges[relation] = [(*pair, rows_of(_at, rows))]
    return arrived(owners[first], _features(frame, first, ends, model), edges, model, [])


def _at(row: int) -> str:
    return f"predict: row {row}"


def _ids(frame: pd.DataFrame, name: str) -> tuple[Ids, NDArray[np.bool_]]:
    """The ids there are, and which rows [M] have none."""
    none = frame[name].isna().to_numpy()
    return as_keys(frame[name][~none].to_numpy(), f"predict: {name}"), none


def _relations(frame: pd.DataFrame, linked: NDArray[np.int64], model: Vocabulary) -> dict[Relation, NDArray[np.int64]]:
    """Which of the rows with an edge are of which relation."""
    usable = [r for r in model.forward if {r[0], r[2]} == {model.rows, model.others}]
    if "relation" not in frame.columns:
        if len(usable) != 1:
            raise DataError(f"predict: has no column relation; the model has {', '.join(r[1] for r in usable)}")
        return {usable[0]: np.arange(len(linked))}
    names = frame["relation"].to_numpy()[linked].astype(np.str_)
    by_relation: dict[Relation, NDArray[np.int64]] = {}
    for name in np.unique(names).tolist():
        rows = np.flatnonzero(names == name)
        try:
            (meant,) = find_relations(usable, [name])
        except (SettingsError, ValueError):  # none, or several
            raise DataError(f"predict: row {int(linked[rows[0]])}: relation {name!r} is none of the model's: "
                            f"{', '.join(relation_name(r) for r in usable)}") from None  # fmt: skip
        by_relation[meant] = np.concatenate([by_relation.get(meant, rows[:0]), rows])
    return by_relation


def _features(
    frame: pd.DataFrame, first: NDArray[np.int64], ends: tuple[str, str], model: Vocabulary
) -> NDArray[np.float32] | None:
    """Those of each user's first row; all columns that have no other meaning, in their order."""
    if not model.n_features:
        return None
    names = [c for c in frame.columns if c not in (*ends, *PLAIN)]
    check_width(len(names), "predict", model)
    try:
        x = np.ascontiguousarray(frame[names].to_numpy()[first], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"predict: a feature is not a number ({error}); give numeric columns only") from None
    if not np.isfinite(x).all():
        raise DataError("predict: the features hold NaN or infinite values; replace them first")
    return x
