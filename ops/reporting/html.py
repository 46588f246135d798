"""The report of a run or a search: figures/*.png and one self-contained report.html, from stored files only."""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops.atomic_io import atomic_write
from ops.config.console import as_typed
from ops.reporting import tables
from ops.reporting.answer import answer
from ops.reporting.clusters import cards, farthest_rows, oddest, read_assignments
from ops.reporting.drawings import run_drawings, search_drawings, tsne
from ops.reporting.points import map_data, points_of, write_points
from ops.results.search_schema import SearchResult
from ops.results.stored_run import is_search, read_run

TEMPLATES = Path(__file__).parent
PIXELS = 1.5  # of a picture to one of the page


def write_report(folder: Path) -> Path:
    """Draw a finished run's or search's figures and report.html from its folder; returns the report's path.

    A search's folder also renews best/ (its figures and report), each figure drawn once. Raises DataError for a
    folder that is no finished run or is damaged, SettingsError where it cannot be written.
    """
    search = SearchResult.read(folder / "trials.json") if is_search(folder) else None
    best = folder / "best" if search else folder
    run = read_run(best) if search is None or (best / "result.json").is_file() else None
    drawings = dict[str, list[bytes]]()
    shown = dict[str, object](cards=[], odd=[], far=[], map=None, answer=[], place=best)
    if run:
        places = tsne(run.sample, best / f"seed-{run.seed}" / "tsne.npz") if run.sample else None
        assignments = read_assignments(run)
        drawings = run_drawings(run, places)
        shown |= {"cards": cards(run, assignments), "answer": answer(run.result)}
        shown |= {"odd": oddest(assignments), "far": farthest_rows(run, assignments)}
        if points := points_of(run, places, assignments):
            write_points(points, best / "map.parquet")
            shown["map"] = map_data(points)
    if search is None or run:
        _write(best, drawings, run=run, search=None, **shown)
    if search:
        shown["answer"] = answer(run.result, search) if run else []
        _write(folder, drawings | search_drawings(search), run=run, search=search, **shown)
    return folder / "report.html"


def try_report(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """`write_report` at the end of a training: where it fails, the stored result counts, and `warn` hears of it."""
    try:
        return write_report(folder)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warn(f"the result is stored, but no report ({reason}); python workflows/report.py {folder} draws it again")
        return None


def render(template: str, **values: object) -> str:
    """A template of this package as HTML; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    env.filters["embed"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    env.filters["css_width"] = lambda png: (
        round(int.from_bytes(png[16:20], "big") / PIXELS) or "auto"
    )  # of PNG's header
    env.filters["flags"] = _flags
    env.globals.update(tables=tables, plain=as_typed, script=_script)
    return env.get_template(template).render(values)


def _flags(sentence: str) -> str:
    """A sentence whose flags stay whole where a line ends."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"--[a-z-]+", r"<code>\g<0></code>", str(escape(sentence))))  # noqa: S704  (escaped above)


def _script(data: Mapping[str, object]) -> tuple[str, str]:
    """(JSON of the map, the program that draws it), as they stand inside of a script element."""
    from markupsafe import Markup

    from ops.reporting.theme import CYCLE

    values = json.dumps({**data, "colours": CYCLE}).replace("<", "\\u003c")
    return Markup(values), Markup((TEMPLATES / "map.js").read_text(encoding="utf-8"))  # noqa: S704  (both are ours)


def _write(folder: Path, drawings: Mapping[str, Sequence[bytes]], **stored: object) -> None:
    for name, pictures in drawings.items():
        atomic_write(folder / "figures" / f"{name}.png", pictures[0])
    atomic_write(folder / "report.html", render("report.html.j2", drawings=drawings, **stored))
