"""The look of all figures: colours of the light and dark mode, plain axes, panels, and Figures as PNG bytes."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

MARKERS = ("o", "^", "s", "D", "v", "P", "X")  # colours repeat after ten clusters, so the shape changes there
WIDTH = 10.0  # inches: the reports show figures at one width


@dataclass(frozen=True)
class Theme:
    """Colours of one mode. `cycle` is Petroff's palette, made for colour-blind readers, lightened on dark."""

    back: str
    ink: str
    muted: str
    grid: str
    cycle: tuple[str, ...]


LIGHT = Theme(
    back="#ffffff", ink="#1d2733", muted="#5b6776", grid="#e3e7ec",
    cycle=(
        "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
        "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
    ),
)  # fmt: skip
DARK = Theme(
    back="#1a2028", ink="#e4e9ef", muted="#a3afbd", grid="#323b47",
    cycle=(
        "#5fa8ea", "#ffb733", "#e0523a", "#b3c0be", "#b06bdc",
        "#c98f7e", "#f58634", "#cabf8a", "#969aa6", "#92dadd",
    ),
)  # fmt: skip


def png(figure: Figure, dpi: int = 110, photos: bool = False) -> bytes:
    """A Figure as PNG bytes, the same bytes for the same Figure (no date inside), in 256 colours to stay small.

    `photos` need all of their colours.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    small = io.BytesIO()
    image = Image.fromarray(pixels).convert("RGB")
    few = image if photos else image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(small, "PNG")
    return small.getvalue()


def blank(height: float, theme: Theme, width: float = WIDTH) -> Figure:
    """An empty Figure of `height` and `width` inches."""
    return Figure(figsize=(width, height), layout="constrained", facecolor=theme.back)


def style(ax: Axes, theme: Theme, title: str = "", grid: bool = True) -> None:
    """Quiet axes in the theme's colours, the title on the left."""
    ax.set_facecolor(theme.back)
    ax.set_title(title, color=theme.ink, fontsize=11, loc="left")
    ax.tick_params(colors=theme.muted, labelsize=9, length=3)
    ax.xaxis.label.set(color=theme.muted, fontsize=10)
    ax.yaxis.label.set(color=theme.muted, fontsize=10)
    for name, spine in ax.spines.items():
        spine.set(visible=name in ("left", "bottom"), color=theme.grid)
    if grid:
        ax.grid(color=theme.grid, linewidth=0.7)
        ax.set_axisbelow(True)


def panels(count: int, theme: Theme, height: float = 2.5) -> tuple[Figure, list[Axes]]:
    """A Figure with `count` axes in rows of at most four, each row `height` inches."""
    across = 4 if count in (4, 7, 8) else min(3, max(count, 1))  # leaves the fewest gaps in the last row
    rows = math.ceil(count / across)
    figure = blank(height * rows + 0.5, theme)
    grid = figure.add_gridspec(rows, across)
    return figure, [figure.add_subplot(grid[i // across, i % across]) for i in range(count)]


def legend(figure: Figure, ax: Axes, theme: Theme) -> None:
    """One legend for all panels, below them, so that it covers no data."""
    handles, names = ax.get_legend_handles_labels()
    if names:
        figure.legend(
            handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=theme.ink
        )
