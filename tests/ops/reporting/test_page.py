"""A run's report in a real browser, at the width of a desk and of a telephone: nothing spills, the map answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Page, browser, program
from fabricate import make_run
from jinja2 import Environment, FileSystemLoader

from ops.reporting.clusters import _groups, _places
from ops.reporting.html import TEMPLATES, _script, render, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium on this machine (apt install chromium)"),
]
SMALL = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
  && [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11)
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 40))"""
WORDS = "document.querySelector('#map [data-map={}]').{}"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("page") / "run", rows=120)
    clusters = np.load(folder / "seed-0" / "figures.npz")["cluster"]
    columns = {"seed": 0, "id": [f"row {i}" for i in range(120)], "cluster": clusters, "confidence": 0.5}
    pd.DataFrame(columns).to_parquet(folder / "assignments.parquet")
    return write_report(folder)


@pytest.fixture(scope="module")
def page() -> Page:
    with browser() as opened:
        yield opened


def on_canvas(page: Page, row: int) -> tuple[float, float]:
    """Where a point is in the window."""
    place = page.script(
        f"(() => {{ const c = document.querySelector('#map canvas'); c.scrollIntoView({{block: 'center'}});"
        f"const b = c.getBoundingClientRect(), [x, y] = document.querySelector('#map').place({row});"
        "return [b.left + x, b.top + y]; })()"
    )
    return place[0], place[1]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_the_map_answers(report: Path, page: Page, width: int) -> None:
    page.open(report, width)
    assert page.script("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.script(SMALL) == []
    x, y = on_canvas(page, 5)
    page.mouse("mouseMoved", x, y)
    said = page.script(WORDS.format("tip", "textContent"))
    assert "cluster" in said
    assert "confidence 0.5" in said
    page.script("(() => { const s = document.querySelector('#map [data-map=search]'); s.value = 'row 7';"
                "s.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert page.script(WORDS.format("said", "textContent")).startswith("row 7: cluster ")
    page.script(WORDS.format("home", "click()"))
    page.script(WORDS.format("lasso", "click()"))
    left, top, right, bottom = page.script(
        "(() => { const b = document.querySelector('#map canvas').getBoundingClientRect();"
        "return [b.left + 2, b.top + 2, b.right - 2, b.bottom - 2]; })()"
    )
    page.drag([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    ids = page.script(WORDS.format("ids", "value")).split("\n")
    assert sorted(ids) == sorted(f"row {i}" for i in range(120))
    first = "#map [data-map=legend] button"
    page.script(f"document.querySelector('{first}').click()")
    assert page.script(f"document.querySelector('{first}').getAttribute('aria-pressed')") == "false"
    page.drag([(left, top), (right, top)])  # no lasso any more: the map moves
    page.script(WORDS.format("lasso", "click()"))
    page.script(WORDS.format("home", "click()"))
    page.drag([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)])
    assert len(page.script(WORDS.format("ids", "value")).split("\n")) < 120
    assert page.errors == []


def test_without_javascript_the_static_figure_shows(report: Path, page: Page) -> None:
    page.open(report, 1280, script=False)
    shown = (
        "[...document.images].filter(e => e.checkVisibility() && e.alt.startsWith('t-SNE')).map(e => e.naturalWidth)"
    )
    assert min(page.script(shown)) > 100
    assert not page.script("document.querySelector('#map').checkVisibility()")


def test_fifty_thousand_points_are_drawn_at_once(page: Page, tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 50_000
    group = rng.integers(0, 12, n)
    xy = rng.standard_normal((n, 2)) + 8 * np.stack([np.cos(group), np.sin(group)], axis=1)
    data = {"n": n, "ids": list(map(str, range(n))), "layouts": [{"name": "after", "xy": _places(xy)}],
            "channels": [_groups("cluster", group)]}  # fmt: skip
    values, script = _script(data)
    body = render("page.html.j2", title="map", sections=[], drawings={})
    map_of = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True).get_template("map.html.j2").module
    (tmp_path / "map.html").write_text(body.replace("</main>", f"{map_of.interactive(values, script, '')}</main>"))
    page.open(tmp_path / "map.html", 1280)
    x, y = on_canvas(page, 49_999)
    page.mouse("mouseMoved", x, y)
    assert "cluster" in page.script(WORDS.format("tip", "textContent"))
    assert (tmp_path / "map.html").stat().st_size < 3_000_000
    assert page.errors == []
