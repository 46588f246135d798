"""Several finished runs side by side: one table for the terminal, one self-contained HTML page of the same rows."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from ops.atomic_io import atomic_write
from ops.config.console import NOTHING, as_typed, printable
from ops.errors import SettingsError
from ops.reporting import tables
from ops.reporting.clusters import read_assignments
from ops.reporting.html import render
from ops.results.schema import DataRecord, RunResult
from ops.results.stored_run import StoredRun, is_search, read_result

PAGE = "the page that --out writes"
COSTS = {"seconds": "seconds", "cpu_seconds": "CPU s", "peak_memory_gib": "GiB"}


@dataclass(frozen=True)
class Group:
    """The rows of all runs on one data set, the metrics of which any row has a value, and how far clusters agree."""

    title: str
    rows: list[tables.Row]
    columns: list[str]
    agreement: list[str]


@dataclass(frozen=True)
class Comparison:
    """What both outputs show: one group a data set; `differing` is a setting's name -> its value by run."""

    results: dict[str, RunResult]
    groups: list[Group]
    differing: dict[str, list[str]]
    warning: str | None


def comparison_table(comparison: Comparison) -> str:
    """The runs as text, by data set: last, selected and oracle of each, the baselines, costs, differing settings.

    Runs on users also have recall and link scores on the edges hidden for the test, of the last epoch.
    """
    blocks = [f"Warning: {comparison.warning}"] if comparison.warning else []
    for group in comparison.groups:
        header = ["run", "method", "figures", *(tables.TITLES[c] for c in group.columns), *COSTS.values()]
        body = [
            [row.run, row.method, row.name + " *" * (row.kind == "oracle"),
             *(tables.cell(row.metrics, c) for c in group.columns), *row.costs]
            for row in group.rows
        ]  # fmt: skip
        lines = [group.title, tables.text_table(header, body, left=3, file=PAGE), *group.agreement]
        blocks.append("\n".join(lines))
    if any(row.kind == "oracle" for group in comparison.groups for row in group.rows):
        blocks.append(f"* oracle: {tables.ORACLE_NOTE}")
    if comparison.differing:
        body = [[key, *values] for key, values in comparison.differing.items()]
        blocks.append("Settings that differ\n" + tables.text_table(["setting", *comparison.results], body, file=PAGE))
    elif len(comparison.results) > 1:
        blocks.append("No setting differs.")
    return "\n\n".join(blocks)


def write_compare(comparison: Comparison, out: Path) -> Path:
    """The comparison as one HTML file at `out` (in it as compare.html where it is a folder); returns its path.

    Raises SettingsError where `out` cannot be written.
    """
    target = out / "compare.html" if out.is_dir() else out
    drawings = {group.title: png for group in comparison.groups if (png := _drawing(group))}
    atomic_write(target, render("compare.html.j2", comparison=comparison, drawings=drawings, costs=COSTS))
    return target


def compare(runs: Sequence[Path]) -> Comparison:
    """Read the runs and lay them out.

    Raises DataError for a folder that is no finished run, SettingsError without runs.
    """
    if not runs:
        raise SettingsError("compare: no run given; name one or more run folders OUT/NAME")
    paths = dict(zip(_names(runs), runs, strict=True))
    results = {name: read_result(path) for name, path in paths.items()}
    by_data: dict[str | None, dict[str, RunResult]] = {}
    for name, result in results.items():
        by_data.setdefault(result.dataset.hash, {})[name] = result
    groups = []
    for each in by_data.values():
        rows = _rows(each)
        agreement = _agreement({name: StoredRun(paths[name], result) for name, result in each.items()})
        groups.append(Group(_title(next(iter(each.values())).dataset), rows, _columns(rows), agreement))
    stored = list(results.values())
    return Comparison(results, groups, _differing(stored), _warning([each.dataset for each in stored]))


def _agreement(runs: Mapping[str, StoredRun]) -> list[str]:
    """How far the clusters of each two runs on the same rows agree, in sentences; nothing of runs elsewhere."""
    from sklearn.metrics import adjusted_rand_score

    best = {name: replace(run, path=run.path / "best") if is_search(run.path) else run for name, run in runs.items()}
    stored = {name: each.clusters for name, run in best.items() if (each := read_assignments(run)) is not None}
    pairs = [(a, b) for a, b in combinations(stored, 2) if len(stored[a]) == len(stored[b])]
    return [f"Clusters of {a} and {b}: adjusted Rand index {adjusted_rand_score(stored[a], stored[b]):.2f}"
            " (1: the same, 0: by chance)" for a, b in pairs]  # fmt: skip


def _columns(rows: Sequence[tables.Row]) -> list[str]:
    """What there is; beside scores on hidden edges fewer indices of the clusters, so that a page holds them."""
    labelled, others = tables.SHORT[:4], tables.SHORT[4:]
    hidden = tables.columns(rows, tables.HIDDEN)
    return tables.columns(rows, (*labelled, *tables.HIDDEN, *others) if hidden else tuple(tables.TITLES))


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


def _title(data: DataRecord) -> str:
    size = "" if data.rows is None else f", {data.rows:,} rows"
    return printable(f"{data.name}{size}, hash {str(data.hash)[:12]}")


def _rows(results: Mapping[str, RunResult]) -> list[tables.Row]:
    """Each run's rows, then the baselines: once where the runs agree on them, else by run."""
    rows: list[tables.Row] = []
    baselines: dict[str, dict[str, tuple[tables.Row, list[str]]]] = {}  # by name and content: the row and its runs
    for name, result in results.items():
        first, *rest = (row for row in tables.result_rows(result) if row.kind != "baseline")
        metrics = {**first.metrics, **result.hidden_scores}  # which exist of the last epoch only
        method = result.recall_line.name if result.recall_line else result.method
        costs = tuple(_cost(getattr(result, key)) for key in COSTS)
        rows += [replace(first, metrics=metrics, run=name, method=method, costs=costs), *rest]
        for row in (*tables.baseline_rows(result), *_without_training(result)):
            content = json.dumps({key: spread.plain() for key, spread in row.metrics.items()}, sort_keys=True)
            baselines.setdefault(row.name, {}).setdefault(content, (row, []))[1].append(name)
    for variants in baselines.values():
        for row, owners in variants.values():
            rows.append(replace(row, run=", ".join(owners) if len(variants) > 1 else "", method="baseline"))
    return rows


def _without_training(result: RunResult) -> list[tables.Row]:
    """The recall of what takes no method, as baselines: popularity and user-kNN."""
    rows = [row for row in result.recall.rows if not row.name.startswith(result.method)] if result.recall else []
    return [tables.Row("baseline", row.name, "baseline", row.metrics.grouped("test")) for row in rows]


def _cost(value: float) -> str:
    if not value:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _differing(results: Sequence[RunResult]) -> dict[str, list[str]]:
    """Method, seeds, edges, warm start and settings that are not the same in all runs; a dash where a run has none."""
    table: dict[str, list[object]] = {
        "method": [r.method for r in results],
        "seeds": [r.seeds for r in results],
        "edges": [_edges(r.dataset) for r in results],
        **{key: [getattr(r.dataset, key) for r in results] for key in ("scale", "one_hot", "ignore", "make_features")},
        "warm start": [r.warm.run if r.warm else None for r in results],
    }
    for key in dict.fromkeys(key for r in results for key in r.settings):
        table[key] = [r.settings[key].value if key in r.settings else NOTHING for r in results]
    return {k: [as_typed(v) for v in values] for k, values in table.items() if any(v != values[0] for v in values)}


def _edges(data: DataRecord) -> str:
    """How the graph of a run was made, as its data's notes have it (a data set may have a k of its own)."""
    built = re.search(r"edges: (\d+) nearest neighbours of every row \((\w+)\)", "; ".join(data.notes))
    k, metric = built.groups() if built else (data.knn, data.knn_metric)
    return f"{k} nearest ({metric})" if k else "of the data"


def _warning(data: Sequence[DataRecord]) -> str | None:
    names = {str(each.hash): each.name for each in data}
    if len(names) < 2:
        labels = {each.given["labels"] for each in data if "labels" in each.given}
        return (
            "the runs are scored by different labels; compare their indices, not ACC to F1" if len(labels) > 1 else None
        )
    listed = ", ".join(f"{name} {digest[:12]}" for digest, name in names.items())
    return printable(f"the runs are not on the same data ({listed}); compare figures within one data set only")


def _drawing(group: Group) -> list[bytes] | None:
    from ops.reporting import figures, theme

    rows = {row.run: row.metrics for row in group.rows if row.kind == "last"}
    keys = tables.columns([row for row in group.rows if row.kind == "last"], (*tables.HIDDEN, *tables.SHORT))
    values = {tables.TITLES[key].replace("\n", " "): [_values(each, key) for each in rows.values()] for key in keys}
    figure = figures.comparison(list(rows), values) if len(rows) > 1 else None
    return None if figure is None else theme.pngs(figure)


def _values(metrics: tables.Metrics, key: str) -> list[float]:
    factor = 100.0 if key in tables.PERCENT else 1.0
    return [factor * v for v in metrics[key].values if v is not None] if key in metrics else []
