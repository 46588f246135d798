"""Every figure of a run or a search as PNGs by name, from what its folder has stored; the page has the words.

Of each the whole comes first, then its panels where it has several (`ops.reporting.theme.pngs`).
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import Arrays, save_arrays
from ops.errors import DataError
from ops.reporting.points import Coordinates
from ops.reporting.tables import BASELINES, searched_names
from ops.results.arrays import read_arrays
from ops.results.schema import LABELLED
from ops.results.search_schema import SearchResult
from ops.results.stored_run import StoredRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL_COLOURS = ("nearest", "pairs", "som")  # photos, and many greys; else 256 of them do
TSNE_EPOCHS = 750  # 1,800 rows are within 2 % of the loss that 1,000 reach, in two thirds of the time


def run_drawings(run: StoredRun, points: Coordinates | None) -> dict[str, list[bytes]]:
    """All figures of one run that its stored files allow; `points`: its rows' coordinates (`tsne`)."""
    from ops.reporting import figures as plots
    from ops.reporting import image_figures, som_figure

    pictures, sample, drawn = run.pictures, run.sample, dict[str, "Figure | None"]()
    if run.map:
        grid = run.map["map_umatrix"].shape
        hits, clusters = (run.map[name].reshape(grid) for name in ("map_hits", "map_unit_clusters"))
        drawn["som"] = som_figure.som_picture(run.map["map_umatrix"], hits, clusters)
    if "near" in pictures:
        names = ("near", "near_count", "near_cluster", "near_size")
        drawn["nearest"] = image_figures.nearest(*(pictures[name] for name in names))
    if "confusion" in pictures:
        classes = pictures.get("classes", np.arange(len(pictures["confusion"]))).astype(str).tolist()
        drawn["confusion"] = image_figures.confusion(pictures["confusion"], pictures["confusion_order"], classes)
    if "pair" in pictures:
        drawn["pairs"] = image_figures.pairs(*(pictures[name] for name in ("pair", "pair_cluster", "pair_value")))
    if sample:
        if points:
            drawn["tsne"] = plots.embedding(*points, sample["cluster"], sample.get("label"))
        drawn["similarity"] = plots.similarity(sample["after"], sample["cluster"])
    selected, lines = {seed: result.selected_epoch for seed, result in run.seeds.items()}, baseline_lines(run)
    taken = next((int(one.last["epoch"] or 0) for s, one in run.seeds.items() if s == run.seed and one.taken), None)
    if max(map(len, run.histories.values()), default=0) > 1:  # a linear method has one epoch, which is no curve
        for name, titles in (("curves", curve_titles(run)), ("scores", plots.SCORES), ("hard", plots.HARD)):
            drawn[name] = plots.curves(run.histories, titles, selected, run.seed, lines, taken)
    drawn["sizes"] = plots.sizes(run.sizes) if run.sizes else None
    drawn["head"] = plots.sizes_over_time(run.histories.get(run.seed, []))
    drawn["auto"] = plots.auto_sweep(run.sweep) if run.sweep else None
    return _drawn(drawn)


def search_drawings(search: SearchResult) -> dict[str, list[bytes]]:
    """The search's figure: every searched setting against the objective."""
    from ops.reporting.figures import search_settings

    return _drawn({"trials": search_settings(search, searched_names(search))})


def _drawn(figures: "dict[str, Figure | None]") -> dict[str, list[bytes]]:
    from ops.reporting.theme import pngs

    return {name: pngs(figure, name in ALL_COLOURS) for name, figure in figures.items() if figure is not None}


def baseline_lines(run: StoredRun) -> dict[str, dict[str, float]]:
    """The baselines' means by the curve that they stand beside: a metric's name in the history, then the baseline's."""
    lines: dict[str, dict[str, float]] = {}
    for name, scores in run.result.baselines.items():
        for metric, value in (scores.means if scores else {}).items():
            group = "eval" if metric in LABELLED else "tune" if metric == "score" else "cluster"
            lines.setdefault(f"{group}/{metric}", {})[BASELINES.get(name, name)] = value
    return lines


def curve_titles(run: StoredRun) -> dict[str, str]:
    """The metrics of the figure on training without labels, with their titles."""
    from ops.reporting.figures import CURVES

    names = {m for h in run.histories.values() for e in h[-1:] for m in e if m.startswith("train/loss_")}
    parts = {m: f"Loss: {m.removeprefix('train/loss_')}" for m in sorted(names)}
    recalled = any("cluster/recall_at_50" in e for h in run.histories.values() for e in h)
    shown = {m: t for m, t in CURVES.items() if not (recalled and m == "tune/score")}  # of users the two are one
    return {"train/loss": "Loss", **parts, **shown}


def tsne(sample: Arrays, cache_path: Path) -> Coordinates | None:
    """t-SNE coordinates [n, 2] of `before` and `after`, kept in a file for the next report; None for under 10 rows."""
    if len(sample["cluster"]) < 10:
        return None
    digest = hashlib.sha256(f"tsne {TSNE_EPOCHS}".encode())
    for array in (sample["before"], sample["after"]):
        digest.update(f"{array.shape}".encode() + array.tobytes())
    key = digest.hexdigest()
    with suppress(DataError):  # damaged: it is only a cache, computed anew
        cache = read_arrays(cache_path)
        if str(cache.get("key")) == key:
            return cache["before"], cache["after"]
    before, after = _coordinates(sample["before"]), _coordinates(sample["after"])
    save_arrays(cache_path, key=np.array(key), before=before, after=after)
    return before, after


def _coordinates(x: NDArray[np.floating]) -> NDArray[np.floating]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    start = "pca" if x.shape[1] > 1 and np.ptp(x, axis=0).max() > 0 else "random"  # constant data has no components
    fit = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init=start, max_iter=TSNE_EPOCHS, random_state=0)
    with threadpool_limits(1):  # more threads only wait for each other at this size, and would change the figures
        return np.asarray(fit.fit_transform(x))
