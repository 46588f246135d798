"""The recall table as text: one line a method and its baselines, means over queries, ± over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ops.config.console import NOTHING
from ops.evaluation.recall import SPREAD_AT, Boosted, RecallRow, Task
from ops.reporting.tables import cell, text_table

PERCENT = ("recall@10", "recall@20", "recall@50", "recall@100", "ndcg@50", "hit_rate@50", "coverage")
TITLES = {
    "recall@10": "Recall@10 %", "recall@20": "@20", "recall@50": "@50", "recall@100": "@100", "ndcg@50": "NDCG@50 %",
    "hit_rate@50": "hit rate@50 %", "scanned": "users scanned", "coverage": "coverage %", "gini": "Gini",
}  # fmt: skip

SPREAD = (
    f"coverage: share of all notes that stand among the first {SPREAD_AT} of any list; Gini: how unevenly notes "
    "are listed (0 alike, 1 one note for all)"
)


def recall_table(rows: Sequence[RecallRow], task: Task | None = None) -> str:
    """Rows in the order they first come; rows of one name are seeds of it: `mean ± standard deviation` (ddof = 1).

    Below it what the columns mean, each row's remark and, from `task`, who was asked and who was left out.
    """
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [[name, *(_cell([r for r in rows if r.name == name], key) for key in TITLES)] for name in names]
    remarks = dict.fromkeys(f"{row.name}: {row.note}" for row in rows if row.note)
    return "\n".join([text_table(["", *TITLES.values()], lines), *_legend(task), *remarks])


def boost_line(found: Boosted) -> str:
    """What the boost of the own cluster's notes did, in one line."""
    without, boosted = (100 * row.metrics["recall@50"] for row in found.rows)
    tried = ", ".join(f"{b:g}: {100 * value:.1f}" for b, value in found.validation.items())
    return f"boost b = {found.b:g}: Recall@50 {without:.1f} -> {boosted:.1f} % (validation by b: {tried})"


def _cell(rows: Sequence[RecallRow], key: str) -> str:
    return " ".join(part for part in cell_parts([r.metrics[key] for r in rows if key in r.metrics], key) if part)


def cell_parts(values: Sequence[float], key: str) -> tuple[str, str]:
    """The mean of a metric's `values`, one a seed, and `± std`, as the table shows them; no spread for one seed."""
    if not values:
        return NOTHING, ""
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    if key == "scanned":
        return f"{mean:,.0f}", ""
    scale, digits = (100, 1) if key in PERCENT else (1, 3)
    return f"{scale * mean:.{digits}f}", f"± {scale * spread:.{digits}f}" if len(values) > 1 else ""


def _legend(task: Task | None) -> list[str]:
    lines = [SPREAD]
    if task is not None:
        asked = f"{len(task.queries):,} of {task.users:,}" if len(task.queries) < task.users else f"all {task.users:,}"
        lines.append(
            f"asked: {asked} users with training and hidden notes; left out: {task.left_out:,} without training notes"
            + (f"; {task.repeated:,} hidden pairs given twice or known from training" if task.repeated else "")
        )
    return lines


def stored_table(found: Mapping[str, Any]) -> str:
    """The table of what `result.json` keeps (`recall`): rows with a value a seed, queries, users, left_out."""
    rows = [RecallRow(row["name"], _seed(row["metrics"], i), found["queries"], found["users"], row["note"])
            for row in found["rows"] for i in range(_seeds(row["metrics"]))]  # fmt: skip
    return f"{recall_table(rows)}\nasked: {asked(found)}"


def asked(found: Mapping[str, Any]) -> str:
    """Who was asked, and who could not be, in words."""
    queries, users = found["queries"], found["users"]
    who = f"all {users:,}" if queries == users else f"{queries:,} of {users:,}"
    return f"{who} users with training and hidden notes; left out: {found['left_out']:,} without training notes"


def hidden_text(result: Mapping[str, Any]) -> list[str]:
    """What a terminal shows of hidden notes and links, below the summary; empty where none were hidden."""
    table = [stored_table(result["recall"])] if result.get("recall") else []
    return [*table, links_line(result["links"])] if result.get("links") else table


def _seeds(metrics: Mapping[str, Any]) -> int:
    return max(len(each["values"]) for each in metrics.values())


def _seed(metrics: Mapping[str, Any], i: int) -> dict[str, float]:
    found = {key: each["values"][i] for key, each in metrics.items() if i < len(each["values"])}
    return {key: value for key, value in found.items() if value is not None}


def stored_cells(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A stored row's mean and `± std` in each column of `TITLES`."""
    values = {key: [v for v in each["values"] if v is not None] for key, each in metrics.items()}
    return [cell_parts(values.get(key, []), key) for key in TITLES]


def links_line(found: Mapping[str, Any]) -> str:
    """Link prediction of the hidden edges in one line."""
    names = {"auc": "AUC", "mrr": "MRR", "hits@1": "Hits@1", "hits@10": "Hits@10"}
    each = (f"{title} {cell(found, key)}" for key, title in names.items() if key in found)
    return f"links: hidden edges against 100 drawn ones each: {', '.join(each)}"
