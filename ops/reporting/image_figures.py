"""The figures of a run on images: each cluster's nearest images, the hardest pairs, classes against clusters.

Axes: K clusters, M images of a cluster, P pairs, S the side, L classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ops.reporting.theme import LIGHT, Theme, blank, style
from ops.results.stored_images import Confusion, Near, Pairs, StoredPictures

GAP = 0.08  # between images, by their side
ACROSS = 6  # pairs in a row
Made = tuple[Callable[..., Figure | None], str, str, bool]


def picture_figures(found: StoredPictures) -> dict[str, Made]:
    """By file stem: how each figure is made, its title, caption, and whether it shows photos; in the report's order."""
    figures: dict[str, Made] = {}
    if found.near is not None:
        caption = f"Seed {found.seed}, last epoch. Each row is a cluster: its images that are nearest to its centre."
        figures["nearest"] = (partial(nearest, found.near), "Images nearest to each centre", caption, True)
    if found.confusion is not None:
        caption = (
            f"Seed {found.seed}, last epoch; for the reader only, no training sees classes. Each row is a class: how "
            "its images spread over the clusters, in %. Clusters stand in the order of the class that fits them best."
        )
        figures["confusion"] = (partial(confusion, found.confusion), "Classes and clusters", caption, False)
    if found.pairs is not None:
        caption = (
            f"Seed {found.seed}, last epoch. Images that are nearest to each other although they are in different "
            "clusters (the numbers below), and their distance, which is at most 2."
        )
        figures["pairs"] = (partial(pairs, found.pairs), "Hardest pairs", caption, True)
    return figures


def mosaic(images: NDArray[np.uint8], shown: NDArray[np.bool_], theme: Theme) -> NDArray[np.uint8]:
    """Images [R C 3 H W] beside and below each other with gaps: [.., .., 3]; where not `shown` [R C] all is gap."""
    rows, across, _, height, width = images.shape
    gap = max(1, round(GAP * width))
    sheet = np.empty((rows * (height + gap), across * (width + gap), 3), np.uint8)
    sheet[:] = np.rint(np.array(to_rgb(theme.back)) * 255)
    for r in range(rows):
        for c in range(across):
            if shown[r, c]:
                top, left = r * (height + gap), c * (width + gap)
                sheet[top : top + height, left : left + width] = images[r, c].transpose(1, 2, 0)
    return sheet


def nearest(found: Near, theme: Theme = LIGHT) -> Figure:
    """One row a cluster."""
    clusters, across = found.images.shape[:2]
    shown = np.arange(across) < found.count[:, None]
    figure = blank(0.86 * clusters + 0.2, theme)
    ax = figure.add_subplot()
    height = _show(ax, mosaic(found.images, shown, theme), theme) / clusters
    middles = (np.arange(clusters) + 0.5 - GAP / 2) * height
    ax.set_yticks(
        middles, [f"{c}\n{n:,} image{'s' * int(n != 1)}" for c, n in zip(found.cluster, found.size, strict=True)]
    )
    ax.tick_params(axis="y", length=0, labelsize=9, labelcolor=theme.ink)
    return figure


def pairs(found: Pairs, theme: Theme = LIGHT) -> Figure:
    """Two images beside each other, the clusters and the distance below."""
    total, side = len(found.images), found.images.shape[-1]
    rows = -(-total // ACROSS)
    figure = blank(1.15 * rows + 0.2, theme)
    axes = figure.subplots(rows, ACROSS, squeeze=False)
    for number, ax in enumerate(axes.flat):
        ax.set_axis_off()
        if number < total:
            image = np.concatenate(list(found.images[number].transpose(0, 2, 3, 1)), axis=1)
            ax.imshow(image, interpolation="nearest")
            first, second = found.cluster[number]
            text = f"{first} | {second}    {found.value[number]:.3f}"
            ax.text(side, 1.08 * found.images.shape[-2], text, color=theme.ink, fontsize=8.5, ha="center", va="top")
    return figure


def _show(ax: Axes, sheet: NDArray[np.uint8], theme: Theme) -> int:
    """A mosaic without axes; returns its height."""
    style(ax, theme, grid=False)
    ax.imshow(sheet, interpolation="nearest")
    ax.set_xticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return int(sheet.shape[0])


def confusion(found: Confusion, theme: Theme = LIGHT) -> Figure:
    """Shares of each class in %, darker (in dark mode: lighter) the more; counts of 1 % and more are written out."""
    share = 100 * found.table / np.maximum(found.table.sum(1, keepdims=True), 1)
    classes, clusters = share.shape
    side = 0.5 if max(classes, clusters) <= 20 else 0.28
    figure = blank(side * classes + 1.1, theme)
    ax = figure.add_subplot()
    style(ax, theme, grid=False)
    colours = LinearSegmentedColormap.from_list("share", [theme.back, theme.cycle[0]])
    ax.imshow(share, cmap=colours, vmin=0, vmax=100, aspect="auto")
    if side == 0.5:
        for row, column in zip(*np.nonzero(share >= 1), strict=True):
            ink = _readable(colours(share[row, column] / 100)[:3], theme)
            ax.text(column, row, f"{share[row, column]:.0f}", color=ink, fontsize=8.5, ha="center", va="center")
    ax.set_yticks(range(classes), found.classes)
    ax.set_xticks(range(clusters), [str(c) for c in found.order])
    ax.set(xlabel="cluster", ylabel="class")
    ax.tick_params(length=0)
    return figure


def _readable(behind: tuple[float, ...], theme: Theme) -> str:
    """Ink or the theme's back, whichever differs more in lightness from what is behind."""

    def light(colour: tuple[float, ...]) -> float:
        return float(np.dot(colour, (0.299, 0.587, 0.114)))

    return max((theme.ink, theme.back), key=lambda c: abs(light(to_rgb(c)) - light(behind)))
