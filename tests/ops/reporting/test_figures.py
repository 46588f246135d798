import io
import math
import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ops.reporting import figures, image_figures
from ops.reporting.theme import CYCLE, INK, pngs
from ops.results.schema import CountSweep
from ops.results.search_schema import SearchResult


def history(epochs: int = 30, **extra: float) -> list[dict[str, float]]:
    return [{"epoch": e, "train/loss": 1 / (e + 1), **extra} for e in range(epochs)]


def rows(n: int = 60, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([0, 1])
    cluster = rng.integers(0, k, n)
    return rng.standard_normal((n, 2)) + 10 * cluster[:, None], cluster


def test_png_is_the_same_bytes_each_time_and_leaves_global_settings_alone():
    before = dict(matplotlib.rcParams)
    first, second = (pngs(figures.sizes([3, 9, 4]))[0] for _ in range(2))
    assert first == second
    assert Image.open(io.BytesIO(first)).format == "PNG"
    assert dict(matplotlib.rcParams) == before


def luminance(colour: str) -> float:
    """Relative luminance in [0, 1], as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_a_figure_is_drawn_once_for_light_and_dark_pages():
    image = Image.open(io.BytesIO(pngs(figures.sizes([3, 9, 4]))[0])).convert("RGBA")
    assert image.getpixel((0, 0))[3] == 0  # transparent
    page = (Path(figures.__file__).parent / "page.html.j2").read_text()
    for back in re.findall(r"--back: (#[0-9a-f]{6})", page):
        for colour, least in ((INK, 3.9), *((colour, 1.5) for colour in CYCLE)):
            dark, light = sorted((luminance(colour), luminance(back)))
            assert (light + 0.05) / (dark + 0.05) > least, (colour, back)


def test_embedding_has_a_second_row_only_with_labels():
    points, cluster = rows()
    assert len(figures.embedding(points, points, cluster).axes) == 2
    figure = figures.embedding(points, points, cluster, cluster)
    assert [ax.get_title(loc="left") for ax in figure.axes][2:] == [
        "Before (input), by label",
        "After (embedding), by label",
    ]


def test_labels_take_the_colours_of_the_clusters_that_fit_them():
    points, cluster = rows()
    figure = figures.embedding(points, points, cluster, (cluster + 2) % 5)

    def look(ax: matplotlib.axes.Axes) -> dict[tuple[float, ...], int]:
        return {tuple(c.get_facecolor()[0]): len(c.get_offsets()) for c in ax.collections}

    assert look(figure.axes[0]) == look(figure.axes[2])


def test_more_than_ten_clusters_differ_by_shape():
    points, cluster = rows(300, 20)
    drawn = figures.embedding(points, points, cluster).axes[0].collections
    looks = {(tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in drawn}
    assert len(looks) == 20


def test_similarity_is_sorted_by_cluster_with_a_border_between_clusters():
    cluster = np.array([1, 0, 1, 0, 2])
    figure = figures.similarity(np.eye(3)[cluster], cluster)
    ax = figure.axes[0]
    order = np.array([0, 0, 1, 1, 2])
    np.testing.assert_allclose(ax.images[0].get_array(), order[:, None] == order[None, :])
    assert sorted({float(line.get_xdata()[0]) for line in ax.lines} - {0.0}) == [1.5, 3.5]


def test_similarity_of_zero_rows_and_of_one_cluster():
    assert pngs(figures.similarity(np.zeros((4, 3)), np.zeros(4, dtype=np.int64)))[0]


def test_curves_mark_the_selected_and_the_last_epoch_of_the_first_seed():
    figure = figures.curves({0: history(), 1: history(20)}, figures.CURVES, {0: 10, 1: 12})
    assert figure is not None
    (ax,) = figure.axes  # only the loss has values
    names = ax.get_legend_handles_labels()[1]
    assert names == ["seed 0", "last epoch (the result)", "selected epoch (10)"]
    strong, last, _, _, thin = ax.lines
    assert strong.get_linewidth() > thin.get_linewidth()
    assert list(last.get_xdata()) == [29]


def test_a_value_known_at_update_epochs_only_has_no_last_epoch():
    record = history(30)
    record[0]["hard/fraction"] = 0.5
    record[10]["hard/fraction"] = 0.4
    figure = figures.curves({0: record}, figures.HARD, {0: 20})
    assert figure is not None
    assert figure.axes[0].get_legend_handles_labels()[1] == ["seed 0", "selected epoch (20)"]
    assert len(figure.axes[0].lines) == 2  # no mark beside the curve


def test_curves_leave_out_missing_and_non_finite_values():
    rough = [{"epoch": 0, "train/loss": math.nan}, {"epoch": 1, "train/loss": None}, {"epoch": 2, "train/loss": 0.5}]
    figure = figures.curves({0: rough}, figures.CURVES)
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_xdata()) == [2]
    assert figures.curves({0: rough}, figures.SCORES) is None
    assert figures.curves({}, figures.CURVES) is None


def test_sizes_are_sorted_with_the_clusters_numbers_below():
    ax = figures.sizes([3, 9, 4]).axes[0]
    assert [patch.get_height() for patch in ax.patches] == [9, 4, 3]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "0"]


def test_auto_sweep_marks_the_chosen_number_and_bears_missing_values():
    sweep = CountSweep(k=[2, 3, 4], rank=[3, 1, 2], indices={"silhouette": [0.1, None, 0.2]}, chosen=3)
    figure = figures.auto_sweep(sweep)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Average rank (lower)", "Silhouette (higher)"]
    assert all(ax.get_legend_handles_labels()[1] == ["chosen K = 3"] for ax in figure.axes)


@pytest.mark.parametrize(
    ("values", "scale"), [([0.1, 1.0, 2.0], "linear"), ([1e-4, 1e-2, 1.0], "log"), (["paper", "stale", None], "linear")]
)
def test_search_places_numbers_wide_ranges_and_words(values, scale):
    trials = [
        {"trial": str(i), "settings": {"s": v}, "status": "finished", "score": 0.1 * i} for i, v in enumerate(values)
    ]
    figure = figures.search_settings(search(trials, best="2"), ["s"])
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xscale() == scale
    assert figure.axes[0].get_legend_handles_labels()[1] == ["finished", "best"]


def search(trials: list[dict[str, object]], **more: object) -> SearchResult:
    return SearchResult.model_validate({"method": "hsan", "dataset": "digits", "trials": trials, **more})


def test_search_without_a_score_draws_nothing():
    unscored = search([{"trial": "a", "settings": {"s": 1}, "status": "failed", "score": None}])
    assert figures.search_settings(unscored, ["s"]) is None


def test_comparison_has_a_dot_a_seed():
    figure = figures.comparison(["a", "b"], {"ACC %": [[70.0, 72.0], []], "silhouette": [[0.1], [0.2, 0.3]]})
    assert figure is not None
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [2, 1, 0]
    assert pngs(figure)[0]


def test_cluster_sizes_over_time_are_stacked_and_left_out_where_there_are_none():
    sizes = [{"epoch": e - 1, "head/size_min": 1.0} | ({"head/size_00": 7.0 - e, "head/size_01": 3.0 + e} if e else {})
            for e in range(4)]  # fmt: skip
    figure = figures.sizes_over_time(sizes)
    assert figure is not None
    (ax,) = figure.axes
    top = [collection.get_paths()[0].vertices[:, 1].max() for collection in ax.collections]
    assert top == [6.0, 10.0]
    assert ax.get_xlim() == (0.0, 2.0)
    assert figures.sizes_over_time(history()) is None


@pytest.mark.parametrize("name", ["$x_{$", "$\\frac{1}{2}$", "a$b"])
def test_names_with_dollars_are_no_formulas(name):
    figure = image_figures.confusion(np.eye(2, dtype=np.int64), np.arange(2), [name, "other"])
    assert pngs(figure)[0].startswith(b"\x89PNG")
