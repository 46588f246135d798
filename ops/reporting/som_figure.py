"""The picture of a self-organising map: how far apart neighbouring units are, how many rows hit each, its clusters.

Axes: R rows and C columns of the grid.
"""

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ops.reporting.theme import CYCLE, DARK, INK, PALE, blank, colour_bar, heatmap, name_point

SHADES = 32  # fewer colours to keep in a picture of 256
LARGEST = 0.86  # a circle's diameter where most rows are, in cells


def som_picture(
    umatrix: Float[np.ndarray, "R C"], hits: Int64[np.ndarray, "R C"], clusters: Int64[np.ndarray, "R C"]
) -> Figure:
    """The U-matrix as shades, hits as circle areas in their cluster's colour, borders and numbers of clusters.

    Empty units have no circle. A cluster's number stands at its unit with the most rows; above ten clusters colours
    repeat, but not side by side (as far as ten colours allow).
    """
    rows, columns = umatrix.shape
    width = 4.0 + 1.4
    flat = columns >= 3 * rows  # a bar beside it would be longer than the map is high
    height = float(np.clip((width - 1.4) * rows / columns, 0.6, 6.0)) + (1.8 if flat else 0.9)
    shades = LinearSegmentedColormap.from_list("clear to ink", [f"{INK}00", f"{INK}e0"], SHADES)
    look = {"cmap": shades, "vmin": 0, "vmax": max(float(umatrix.max()), 1e-12), "interpolation": "nearest"}
    figure = blank(height, width)
    ax, image = heatmap(figure, umatrix, "U-matrix, rows and clusters", **look)
    _circles(ax, hits, clusters)
    lines = LineCollection(_borders(clusters), colors=DARK, linewidths=1.4, capstyle="round")
    lines.set(path_effects=[withStroke(linewidth=3.2, foreground=PALE)], snap=False)  # snapped, they would lie apart
    ax.add_collection(lines)
    for cluster in np.unique(clusters):
        inside = np.where(clusters == cluster, hits, -1)
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        name_point(ax, float(column), float(row), str(cluster))
    ax.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    most = f"largest circle: {int(hits.max()):,} of {int(hits.sum()):,} rows"
    ax.set_xlabel(f"{rows} x {columns} units; {most};\nempty units: {int(np.sum(hits == 0))}")
    side = "bottom" if flat else "right"
    colour_bar(image, "mean distance to the neighbouring units", shrink=0.85, location=side)
    return figure


def _circles(ax: Axes, hits: Int64[np.ndarray, "R C"], clusters: Int64[np.ndarray, "R C"]) -> None:
    row, column = np.nonzero(hits)
    across = LARGEST * np.sqrt(hits[row, column] / max(int(hits.max()), 1))
    numbers = _colours(clusters, len(CYCLE))
    ax.add_collection(
        EllipseCollection(
            across, across, np.zeros(len(across)), units="xy", offsets=np.column_stack([column, row]), zorder=3,
            offset_transform=ax.transData, facecolors=[CYCLE[numbers[int(c)]] for c in clusters[row, column]],
        )
    )  # fmt: skip


def _colours(clusters: Int64[np.ndarray, "R C"], available: int) -> dict[int, int]:
    """A colour number a cluster: its number where that is free, else the next that no neighbour on the map has."""
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
    """Line pieces between neighbouring units of different clusters, ((x, y), (x, y)) on the grid."""
    upright = np.argwhere(clusters[:, 1:] != clusters[:, :-1]).tolist()
    level = np.argwhere(clusters[1:] != clusters[:-1]).tolist()
    return [[(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)] for r, c in upright] + [
        [(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in level
    ]
