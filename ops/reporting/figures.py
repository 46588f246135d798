"""The figures of a run, a search and a comparison, as matplotlib Figures without pyplot or any global state.

Every function takes stored values and a `Theme` and returns a Figure; `canvas.png` turns one into bytes. Only the
report modules import this one, and inside their functions, so that nobody else pays for matplotlib.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ops.reporting.theme import LIGHT, MARKERS, Theme, blank, legend, panels, style

History = Sequence[Mapping[str, Any]]
CURVES = {
    "train/loss": "Loss",
    "tune/score": "Tuning score (higher)",
    "cluster/recall_at_50": "Validation Recall@50 (%)",
    "cluster/silhouette": "Silhouette (higher)",
    "cluster/agreement": "ARI of two views (higher)",
    "collapse/std": "Spread of the projections (0: collapsed)",
    "cluster/modularity": "Modularity (higher)",
    "cluster/conductance": "Mean conductance (lower)",
    "cluster/davies_bouldin": "Davies-Bouldin (lower)",
    "cluster/calinski_harabasz": "Calinski-Harabasz (higher)",
    "cluster/size_gini": "Cluster sizes: Gini",
}
SCORES = {"eval/acc": "ACC (%)", "eval/nmi": "NMI (%)", "eval/ari": "ARI (%)", "eval/f1": "F1 (%)"}
HARD = {"hard/fraction": "Hard pairs (% of all)"}
PERCENT = (*SCORES, *HARD, "cluster/recall_at_50")


def embedding(
    before: NDArray[np.floating[Any]],
    after: NDArray[np.floating[Any]],
    cluster: NDArray[np.int64],
    label: NDArray[np.int64] | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """t-SNE coordinates [n, 2] before and after training beside each other, by cluster [n] and below by label [n]."""
    groups = [("cluster", cluster, {int(c): i for i, c in enumerate(np.unique(cluster))})]
    if label is not None:
        groups.append(("label", label, _follow(cluster, label)))
    figure = blank(4.9 * len(groups), theme)
    axes = figure.subplots(len(groups), 2, squeeze=False)
    for row, (what, values, colours) in zip(axes, groups, strict=True):
        for ax, points, when in zip(row, (before, after), ("Before (input)", "After (embedding)"), strict=True):
            style(ax, theme, f"{when}, by {what}", grid=False)
            _scatter(ax, points, values, colours, theme)
    return figure


def _follow(cluster: NDArray[np.int64], label: NDArray[np.int64]) -> dict[int, int]:
    """Colour number of each label: that of the cluster which fits it best, so that both rows read alike."""
    from scipy.optimize import linear_sum_assignment

    clusters, c = np.unique(cluster, return_inverse=True)
    labels, y = np.unique(label, return_inverse=True)
    table = np.zeros((len(labels), len(clusters)), dtype=np.int64)
    np.add.at(table, (y, c), 1)
    rows, cols = linear_sum_assignment(-table)
    matched = {int(labels[r]): int(k) for r, k in zip(rows, cols, strict=True)}
    rest = [int(value) for value in labels if int(value) not in matched]
    return matched | {value: len(clusters) + i for i, value in enumerate(rest)}


def _scatter(
    ax: Axes, points: NDArray[np.floating[Any]], group: NDArray[np.int64], colours: dict[int, int], theme: Theme
) -> None:
    for value, number in colours.items():
        own = points[group == value]
        colour = theme.cycle[number % len(theme.cycle)]
        marker = MARKERS[number // len(theme.cycle) % len(MARKERS)]
        ax.scatter(own[:, 0], own[:, 1], s=9, color=colour, marker=marker, linewidths=0, alpha=0.85)
    for value in colours:  # after all points, so that no number is covered
        own = points[group == value]
        at = own[np.argmin(np.square(own - np.median(own, axis=0)).sum(axis=1))]  # a member, not empty space
        name = ax.text(float(at[0]), float(at[1]), str(value), color=theme.ink, fontsize=9, fontweight="bold")
        name.set(ha="center", va="center", path_effects=[withStroke(linewidth=2.5, foreground=theme.back)])
    ax.set(xticks=[], yticks=[])
    ax.set_aspect("equal", adjustable="datalim")
    for spine in ax.spines.values():
        spine.set(visible=True, color=theme.grid)


def similarity(after: NDArray[np.floating[Any]], cluster: NDArray[np.int64], theme: Theme = LIGHT) -> Figure:
    """Cosine similarities of the embedding rows [n, D], sorted by cluster [n], with the clusters' borders."""
    unit = after / np.maximum(np.linalg.norm(after, axis=1, keepdims=True), 1e-12)
    order = np.argsort(cluster, kind="stable")
    order = order[:: max(1, math.ceil(len(order) / 1000))]  # evenly thinned: rows beyond the pixels show nothing
    values = unit[order] @ unit[order].T
    figure = blank(6.8, theme, width=8.2)
    ax = figure.add_subplot()
    style(ax, theme, "Cosine similarity of the embedding, rows sorted by cluster", grid=False)
    low = float(np.percentile(values, 1))
    image = ax.imshow(values, cmap="viridis", vmin=min(low, 0.99), vmax=1.0, interpolation="antialiased")
    names, starts, counts = np.unique(cluster[order], return_index=True, return_counts=True)
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", linewidth=0.8)
        ax.axvline(start - 0.5, color="white", linewidth=0.8)
    shown = counts >= len(order) / 60  # the names of tiny clusters would lie over each other
    middles = (starts + (counts - 1) / 2)[shown]
    ax.set_xticks(middles, [str(n) for n in names[shown]])
    ax.set_yticks(middles, [str(n) for n in names[shown]])
    ax.set(xlabel="cluster", ylabel="cluster")
    bar = figure.colorbar(image, ax=ax, shrink=0.8, extend="min")
    bar.ax.tick_params(colors=theme.muted, labelsize=9)
    bar.set_label("cosine similarity", color=theme.muted, fontsize=10)
    bar.outline.set_edgecolor(theme.grid)
    return figure


def curves(
    histories: Mapping[int, History],
    metrics: Mapping[str, str],
    selected: Mapping[int, int] | None = None,
    theme: Theme = LIGHT,
) -> Figure | None:
    """One panel a metric over epochs: the first seed strong, the others thin; the chosen and the last epoch marked.

    `histories` and `selected` (chosen epoch) are by seed. Metrics without a value are left out; None if all are.
    """
    present = {m: t for m, t in metrics.items() if any(len(_points(h, m)[0]) for h in histories.values())}
    if not present:
        return None
    figure, axes = panels(len(present), theme)
    for ax, (metric, title) in zip(axes, present.items(), strict=True):
        style(ax, theme, title)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        for number, (seed, history) in enumerate(histories.items()):
            look = _Look(f"seed {seed}", (selected or {}).get(seed)) if number == 0 else _Look()
            _curve(ax, history, metric, look, theme)
    legend(figure, max(axes, key=lambda ax: len(ax.get_legend_handles_labels()[1])), theme)
    return figure


@dataclass(frozen=True)
class _Look:
    """How a seed's curve is drawn: with its name and chosen epoch, or (None) as one of the thin others."""

    name: str | None = None
    chosen: int | None = None


def _points(history: History, metric: str) -> tuple[list[int], list[float]]:
    scale = 100.0 if metric in PERCENT else 1.0
    pairs = [(int(h["epoch"]), scale * float(h[metric])) for h in history if h.get(metric) is not None]
    pairs = [(e, v) for e, v in pairs if math.isfinite(v)]
    return [e for e, _ in pairs], [v for _, v in pairs]


def _curve(ax: Axes, history: History, metric: str, look: _Look, theme: Theme) -> None:
    epochs, values = _points(history, metric)
    if not epochs:
        return
    if look.name is None:  # another seed: thin, behind, unmarked
        ax.plot(epochs, values, color=theme.muted, linewidth=0.8, alpha=0.55, zorder=2)
        return
    colour, mark, chosen = theme.cycle[0], theme.cycle[6], look.chosen
    ax.plot(epochs, values, color=colour, linewidth=1.9, zorder=4, label=look.name)
    if epochs[-1] == int(history[-1]["epoch"]):  # some values are known at update epochs only
        ax.plot(epochs[-1], values[-1], "o", color=colour, markersize=7, zorder=5, label="last epoch (the result)")
    if chosen is not None:
        ax.axvline(chosen, color=mark, linewidth=1.1, linestyle="--", zorder=3, label=f"selected epoch ({chosen})")
        if epochs[0] <= chosen <= epochs[-1]:
            ax.plot(chosen, np.interp(chosen, epochs, values), "D", color=mark, markersize=4.5, zorder=6)


def sizes(counts: Sequence[int], theme: Theme = LIGHT) -> Figure:
    """Cluster sizes [K] as bars, largest first, with the equal share as a line."""
    order = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    figure = blank(3.2, theme)
    ax = figure.add_subplot()
    style(ax, theme, "Rows in each cluster, largest first")
    ax.grid(visible=False, axis="x")
    places = range(len(order))
    ax.bar(places, [counts[c] for c in order], color=theme.cycle[0], width=0.75)
    share = sum(counts) / len(counts)
    ax.axhline(share, color=theme.cycle[6], linewidth=1.1, linestyle="--", label=f"equal shares ({share:,.0f} rows)")
    if len(order) <= 40:
        ax.set_xticks(list(places), [str(c) for c in order])
    else:
        ax.set_xticks([])
    ax.set(xlabel="cluster", ylabel="rows")
    legend(figure, ax, theme)
    return figure


def sizes_over_time(history: History, theme: Theme = LIGHT) -> Figure | None:
    """A history's `head/size_00`, `head/size_01`, ... stacked over the epochs; None where it has none."""
    names = sorted({m for entry in history for m in entry if re.fullmatch(r"head/size_\d+", m)})
    if not names:
        return None
    epochs = _points(history, names[0])[0]
    figure = blank(3.2, theme)
    ax = figure.add_subplot()
    style(ax, theme, "Rows in each cluster of the trained head over epochs")
    colours = [theme.cycle[i % len(theme.cycle)] for i in range(len(names))]
    rows = [_points(history, name)[1] for name in names]
    ax.stackplot(epochs, rows, colors=colours, labels=[str(int(n[-2:])) for n in names], edgecolor=theme.back)
    ax.set(xlabel="epoch", ylabel="rows", xlim=(epochs[0], max(epochs[-1], epochs[0] + 1)), ylim=(0, None))
    if len(names) <= len(theme.cycle):
        legend(figure, ax, theme)
    return figure


def auto_sweep(auto: Mapping[str, Any], theme: Theme = LIGHT) -> Figure:
    """auto.json: the panel's average rank and each label-free index over the number of clusters, the chosen marked."""
    series = {"Average rank (lower)": auto.get("rank") or [], **(auto.get("indices") or {})}
    series = {name: values for name, values in series.items() if len(values) == len(auto["k"])}
    figure, axes = panels(len(series), theme)
    for ax, (name, values) in zip(axes, series.items(), strict=True):
        style(ax, theme, CURVES.get(f"cluster/{name}", name))
        numbers = [math.nan if v is None else float(v) for v in values]
        ax.plot(auto["k"], numbers, "-o", color=theme.cycle[0], linewidth=1.6, markersize=4)
        ax.axvline(
            auto["chosen"], color=theme.cycle[6], linewidth=1.1, linestyle="--", label=f"chosen K = {auto['chosen']}"
        )
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        ax.set_xlabel("number of clusters K")
    if axes:
        legend(figure, axes[0], theme)
    return figure


def search(study: Mapping[str, Any], names: Sequence[str], theme: Theme = LIGHT) -> Figure | None:
    """One panel a searched setting: its value against the objective, by status, the best trial as a star."""
    trials = [t for t in study.get("trials") or [] if t.get("score") is not None and math.isfinite(t["score"])]
    if not trials or not names:
        return None
    figure, axes = panels(len(names), theme, height=3.0)
    looks = {"finished": (theme.cycle[0], "o"), "stopped": (theme.muted, "v"), "failed": (theme.cycle[2], "X")}
    for ax, name in zip(axes, names, strict=True):
        style(ax, theme)
        place = _places(ax, [(t.get("settings") or {}).get(name) for t in trials])
        for status, (colour, marker) in looks.items():
            own = [i for i, t in enumerate(trials) if t.get("status") == status]
            if own:
                scores = [trials[i]["score"] for i in own]
                ax.scatter([place[i] for i in own], scores, s=34, color=colour, marker=marker, label=status, zorder=3)
        best = [i for i, t in enumerate(trials) if t["trial"] == study.get("best")]
        if best:
            at = ([place[best[0]]], [trials[best[0]]["score"]])
            ax.scatter(*at, s=190, color=theme.cycle[6], marker="*", label="best", zorder=4)
        ax.set(xlabel=name, ylabel=str(study.get("objective", "tune/score")) if ax is axes[0] else "")
    legend(figure, axes[0], theme)
    return figure


def _places(ax: Axes, values: Sequence[Any]) -> list[float]:
    """Where values stand on the x axis: numbers as such (on a log scale over a wide range), others by category."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        if min(values) > 0 and max(values) / min(values) > 30:
            ax.set_xscale("log")
        elif all(isinstance(v, int) for v in values):
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        return [float(v) for v in values]
    kinds = sorted({str(v) for v in values})
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set_xlim(-0.5, len(kinds) - 0.5)
    return [float(kinds.index(str(v))) for v in values]


def comparison(
    names: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]], theme: Theme = LIGHT
) -> Figure | None:
    """`last` of several runs: one panel a metric, one line a run, a dot a seed and a bar at the mean.

    `values` is by the panel's title, then by run (as in `names`), then by seed; a run without it has an empty list.
    """
    if not values:
        return None
    figure, axes = panels(len(values), theme, height=1.1 + 0.3 * len(names))
    for ax, (title, by_run) in zip(axes, values.items(), strict=True):
        style(ax, theme, title)
        for i, own in enumerate(by_run):
            ax.plot(own, [i] * len(own), "o", color=theme.cycle[0], markersize=5, alpha=0.75, markeredgewidth=0)
            if own:
                ax.plot(float(np.mean(own)), i, "|", color=theme.ink, markersize=16, markeredgewidth=2)
        place = ax.get_subplotspec()
        first = place is None or place.is_first_col()
        ax.set_yticks(range(len(names)), list(names) if first else [""] * len(names))
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(names) - 0.5, -0.5)
    return figure
