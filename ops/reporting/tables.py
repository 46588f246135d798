"""Result tables, as rows and as text: always last, selected, oracle, then the baselines (evaluation.md's order)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ops.config.console import NOTHING, plain

TITLES = {
    "acc": "ACC %",
    "nmi": "NMI %",
    "ari": "ARI %",
    "f1": "F1 %",
    "test/recall_at_10": "test\nRecall@10 %",
    "test/recall_at_50": "test\nRecall@50 %",
    "links/auc": "link AUC",
    "recall_at_50": "validation\nRecall@50 %",
    "modularity": "modularity",
    "silhouette": "silhouette",
    "agreement": "ARI of\ntwo views",
    "conductance": "conductance",
    "davies_bouldin": "Davies-Bouldin",
    "calinski_harabasz": "Calinski-Harabasz",
}
LABELLED = ("acc", "nmi", "ari", "f1")
HIDDEN = ("test/recall_at_10", "test/recall_at_50", "links/auc")  # of users: on edges hidden from all
PERCENT = (*LABELLED, *HIDDEN[:2], "recall_at_50")
SHORT = (*LABELLED, "recall_at_50", "modularity", "silhouette", "agreement")
BASELINES = {"kmeans": "k-means on X", "filter+kmeans": "filter + k-means"}
ORACLE_NOTE = "uses labels, not a result"


@dataclass(frozen=True)
class Row:
    """One line of a result table: its kind (last, selected, oracle, baseline), name, remark and metrics."""

    kind: str
    name: str
    note: str
    metrics: dict[str, Any]


def mean_of(metrics: Mapping[str, Any] | None, key: str) -> float | None:
    """The mean of a stored metric; None where it is absent or null."""
    entry = (metrics or {}).get(key)
    return entry.get("mean") if isinstance(entry, Mapping) else None


def number(key: str, value: float | None) -> str:
    """A metric's value in the tables' form: percent for scores by labels and recall, else three decimals."""
    if value is None or math.isnan(value):
        return NOTHING
    if key in PERCENT:
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if key == "calinski_harabasz" else f"{value:.3f}"


def spread(metrics: Mapping[str, Any], key: str) -> str:
    """`± std` over seeds, nothing for one seed or no value."""
    if mean_of(metrics, key) is None or len(metrics[key].get("values") or []) < 2:
        return ""
    return f"± {number(key, metrics[key].get('std'))}"


def cell(metrics: Mapping[str, Any], key: str) -> str:
    """`mean ± std` over seeds, the mean alone for one seed, a dash where there is none."""
    return f"{number(key, mean_of(metrics, key))} {spread(metrics, key)}".rstrip()


def has_labels(result: Mapping[str, Any]) -> bool:
    """True when any labelled score was stored."""
    return any(mean_of(result["last"], key) is not None for key in LABELLED)


def result_rows(result: Mapping[str, Any]) -> list[Row]:
    """The rows of a result in their fixed order; the oracle stands only where there are labels."""
    rows = [Row("last", "last", "the last epoch: the result", result["last"])]
    if selected := result.get("selected"):
        by = ", ".join(selected.get("indices") or []) or "label-free indices"
        rows.append(Row("selected", "selected", f"an epoch chosen by {by}{_epochs(selected)}", selected))
    if (oracle := result.get("oracle")) and has_labels(result):
        rows.append(Row("oracle", "oracle", f"{ORACLE_NOTE}{_epochs(oracle)}", oracle))
    return rows + baseline_rows(result)


def baseline_rows(result: Mapping[str, Any]) -> list[Row]:
    """The baselines' rows, k-means on X first."""
    stored = result.get("baselines") or {}
    names = [*(b for b in BASELINES if b in stored), *(b for b in stored if b not in BASELINES)]
    return [Row("baseline", BASELINES.get(b, b), "baseline", stored[b]) for b in names if stored[b]]


def _epochs(metrics: Mapping[str, Any]) -> str:
    epochs = metrics.get("epochs") or []
    if len(epochs) > 5:
        return f" (epochs {min(epochs)} to {max(epochs)})"
    return f" (epoch{'s' if len(epochs) > 1 else ''} {', '.join(str(e) for e in epochs)})" if epochs else ""


def columns(rows: Sequence[Row], keys: Sequence[str] = tuple(TITLES)) -> list[str]:
    """Those of `keys` for which any row has a value: without labels there are no label columns."""
    return [key for key in keys if any(mean_of(row.metrics, key) is not None for row in rows)]


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Aligned plain text, the first `left` columns to the left; a header may have several lines."""
    titles = [title.split("\n") for title in header]
    height = max(len(t) for t in titles)
    head = [[t[i - height + len(t)] if i >= height - len(t) else "" for t in titles] for i in range(height)]
    table = [*head, *([str(c) for c in line] for line in lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(header))]
    text = [
        "  ".join(
            c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    return "\n".join([*text[:height], "  ".join("-" * w for w in widths), *text[height:]])


def summary_table(result: Mapping[str, Any]) -> str:
    """The terminal's table at the end of a training: last, selected, oracle and baselines, mean ± std over seeds."""
    rows = result_rows(result)
    keys = columns(rows, SHORT)
    names = [f"oracle ({ORACLE_NOTE})" if row.kind == "oracle" else row.name for row in rows]
    lines = [[name, *(cell(row.metrics, key) for key in keys)] for name, row in zip(names, rows, strict=True)]
    count = len(result["seeds"])
    seeds = f"mean ± std over {count} seeds" if count > 1 else "1 seed"
    notes = [] if has_labels(result) else ["No labels were given: no ACC, NMI, ARI or F1."]
    title = f"{result['method']} on {result['dataset'].get('name', 'unnamed data')}, {seeds}"
    return "\n".join([title, text_table(["", *(TITLES[k] for k in keys)], lines), *notes])


def uses_labels(trials: Mapping[str, Any]) -> bool:
    """True when a study's objective is a labelled score."""
    return str(trials.get("objective", "tune/score")).split("/")[-1] in LABELLED


def by_recall(trials: Mapping[str, Any]) -> bool:
    """True when a study's objective is the recall of validation pairs: `tune/score` of trials on users."""
    return _scored_by(trials, "recall_at_50")


def by_views(trials: Mapping[str, Any]) -> bool:
    """True when a study's objective is made of projections and augmented copies: `tune/score` of trials on images."""
    return _scored_by(trials, "agreement")


def _scored_by(trials: Mapping[str, Any], metric: str) -> bool:
    scored = [t["metrics"] for t in trials.get("trials") or [] if t.get("metrics")]
    unlabelled = str(trials.get("objective", "tune/score")) == "tune/score"
    return unlabelled and bool(scored) and all(metric in metrics for metrics in scored)


def sorted_trials(trials: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Trials by panel rank (users, and with labels: by score), then (those without one) by score, the unscored last."""
    by_score = by_recall(trials) or uses_labels(trials)

    def key(trial: Mapping[str, Any]) -> tuple[bool, float, bool, float]:
        rank, score = trial.get("rank"), trial.get("score")
        return rank is None, 0.0 if by_score else rank or 0.0, score is None, -(score or 0.0)

    return sorted(trials.get("trials") or [], key=key)


def searched(trials: Mapping[str, Any]) -> list[str]:
    """The names of the searched settings, in the order the trials give them."""
    return list(dict.fromkeys(name for trial in trials.get("trials") or [] for name in trial.get("settings") or {}))


def trial_cells(trials: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a study's table; the ACC column stands last, marked, and only with labels."""
    names, objective = searched(trials), str(trials.get("objective", "tune/score"))
    header = ["trial", *names, "status", "epochs", objective, "panel rank"]
    ordered = sorted_trials(trials)
    with_acc = any((t.get("metrics") or {}).get("acc") is not None for t in ordered)
    if with_acc:
        use = "used to choose" if uses_labels(trials) else "not used to choose"
        header.append(f"ACC % (uses labels,\n{use})")
    lines = []
    for trial in ordered:
        best = " (best)" if trial["trial"] == trials.get("best") else ""
        settings = trial.get("settings") or {}
        line = [f"{trial['trial']}{best}", *(plain(settings.get(n)) for n in names), str(trial.get("status", NOTHING))]
        line += [plain(trial.get("epochs")), number("score", trial.get("score")), plain(trial.get("rank"))]
        lines.append(line + ([number("acc", (trial.get("metrics") or {}).get("acc"))] if with_acc else []))
    return header, lines


def trials_table(trials: Mapping[str, Any]) -> str:
    """A study's table for the terminal, best first, with the agreement of score and panel below it."""
    header, lines = trial_cells(trials)
    notes = ["Tuned with labels: not a label-free result."] if uses_labels(trials) else []
    if trials.get("agreement"):
        notes.append(str(trials["agreement"]))
    return "\n".join([text_table(header, lines), *notes])


def strongest(explained: Sequence[Mapping[str, Any]]) -> float:
    """The largest |difference| among all clusters' features, at least a hair: what a full bar stands for."""
    return max((abs(f["difference"]) for c in explained for f in c["features"]), default=1.0) or 1.0
