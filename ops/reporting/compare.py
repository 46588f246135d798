"""Several finished runs side by side: one table for the terminal, one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ops.config.console import NOTHING, plain
from ops.errors import SettingsError
from ops.reporting import tables
from ops.results.schema import read_result, write_file
from ops.results.stored_users import hidden_scores, method_row, test_scores

COSTS = {"seconds": "seconds", "cpu_seconds": "CPU s", "peak_memory_gib": "GiB"}
NO_COSTS = ("",) * len(COSTS)


@dataclass(frozen=True)
class Line:
    """One row of a comparison: its figures and, in a run's first row, the run, its method and what it cost."""

    run: str
    method: str
    row: tables.Row
    costs: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """The lines of all runs on one data set, and the metrics of which any line has a value."""

    title: str
    lines: list[Line]
    columns: list[str]


@dataclass(frozen=True)
class Comparison:
    """What both outputs show: one group a data set; `differing` is a setting's name -> its value by run."""

    results: dict[str, dict[str, Any]]
    groups: list[Group]
    differing: dict[str, list[str]]
    warning: str | None


def comparison_table(runs: Sequence[Path]) -> str:
    """The runs as text, by data set: last, selected and oracle of each, the baselines, costs, differing settings.

    Runs on users also have recall and link scores on the edges hidden for the test, of the last epoch.

    Raises DataError for a folder that is no finished run, SettingsError without runs.
    """
    made = compare(runs)
    blocks = [f"Warning: {made.warning}"] if made.warning else []
    for group in made.groups:
        header = ["run", "method", "figures", *(tables.TITLES[c] for c in group.columns), *COSTS.values()]
        body = [
            [
                line.run,
                line.method,
                _figures(line.row),
                *(tables.cell(line.row.metrics, c) for c in group.columns),
                *line.costs,
            ]
            for line in group.lines
        ]
        blocks.append(f"{group.title}\n{tables.text_table(header, body, left=3)}")
    if any(line.row.kind == "oracle" for group in made.groups for line in group.lines):
        blocks.append(f"* oracle: {tables.ORACLE_NOTE}")
    if made.differing:
        body = [[key, *values] for key, values in made.differing.items()]
        blocks.append("Settings that differ\n" + tables.text_table(["setting", *made.results], body))
    elif len(made.results) > 1:
        blocks.append("No setting differs.")
    return "\n\n".join(blocks)


def _figures(row: tables.Row) -> str:
    return f"{row.name} *" if row.kind == "oracle" else row.name


def write_compare(runs: Sequence[Path], out: Path) -> Path:
    """The comparison as one HTML file at `out` (in it as compare.html where it is a folder); returns its path.

    Raises what `comparison_table` raises, and SettingsError where `out` cannot be written.
    """
    from ops.reporting.html import draw, render

    made = compare(runs)
    target = out / "compare.html" if out.is_dir() else out
    figures = []
    for group in made.groups:
        caption = f"{group.title}. A dot is a seed, a bar the mean over the run's seeds."
        figures.append(draw(partial(_figure, group), "Last epoch of each run", caption))
    page = render("compare.html.j2", made=made, groups=list(zip(made.groups, figures, strict=True)), costs=COSTS)
    write_file(target, page.encode())
    return target


def compare(runs: Sequence[Path]) -> Comparison:
    """Read the runs and lay them out; raises as `comparison_table`."""
    if not runs:
        raise SettingsError("compare: no run given; name one or more run folders OUT/NAME")
    results = {name: read_result(path) for name, path in zip(_names(runs), runs, strict=True)}
    by_data: dict[str, list[str]] = {}
    for name, result in results.items():
        by_data.setdefault(str(result["dataset"].get("hash")), []).append(name)
    groups = []
    for names in by_data.values():
        lines = _lines({name: results[name] for name in names})
        title = _title(results[names[0]]["dataset"])
        groups.append(Group(title, lines, _columns([line.row for line in lines])))
    stored = list(results.values())
    return Comparison(results, groups, _differing(stored), _warning(stored))


def _columns(rows: Sequence[tables.Row]) -> list[str]:
    """What there is; beside scores on hidden edges fewer indices of the clusters, so that a page holds them."""
    hidden = tables.columns(rows, tables.HIDDEN)
    wanted = (*tables.LABELLED, *tables.HIDDEN, *tables.SHORT[len(tables.LABELLED) :]) if hidden else tables.TITLES
    return tables.columns(rows, tuple(wanted))


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as tell them apart; the same folder twice is an error."""
    whole = [path.resolve() for path in runs]
    twice = next((path for path in whole if whole.count(path) > 1), None)
    if twice is not None:
        raise SettingsError(f"compare: {twice.name} is given twice; name each run once")
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(whole):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]


def _title(dataset: Mapping[str, Any]) -> str:
    rows = dataset.get("rows")
    size = f", {rows:,} rows" if isinstance(rows, int) else ""
    return f"{dataset.get('name', 'unnamed data')}{size}, hash {str(dataset.get('hash'))[:12]}"


def _lines(results: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """Each run's rows, then the baselines: once where the runs agree on them, else by run."""
    lines: list[Line] = []
    baselines: dict[tuple[str, str], list[tuple[str, tables.Row]]] = {}
    for name, result in results.items():
        costs = tuple(_cost(result.get(key)) for key in COSTS)
        first, *rest = (row for row in tables.result_rows(result) if row.kind != "baseline")
        first = replace(first, metrics=first.metrics | hidden_scores(result))  # told of the last epoch only
        lines.append(Line(name, (method_row(result) or {"name": str(result["method"])})["name"], first, costs))
        lines += [Line("", "", row, NO_COSTS) for row in rest]
        for row in (*tables.baseline_rows(result), *_without_training(result)):
            baselines.setdefault((row.name, json.dumps(row.metrics, sort_keys=True)), []).append((name, row))
    names = [name for name, _ in baselines]
    for (name, _), owners in sorted(baselines.items(), key=lambda item: names.index(item[0][0])):
        of = "" if names.count(name) == 1 else ", ".join(owner for owner, _ in owners)
        lines.append(Line(of, "baseline", owners[0][1], NO_COSTS))
    return lines


def _without_training(result: Mapping[str, Any]) -> list[tables.Row]:
    """The recall of what takes no method, as baselines: popularity and user-kNN."""
    rows = [row for row in (result.get("recall") or {}).get("rows", []) if not row["name"].startswith(result["method"])]
    return [tables.Row("baseline", row["name"], "baseline", test_scores(row)) for row in rows]


def _cost(value: Any) -> str:
    if not isinstance(value, (int, float)):
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _differing(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Method, seeds and settings whose values are not the same in all runs, by run; a dash where a run has none."""
    table: dict[str, list[Any]] = {"method": [r["method"] for r in results], "seeds": [r["seeds"] for r in results]}
    for key in dict.fromkeys(key for r in results for key in r["settings"]):
        table[key] = [(r["settings"].get(key) or {}).get("value") for r in results]
    return {k: [plain(v) for v in values] for k, values in table.items() if any(v != values[0] for v in values)}


def _warning(results: Sequence[Mapping[str, Any]]) -> str | None:
    data = {str(r["dataset"].get("hash")): str(r["dataset"].get("name", "unnamed data")) for r in results}
    if len(data) < 2:
        return None
    listed = ", ".join(f"{name} {digest[:12]}" for digest, name in data.items())
    return f"the runs are not on the same data ({listed}); compare figures within one data set only"


def _figure(group: Group, theme: Any) -> Any:
    from ops.reporting import figures

    own = {line.run: line.row for line in group.lines if line.row.kind == "last"}
    if len(own) < 2:
        return None
    keys = tables.columns(list(own.values()), (*tables.HIDDEN, *tables.SHORT))
    titles = {key: tables.TITLES[key].replace("\n", " ") for key in keys}
    values = {titles[key]: [_values(row.metrics, key) for row in own.values()] for key in keys}
    return figures.comparison(list(own), values, theme)


def _values(metrics: Mapping[str, Any], key: str) -> list[float]:
    if tables.mean_of(metrics, key) is None:
        return []
    factor = 100.0 if key in tables.PERCENT else 1.0
    stored = metrics[key].get("values") or [metrics[key]["mean"]]
    return [factor * float(v) for v in stored if v is not None]
