"""What every prediction ends with, whatever the kind of its rows.

Axes: n rows.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyMethod
from ops.config.console import Console
from ops.config.settings import PredictSettings
from ops.results.finished_run import TrainedNodes
from ops.results.model_store import StoredModel


def refuse_graph_flags(request: PredictSettings, method: AnyMethod) -> None:
    """Raise SettingsError where flags that are for attributed graphs are given for another kind."""
    for flag, value in (("--known", request.known), ("--knn", request.knn)):
        if value:
            method.require("graph", flag)


def summary(
    run: str, model: StoredModel, request: PredictSettings, rows: NDArray[np.int64], clusters: NDArray[np.int64],
    known: TrainedNodes | None, words: str, console: Console, began: float,
) -> dict[str, Any]:  # fmt: skip
    """The summary of a prediction, and its last line: how many known rows have changed their cluster.

    `rows` [n]: the training's row of each (-1: new); `clusters` [n]; `words`: what rows are called; `began`: when, by
    the monotonic clock.
    """
    n, at = len(rows), rows >= 0
    n_known = int(at.sum())
    found = {
        "out": request.out, "model": run, "method": model.method, "rows": n, "known": n_known, "new": n - n_known,
        "changed": None, "sizes": np.bincount(clusters, minlength=model.settings["n_clusters"]).tolist(),
    }  # fmt: skip
    if known is not None and known.clusters is not None and n_known:
        found["changed"] = int((clusters[at] != known.clusters[rows[at]]).sum())
        console.say(f"{found['changed']:,} of the {n_known:,} known {words} are in another cluster than in training")
    found["seconds"] = time.monotonic() - began
    return found
