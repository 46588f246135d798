"""The picture of a self-organising map: how far apart neighbouring units are, how many rows hit each, its clusters.

Axes: R rows and C columns of the grid.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ops.reporting.theme import LIGHT, Theme, blank, style

MAPS = {True: "Greys", False: "Greys_r"}  # far apart is dark on white and light on black
SHADES = 32  # fewer colours to keep in a picture of 256
LARGEST = 0.86  # a circle's diameter where most rows are, in cells


def som_picture(
    umatrix: Float[np.ndarray, "R C"],
    hits: Int64[np.ndarray, "R C"],
    clusters: Int64[np.ndarray, "R C"],
    theme: Theme = LIGHT,
) -> Figure:
    """The U-matrix as shades, hits as circle areas in their cluster's colour, borders and numbers of clusters.

    Empty units have no circle. A cluster's number stands at its unit with the most rows; above ten clusters colours
    repeat, but not side by side (as far as ten colours allow).
    """
    from matplotlib import colormaps

    rows, columns = umatrix.shape
    width = float(np.clip(columns * 0.5, 4.5, 9.0)) + 1.4
    flat = columns >= 3 * rows  # a bar beside it would be longer than the map is high
    height = float(np.clip((width - 1.4) * rows / columns, 0.6, 9.0)) + (1.8 if flat else 0.9)
    figure = blank(height, theme, width)
    ax = figure.add_subplot()
    style(ax, theme, "U-matrix, rows a unit and clusters", grid=False)
    # shades stay clear of the background's opposite, so that circles stand out
    top = max(float(umatrix.max()) * 1.35, 1e-12)
    shades = colormaps[MAPS[theme.back == LIGHT.back]].resampled(SHADES)
    image = ax.imshow(umatrix, cmap=shades, vmin=0, vmax=top, interpolation="nearest")
    _circles(ax, hits, clusters, theme)
    ax.add_collection(LineCollection(_borders(clusters), colors=theme.ink, linewidths=1.8, capstyle="round"))
    _names(ax, hits, clusters, theme)
    ax.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    most = f"largest circle: {int(hits.max()):,} of {int(hits.sum()):,} rows"
    ax.set_xlabel(f"{rows} x {columns} units; {most}; empty units: {int(np.sum(hits == 0))}")
    bar = figure.colorbar(image, ax=ax, shrink=0.85, location="bottom" if flat else "right")
    (bar.ax.set_xlim if flat else bar.ax.set_ylim)(0, max(float(umatrix.max()), 1e-12))
    bar.ax.tick_params(colors=theme.muted, labelsize=9)
    bar.set_label("mean distance to the neighbouring units", color=theme.muted, fontsize=10)
    bar.outline.set_edgecolor(theme.grid)
    return figure


def _circles(ax: Axes, hits: Int64[np.ndarray, "R C"], clusters: Int64[np.ndarray, "R C"], theme: Theme) -> None:
    from matplotlib.collections import EllipseCollection

    row, column = np.nonzero(hits)
    across = LARGEST * np.sqrt(hits[row, column] / max(int(hits.max()), 1))
    numbers = _colours(clusters, len(theme.cycle))
    colours = [theme.cycle[numbers[int(c)]] for c in clusters[row, column]]
    ax.add_collection(
        EllipseCollection(
            across, across, np.zeros(len(across)), units="xy", offsets=np.column_stack([column, row]),
            offset_transform=ax.transData, facecolors=colours, edgecolors=theme.back, linewidths=0.6, zorder=3,
        )
    )  # fmt: skip


def _colours(clusters: Int64[np.ndarray, "R C"], available: int) -> dict[int, int]:
    """A colour number a cluster: its own number where that is free, else the next that no neighbour on the map has."""
    views = ((clusters[1:], clusters[:-1]), (clusters[:, 1:], clusters[:, :-1]),
             (clusters[1:, 1:], clusters[:-1, :-1]), (clusters[1:, :-1], clusters[:-1, 1:]))  # fmt: skip
    pairs = {(int(a), int(b)) for x, y in views for a, b in zip(x.ravel(), y.ravel(), strict=True) if a != b}
    chosen: dict[int, int] = {}
    for cluster in np.unique(clusters).tolist():
        beside = {chosen.get(b if a == cluster else a) for a, b in pairs if cluster in (a, b)}
        order = [(cluster + i) % available for i in range(available)]
        chosen[cluster] = next((c for c in order if c not in beside), order[0])
    return chosen


def _borders(clusters: Int64[np.ndarray, "R C"]) -> list[list[tuple[float, float]]]:
    """Line pieces between neighbouring units of different clusters, ((x, y), (x, y)) in grid places."""
    row, column = np.nonzero(clusters[:, 1:] != clusters[:, :-1])
    upright = [[(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)] for r, c in zip(row.tolist(), column.tolist(), strict=True)]
    row, column = np.nonzero(clusters[1:] != clusters[:-1])
    level = [[(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in zip(row.tolist(), column.tolist(), strict=True)]
    return upright + level


def _names(ax: Axes, hits: Int64[np.ndarray, "R C"], clusters: Int64[np.ndarray, "R C"], theme: Theme) -> None:
    for cluster in np.unique(clusters):
        own = np.where(clusters == cluster, hits, -1)
        row, column = np.unravel_index(int(own.argmax()), own.shape)
        name = ax.text(float(column), float(row), str(cluster), color=theme.ink, fontsize=9, fontweight="bold")
        name.set(ha="center", va="center", zorder=5, path_effects=[withStroke(linewidth=2.5, foreground=theme.back)])
