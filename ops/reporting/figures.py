"""The figures of a run, a search and a comparison, as matplotlib Figures: stored values in, a Figure or None out."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ops.reporting.theme import (
    CYCLE,
    INK,
    MARKERS,
    NARROW,
    blank,
    colour_bar,
    heatmap,
    legend,
    name_point,
    panels,
    style,
)
from ops.results.schema import CountSweep, Numbers
from ops.results.search_schema import SearchResult

Epochs = Sequence[Numbers]
Points = NDArray[np.floating]
MAIN, MARK = CYCLE[0], CYCLE[6]
CURVES = {
    "train/loss": "Loss", "tune/score": "Tuning score (higher)", "cluster/recall_at_50": "Validation Recall@50 (%)",
    "cluster/silhouette": "Silhouette (higher)", "cluster/agreement": "ARI of two views (higher)",
    "collapse/std": "Spread of the projections (0: collapsed)", "cluster/modularity": "Modularity (higher)",
    "cluster/conductance": "Mean conductance (lower)", "cluster/davies_bouldin": "Davies-Bouldin (lower)",
    "cluster/calinski_harabasz": "Calinski-Harabasz (higher)", "cluster/size_gini": "Cluster sizes: Gini",
}  # fmt: skip
SCORES = {"eval/acc": "ACC (%)", "eval/nmi": "NMI (%)", "eval/ari": "ARI (%)", "eval/f1": "F1 (%)"}
HARD = {"hard/fraction": "Hard pairs (% of all)"}
PERCENT = (*SCORES, *HARD, "cluster/recall_at_50")


def embedding(
    before: Points, after: Points, cluster: NDArray[np.int64], label: NDArray[np.int64] | None = None
) -> Figure:
    """t-SNE coordinates [n, 2] before and after training beside each other, by cluster [n] and below by label [n]."""
    groups = [("cluster", cluster, {int(c): i for i, c in enumerate(np.unique(cluster))})]
    if label is not None:
        groups.append(("label", label, _follow(cluster, label)))
    figure = blank(3.5 * len(groups), 7.0)
    axes = figure.subplots(len(groups), 2, squeeze=False)
    for row, (what, values, colours) in zip(axes, groups, strict=True):
        for ax, points, when in zip(row, (before, after), ("Before (input)", "After (embedding)"), strict=True):
            style(ax, f"{when}, by {what}", frame=("left", "right", "top", "bottom"), grid=False)
            _scatter(ax, points, values, colours)
    return figure


def _follow(cluster: NDArray[np.int64], label: NDArray[np.int64]) -> dict[int, int]:
    """Colour number of each label: that of the cluster which fits it best, so that both rows read alike."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    labels, clusters = np.unique(label), np.unique(cluster)
    rows, columns = linear_sum_assignment(contingency_matrix(label, cluster), maximize=True)
    matched = {int(labels[r]): int(k) for r, k in zip(rows, columns, strict=True)}
    rest = [int(value) for value in labels if int(value) not in matched]
    return matched | {value: len(clusters) + i for i, value in enumerate(rest)}


def _scatter(ax: Axes, points: Points, group: NDArray[np.int64], colours: dict[int, int]) -> None:
    for value, number in colours.items():
        members = points[group == value]
        colour, marker = CYCLE[number % len(CYCLE)], MARKERS[number // len(CYCLE) % len(MARKERS)]
        ax.scatter(members[:, 0], members[:, 1], s=9, color=colour, marker=marker, linewidths=0, alpha=0.85)
        # a member, not empty space
        middle = members[np.argmin(np.square(members - np.median(members, axis=0)).sum(axis=1))]
        name_point(ax, float(middle[0]), float(middle[1]), str(value))
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")


def similarity(after: Points, cluster: NDArray[np.int64]) -> Figure:
    """Cosine similarities of the embedding rows [n, D], sorted by cluster [n], with the clusters' borders."""
    unit = after / np.maximum(np.linalg.norm(after, axis=1, keepdims=True), 1e-12)
    order = np.argsort(cluster, kind="stable")
    order = order[:: max(1, math.ceil(len(order) / 1000))]  # evenly thinned: rows beyond the pixels show nothing
    values = unit[order] @ unit[order].T
    look = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}  # fixed: dark means the same in every report
    title = "Rows sorted by cluster"
    figure = blank(4.6, NARROW)
    ax, image = heatmap(figure, values, title, interpolation="antialiased", **look)
    names, starts, counts = np.unique(cluster[order], return_index=True, return_counts=True)
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", linewidth=0.8)
        ax.axvline(start - 0.5, color="white", linewidth=0.8)
    shown = counts >= len(order) / 25  # the names of tiny clusters would lie over each other
    middles = (starts + (counts - 1) / 2)[shown]
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(middles, [str(n) for n in names[shown]])
    ax.set(xlabel="cluster", ylabel="cluster")
    colour_bar(image, "cosine similarity", shrink=0.8, extend="min")
    return figure


def curves(
    histories: Mapping[int, Epochs], metrics: Mapping[str, str], selected: Mapping[int, int | None] | None = None,
    strong: int | None = None, baselines: Mapping[str, Mapping[str, float]] | None = None, taken: int | None = None,
) -> Figure | None:  # fmt: skip
    """One panel a metric over epochs: the seed `strong` (else the first) strong, the others thin; epochs marked.

    `taken`: the epoch that is this seed's result, where it is not the last one.
    `histories` and `selected` (chosen epoch) are by seed, `baselines` (values that are lines) by metric and name.
    Metrics without a value are left out; None if all are.
    """
    present = {m: t for m, t in metrics.items() if any(len(_points(h, m)[0]) for h in histories.values())}
    if not present:
        return None
    figure, axes = panels(len(present))
    first = next(iter(histories)) if strong is None or strong not in histories else strong
    for ax, (metric, title) in zip(axes, present.items(), strict=True):
        style(ax, title).set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        _curve(ax, histories[first], metric, f"seed {first}", (selected or {}).get(first), taken)
        for seed, other in histories.items():
            if seed != first:
                ax.plot(*_points(other, metric), color=INK, linewidth=0.9, alpha=0.8, zorder=2)
        scale = 100.0 if metric in PERCENT else 1.0
        for look, (name, value) in zip(
            ((0, (1, 1)), (0, (5, 1, 1, 1))), (baselines or {}).get(metric, {}).items(), strict=False
        ):
            ax.axhline(scale * value, color=CYCLE[4], linewidth=1.2, linestyle=look, label=name, zorder=1)
        ax.set_ylim(*_widened(*ax.get_ylim(), scale))
    legend(figure, max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1])))
    return figure


def _widened(low: float, high: float, scale: float = 0.0) -> tuple[float, float]:
    """A range that does not blow up noise: at least a tenth of the scale, or of the values where they are larger."""
    least = 0.1 * max(min(scale, 100.0) if max(abs(low), abs(high)) <= scale else 0.0, abs(low), abs(high))
    room = max(0.0, least - (high - low)) / 2
    return low - room, high + room


def _points(history: Epochs, metric: str) -> tuple[list[int], list[float]]:
    scale = 100.0 if metric in PERCENT else 1.0
    pairs = [(int(h["epoch"] or 0), scale * float(v)) for h in history if (v := h.get(metric)) is not None]
    pairs = [(e, v) for e, v in pairs if math.isfinite(v)]
    return [e for e, _ in pairs], [v for _, v in pairs]


def _curve(ax: Axes, history: Epochs, metric: str, name: str, chosen: int | None, taken: int | None) -> None:
    epochs, values = _points(history, metric)
    if not epochs:
        return
    ax.plot(epochs, values, color=MAIN, linewidth=1.9, zorder=4, label=name)
    result, label = (int(history[-1]["epoch"] or 0), "last epoch") if taken is None else (taken, f"epoch {taken}")
    if result in epochs:  # some values exist at update epochs only
        at = values[epochs.index(result)]
        ax.plot(result, at, "o", color=MAIN, markersize=7, zorder=5, label=f"{label} (the result)")
    if chosen is not None:
        ax.axvline(chosen, color=MARK, linewidth=1.1, linestyle="--", zorder=3, label=f"selected epoch ({chosen})")
        if epochs[0] <= chosen <= epochs[-1]:
            ax.plot(chosen, np.interp(chosen, epochs, values), "D", color=MARK, markersize=4.5, zorder=6)


def sizes(counts: Sequence[int]) -> Figure:
    """Cluster sizes [K] as bars, largest first, with the equal share as a line."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    figure = blank(3.6, NARROW)
    ax = style(figure.add_subplot(), "Rows in each cluster, largest first")
    ax.grid(visible=False, axis="x")
    ax.bar(range(len(order)), [counts[c] for c in order], color=MAIN, width=0.75)
    share = sum(counts) / len(counts)
    ax.axhline(share, color=MARK, linewidth=1.1, linestyle="--", label=f"equal shares ({share:,.0f} rows)")
    shown = range(len(order)) if len(order) <= 16 else ()
    ax.set_xticks(list(shown), [str(order[i]) for i in shown])
    ax.set(xlabel="cluster", ylabel="rows")
    legend(figure, ax)
    return figure


def sizes_over_time(history: Epochs) -> Figure | None:
    """A history's `head/size_00`, `head/size_01`, ... stacked over the epochs; None where it has none."""
    names = sorted({m for entry in history for m in entry if re.fullmatch(r"head/size_\d+", m)})
    if not names:
        return None
    epochs = _points(history, names[0])[0]
    figure = blank(3.8, NARROW)
    ax = style(figure.add_subplot(), "Rows by cluster of the head")
    colours = [CYCLE[i % len(CYCLE)] for i in range(len(names))]
    numbers = [str(int(name[-2:])) for name in names]
    ax.stackplot(epochs, [_points(history, name)[1] for name in names], colors=colours, labels=numbers)
    ax.set(xlabel="epoch", ylabel="rows", xlim=(epochs[0], max(epochs[-1], epochs[0] + 1)), ylim=(0, None))
    if len(names) <= len(CYCLE):
        legend(figure, ax)
    return figure


def auto_sweep(sweep: CountSweep) -> Figure:
    """The panel's average rank and each label-free index over the number of clusters, the chosen one marked."""
    series = {"Average rank (lower)": sweep.rank, **sweep.indices}
    series = {name: values for name, values in series.items() if len(values) == len(sweep.k)}
    figure, axes = panels(len(series))
    for ax, (name, values) in zip(axes, series.items(), strict=True):
        style(ax, CURVES.get(f"cluster/{name}", name)).set_xlabel("number of clusters K")
        numbers = [math.nan if v is None else v for v in values]
        ax.plot(sweep.k, numbers, "-o", color=MAIN, linewidth=1.6, markersize=4)
        ax.axvline(sweep.chosen, color=MARK, linewidth=1.1, linestyle="--", label=f"chosen K = {sweep.chosen}")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if axes:
        legend(figure, axes[0])
    return figure


def search_settings(search: SearchResult, names: Sequence[str]) -> Figure | None:
    """One panel a searched setting: its value against the objective, by status, the best trial as a star."""
    trials = [t for t in search.trials if t.score is not None]
    if not trials or not names:
        return None
    figure, axes = panels(len(names), height=3.0)
    looks = {"finished": (MAIN, "o"), "stopped": (INK, "v"), "failed": (CYCLE[2], "X")}
    for ax, name in zip(axes, names, strict=True):
        x, y = np.array(_positions(ax, [t.settings.get(name) for t in trials])), np.array([t.score for t in trials])
        for status, (colour, marker) in looks.items():
            if any(chosen := [t.status == status for t in trials]):
                ax.scatter(x[chosen], y[chosen], s=34, color=colour, marker=marker, label=status, zorder=3)
        if any(best := [t.trial == search.best for t in trials]):
            ax.scatter(x[best], y[best], s=190, color=MARK, marker="*", label="best", zorder=4)
        style(ax, name).set(ylabel=search.objective)
    legend(figure, axes[0])
    return figure


def _positions(ax: Axes, values: Sequence[object]) -> list[float]:
    """Where values stand on the x axis: numbers as such (on a log scale over a wide range), others by category."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        if min(numbers) > 0 and max(numbers) / min(numbers) > 30:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")  # not as formulas, which no figure has
            ax.xaxis.set_minor_formatter("")
        elif all(isinstance(v, int) for v in numbers):
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        return [float(v) for v in numbers]
    kinds = sorted({str(v) for v in values})
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_xlim(-0.5, len(kinds) - 0.5)
    return [float(kinds.index(str(v))) for v in values]


def comparison(names: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]]) -> Figure | None:
    """`last` of several runs: one panel a metric, one line a run, a dot a seed and a bar at the mean.

    `values` is by the panel's title, then by run (as in `names`), then by seed; a run without it has an empty list.
    """
    if not values:
        return None
    figure, axes = panels(len(values), height=1.1 + 0.4 * len(names))
    for ax, (title, by_run) in zip(axes, values.items(), strict=True):
        style(ax, title)
        for i, seeds in enumerate(by_run):
            ax.plot(seeds, [i] * len(seeds), "o", color=MAIN, markersize=5, alpha=0.75, markeredgewidth=0)
            if seeds:
                ax.plot(float(np.mean(seeds)), i, "|", color=INK, markersize=16, markeredgewidth=2)
        ax.set_yticks(range(len(names)), [name if len(name) < 19 else f"{name[:16]}..." for name in names])
        ax.tick_params(axis="y", length=0)
        ax.set_xlim(*_widened(*ax.get_xlim()))
        ax.set_ylim(len(names) - 0.5, -0.5)
    return figure
