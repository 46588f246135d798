"""The look of all figures, and the helpers that they share.

A figure is drawn once, on a transparent background, in colours that can be read on a white and on a dark page. No
pyplot and no global state. Only the report's functions import this module, so that nobody else pays for matplotlib.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

INK = "#757f8c"  # text and lines: a contrast of 4 to white and to the page's dark background
GRID = "#757f8c50"
DARK, PALE = "#12181f", "#ffffff"  # of what stands on colours
# Petroff's palette, made for colour-blind readers, its extremes brought to a middle lightness
CYCLE = ("#3f90da", "#f5a30f", "#d13f24", "#94a4a2", "#9a52cf", "#a96b59", "#e76300", "#b9ac70", "#7d8190", "#6fc3c7")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")  # colours repeat after ten clusters, so the shape changes there
DPI = 150
WIDTH = 10.0  # inches, of figures with panels, which pages show apart
NARROW = 5.0  # of figures with one panel; its text can be read where it is 340 pixels wide
HALO = [withStroke(linewidth=2.5, foreground=PALE)]  # around dark text on any ground


def pngs(figure: Figure, all_colours: bool = False) -> list[bytes]:
    """A Figure as PNG, then each of its panels (axes with a title) and its legend apart, if there are several panels.

    The same bytes for the same Figure (no date inside), in 256 colours or in all. A page puts as many panels beside
    each other as there is room for: on a telephone one.
    """
    image, panels = _rendered(figure), [ax for ax in figure.axes if ax.get_title(loc="left")]
    if len(panels) < 2:
        return [_bytes(image, all_colours)]
    boxes = [box for ax in panels if (box := ax.get_tightbbox()) is not None]
    boxes += [each.get_window_extent() for each in figure.legends]
    height = image.height
    cut = [
        image.crop((round(box.x0 - 5), round(height - box.y1 - 5), round(box.x1 + 5), round(height - box.y0 + 5)))
        for box in boxes
    ]
    return [_bytes(each, all_colours) for each in (image, *cut)]


def _rendered(figure: Figure) -> "Image.Image":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    figure.patch.set_alpha(0)
    for ax in figure.axes:
        ax.patch.set_alpha(0)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # a class `$x_{$` is no formula
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy())


def _bytes(image: "Image.Image", all_colours: bool) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    few = image if all_colours else image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    return content.getvalue()


def blank(height: float, width: float = WIDTH) -> Figure:
    """An empty Figure of `height` and `width` inches."""
    return Figure(figsize=(width, height), layout="constrained")


def text_size(figure: Any) -> float:
    """Points of a figure's text: larger in narrow figures, whose width a telephone's screen has to do for."""
    return 12.0 if figure.get_figwidth() <= 6 else 9.5


def style(ax: Axes, title: str = "", *, frame: Sequence[str] = ("left", "bottom"), grid: bool = True) -> Axes:
    """Quiet axes with the spines of `frame`, the title on the left."""
    size = text_size(ax.figure)
    ax.set_title(title, color=INK, fontsize=size + 1, loc="left")
    ax.tick_params(colors=INK, labelsize=size, length=3)
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set(color=INK, fontsize=size)
    for name, spine in ax.spines.items():
        spine.set(visible=name in frame, color=GRID)
    if grid:
        ax.grid(color=GRID, linewidth=0.7)
        ax.set_axisbelow(True)
    return ax


def heatmap(figure: Figure, values: NDArray[np.number], title: str = "", **look: Any) -> tuple[Axes, AxesImage]:
    """Axes without a grid that show a matrix; `look` is passed to `imshow`."""
    ax = style(figure.add_subplot(), title, frame=(), grid=False)
    return ax, ax.imshow(values, **look)


def colour_bar(image: AxesImage, label: str, **look: Any) -> Axes:
    """The bar beside a heat map; `look` is passed to `colorbar`."""
    assert image.axes is not None
    bar = image.axes.figure.colorbar(image, ax=image.axes, **look)
    size = text_size(image.axes.figure)
    bar.ax.tick_params(colors=INK, labelsize=size)
    bar.set_label(label, color=INK, fontsize=size)
    bar.outline.set_edgecolor(GRID)
    return bar.ax


def name_point(ax: Axes, x: float, y: float, text: str) -> None:
    """A bold name at a point, readable on any ground."""
    size = text_size(ax.figure)
    ax.text(
        x, y, text, color=DARK, path_effects=HALO, fontsize=size, fontweight="bold", ha="center", va="center", zorder=5
    )


def panels(count: int, height: float = 2.6) -> tuple[Figure, list[Axes]]:
    """A Figure with `count` axes in rows of at most three, all as wide as each other, a row `height` inches."""
    across = min(3, max(count, 1))
    rows = math.ceil(count / across)
    figure = blank(height * rows + 0.5, WIDTH / 3 * across if count > 1 else NARROW)
    grid = figure.add_gridspec(rows, across)
    return figure, [style(figure.add_subplot(grid[i // across, i % across])) for i in range(count)]


def legend(figure: Figure, ax: Axes) -> None:
    """One legend for all panels, below them, so that it covers no data."""
    handles, names = ax.get_legend_handles_labels()
    if names:
        ncols, size = 2 if figure.get_figwidth() > 6 else 1, text_size(figure)
        figure.legend(
            handles, names, loc="outside lower center", ncols=ncols, frameon=False, fontsize=size, labelcolor=INK
        )
