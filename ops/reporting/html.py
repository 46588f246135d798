"""The report of a run or a search: figures/*.png and one self-contained report.html, from stored files only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops.atomic_io import atomic_write
from ops.config.console import plain
from ops.reporting import tables
from ops.reporting.drawings import run_drawings, search_drawings
from ops.results.schema import SearchResult
from ops.results.stored_run import is_search, read_run


def write_report(folder: Path) -> Path:
    """Draw a finished run's or search's figures and report.html from its folder; returns the report's path.

    A search's folder also renews best/ (its figures and report), each figure drawn once. Raises DataError for a
    folder that is no finished run or is damaged, SettingsError where it cannot be written.
    """
    search = SearchResult.read(folder / "trials.json") if is_search(folder) else None
    best = folder / "best" if search else folder
    run = read_run(best) if search is None or (best / "result.json").is_file() else None
    drawings = run_drawings(run) if run else {}
    if search is None or run:
        _write(best, drawings, run=run, search=None)
    if search:
        _write(folder, drawings | search_drawings(search), run=run, search=search)
    return folder / "report.html"


def try_report(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """`write_report` at the end of a training: where it fails, the stored result counts, and `warn` hears of it."""
    try:
        return write_report(folder)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warn(f"the result is stored, but no report ({reason}); python workflows/report.py {folder} draws it again")
        return None


def page(title: str, sections: Sequence[tuple[str, str]], drawings: Mapping[str, bytes]) -> str:
    """A self-contained HTML page in the reports' look: (heading, preformatted text) and PNG figures by caption."""
    return render("page.html.j2", title=title, sections=sections, drawings=drawings)


def render(template: str, **values: Any) -> str:
    """A template of this package as HTML; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    env = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    env.filters["embed"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    env.globals.update(tables=tables, plain=plain)
    return env.get_template(template).render(values)


def _write(folder: Path, drawings: Mapping[str, bytes], **stored: Any) -> None:
    for name, picture in drawings.items():
        atomic_write(folder / "figures" / f"{name}.png", picture)
    atomic_write(folder / "report.html", render("report.html.j2", drawings=drawings, **stored))
