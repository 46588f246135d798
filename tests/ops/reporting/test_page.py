"""A run's report in a real browser, at the width of a desk and of a telephone: nothing spills, the map answers."""

import numpy as np
import pandas as pd
import pytest
from browser import Page, browser, program
from fabricate import make_run

from ops.reporting.html import write_report
from ops.results.figure_rows import figure_arrays

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium on this machine (apt install chromium)"),
]
SMALL = """[...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
  && [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim()) && parseFloat(getComputedStyle(e).fontSize) < 11)
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 40))"""
WORDS = "document.querySelector('#map [data-map={}]').{}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("page") / "run", rows=120)
    clusters = np.load(folder / "seed-0" / "figures.npz")["cluster"]
    columns = {"seed": 0, "id": [f"row {i}" for i in range(120)], "cluster": clusters, "confidence": 0.5}
    pd.DataFrame(columns).to_parquet(folder / "assignments.parquet")
    return write_report(folder)


@pytest.fixture(scope="module")
def page():
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
def test_the_page_fits_and_the_map_answers(report, page, width):
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


def test_without_javascript_the_static_figure_shows(report, page):
    page.open(report, 1280, script=False)
    shown = (
        "[...document.images].filter(e => e.checkVisibility() && e.alt.startsWith('t-SNE')).map(e => e.naturalWidth)"
    )
    assert min(page.script(shown)) > 100
    assert not page.script("document.querySelector('#map').checkVisibility()")


def test_fifty_thousand_points_are_drawn_at_once(page, tmp_path, monkeypatch):
    rng, n = np.random.default_rng(0), 50_000
    group = rng.integers(0, 12, n)
    x = (rng.standard_normal((n, 9)) + 5 * rng.standard_normal((12, 9))[group]).astype(np.float32)
    folder = make_run(tmp_path / "run", rows=20, seeds=1, dataset={"name": "many", "hash": "3f2a", "rows": n})
    pixels = np.broadcast_to(rng.integers(0, 256, (n, 3, 4, 1), dtype=np.uint8), (n, 3, 4, 4))
    sample = figure_arrays(x, x, group, group, pixels)
    assert sample["thumbnails"].nbytes <= 300_000
    near = sample["more_after"]
    distance = np.linalg.norm(x[sample["more_rows"][:50], None] - x[sample["rows"]], axis=2)
    np.testing.assert_array_equal(np.sort(near[:50]), np.sort(np.argsort(distance)[:, :3]))
    np.savez_compressed(folder / "seed-0" / "figures.npz", **sample)
    columns = {"seed": 0, "id": np.arange(n), "cluster": group, "confidence": rng.random(n)}
    pd.DataFrame(columns).to_parquet(folder / "assignments.parquet")
    places = x[sample["rows"]][:, :2]
    monkeypatch.setattr("ops.reporting.html.tsne", lambda *_: (places, places))  # t-SNE would take a minute

    report = write_report(folder)

    table = pd.read_parquet(folder / "map.parquet")
    np.testing.assert_allclose(table[["projection_x", "projection_y"]].to_numpy()[sample["rows"]], places)
    assert set(table) > {"id", "cluster", "label", "confidence", "column 0"}
    assert report.stat().st_size < 3_000_000
    page.open(report, 1280)
    assert "The other 48,000 rows stand where the three of these" in page.script("document.body.textContent")
    page.mouse("mouseMoved", *on_canvas(page, int(sample["rows"][7])))
    assert page.script("document.querySelector('#map .thumbnail').width") >= 16
    assert "cluster" in page.script(WORDS.format("tip", "textContent"))
    page.script("(() => { const s = document.querySelector('#map [data-map=search]'); s.value = '49999';"
                "s.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert page.script(WORDS.format("said", "textContent")).startswith("49999: cluster ")
    assert page.errors == []
