"""Result tables, as rows and as text: always last, selected, oracle, then the baselines (evaluation.md's order)."""

import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.config.console import NOTHING, as_typed, printable
from ops.results.schema import LABELLED, RecallLine, RecallTable, RunResult, Scores, Spread
from ops.results.search_schema import SearchResult

Metrics = Mapping[str, Spread]
TITLES = {
    "acc": "ACC %", "nmi": "NMI %", "ari": "ARI %", "f1": "F1 %", "test/recall_at_10": "test\nRecall@10 %",
    "test/recall_at_50": "test\nRecall@50 %", "links/auc": "link AUC", "recall_at_50": "validation\nRecall@50 %",
    "modularity": "modularity", "silhouette": "silhouette", "agreement": "ARI of\ntwo views",
    "conductance": "conductance", "davies_bouldin": "Davies-Bouldin", "calinski_harabasz": "Calinski-Harabasz",
}  # fmt: skip
HIDDEN = ("test/recall_at_10", "test/recall_at_50", "links/auc")  # of users: on edges hidden from all
SHORT = (*LABELLED, "recall_at_50", "modularity", "silhouette", "agreement")
RECALL_TITLES = {
    "recall@10": "Recall@10 %", "recall@20": "@20", "recall@50": "@50", "recall@100": "@100", "ndcg@50": "NDCG@50 %",
    "hit_rate@50": "hit rate@50 %", "scanned": "users scanned", "coverage": "coverage %", "gini": "Gini",
}  # fmt: skip
GAIN_TITLE = "@50 less the\nclusters', 95 %"
GAIN_LEGEND = (
    "@50 less the clusters': percentage points of Recall@50 above that of the method's clusters for the same users, "
    "with a 95 % interval over users and seeds; where 0 lies in it, the two cannot be told apart"
)
LINK_TITLES = {"auc": "AUC", "mrr": "MRR", "hits@1": "Hits@1", "hits@10": "Hits@10"}
PERCENT = {*LABELLED, *HIDDEN[:2], "recall_at_50", *RECALL_TITLES} - {"scanned", "gini"}
DIGITS = {"calinski_harabasz": 1, "scanned": 0}  # else three, or one of percent
RECALL_LEGEND = (
    "coverage: share of all notes that stand among the first 50 of any list; Gini: how unevenly notes are listed "
    "(0 alike, 1 one note for all)"
)
BASELINES = {
    "kmeans": "k-means on X", "filter+kmeans": "filter + k-means", "degree+kmeans": "k-means on log(degree)",
    "ssgc": "SSGC", "sagsc": "SAGSC", "s2cag": "S2CAG", "m-s2cag": "M-S2CAG", "untrained": "untrained network",
}  # fmt: skip
ORACLE_NOTE = "uses labels, not a result"


@dataclass(frozen=True)
class Row:
    """One line of a result table: its kind (last, selected, oracle, baseline), name, remark and metrics.

    In a comparison also the run, its method and what it cost, where they are to be shown.
    """

    kind: str
    name: str
    note: str
    metrics: Metrics
    run: str = ""
    method: str = ""
    costs: tuple[str, ...] = ("", "", "")


def number(key: str, value: float | None) -> str:
    """A metric's value in the tables' form: percent for scores by labels and recall, else three decimals."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{100 * value:.1f}" if key in PERCENT else f"{value:,.{DIGITS.get(key, 3)}f}"


def mean(metrics: Metrics, key: str) -> str:
    """The mean of a metric, a dash where there is none."""
    return number(key, metrics[key].mean if key in metrics else None)


def deviation(metrics: Metrics, key: str) -> str:
    """`± std` over seeds, nothing for one seed or no value."""
    std = metrics[key].std if key in metrics and key != "scanned" else None
    return "" if std is None else f"± {number(key, std)}"


def cell(metrics: Metrics, key: str) -> str:
    """`mean ± std` over seeds, the mean alone for one seed, a dash where there is none."""
    return f"{mean(metrics, key)} {deviation(metrics, key)}".rstrip()


def result_rows(result: RunResult) -> list[Row]:
    """The rows of a result in their fixed order; the oracle stands only where there are labels."""
    before = f", or the last sound evaluation{_epochs(result.last)}" if result.taken else ""
    rows = [Row("last", "last", f"the last epoch{before}: the result", result.last.metrics)]
    if result.consensus:
        what, agree = "what the evaluations (or draws of k-means) agree on", result.consensus.means.get("ari_of_each")
        what += "" if agree is None else f"; single ones agree with it by an ARI of {agree:.2f} (mean)"
        rows.append(Row("consensus", "consensus", what, result.consensus.metrics))
    if result.consensus_of_seeds:
        what = f"what these of the {len(result.seeds)} seeds agree on"
        rows.append(Row("consensus", "consensus of seeds", what, result.consensus_of_seeds.metrics))
    if selected := result.selected:
        by = ", ".join(selected.indices) or "label-free indices"
        rows.append(Row("selected", "selected", f"an epoch chosen by {by}{_epochs(selected)}", selected.metrics))
    if (oracle := result.oracle) and result.has_labels:
        rows.append(Row("oracle", "oracle", f"{ORACLE_NOTE}{_epochs(oracle)}", oracle.metrics))
    return rows + baseline_rows(result)


def written(result: RunResult) -> str:
    """Whose clusters and model a run of several seeds has written, with their first score; "" of a single seed."""
    if len(result.seeds) < 2 or result.model_seed not in result.seeds:
        return ""
    scores = result.consensus if result.result == "consensus" else None
    metrics = (scores or result.last).metrics
    first = next((key for key in SHORT if key in metrics and metrics[key].mean is not None), "")
    name, score = TITLES.get(first, "").replace("\n", " ").removesuffix(" %"), ""
    if first and len(metrics[first].values) == len(result.seeds):  # a seed of an earlier version has no consensus
        value = metrics[first].values[result.seeds.index(result.model_seed)]
        score = f" ({name} {number(first, value)}{' %' * (first in PERCENT)})"
    return f"written: clusters and model of seed {result.model_seed}{score}, chosen without labels"


def baseline_rows(result: RunResult) -> list[Row]:
    """The baselines' rows, in their stored order."""
    each = ((BASELINES.get(name, name), scores) for name, scores in result.baselines.items())
    return [Row("baseline", name, "baseline", scores.metrics) for name, scores in each if scores]


def _epochs(scores: Scores) -> str:
    epochs = scores.epochs
    if len(epochs) > 5:
        return f" (epochs {min(epochs)} to {max(epochs)})"
    return f" (epoch{'s' if len(epochs) > 1 else ''} {', '.join(map(str, epochs))})" if epochs else ""


def columns(rows: Sequence[Row], keys: Sequence[str] = tuple(TITLES)) -> list[str]:
    """Those of `keys` for which any row has a value: without labels there are no label columns."""
    return [key for key in keys if any(mean(row.metrics, key) != NOTHING for row in rows)]


def headline(result: RunResult) -> list[tuple[str, Metrics]]:
    """The first six metrics of `last`, those on hidden edges before all others, each with where its value is."""
    hidden, metrics = result.hidden_scores, result.last.metrics
    keys = [*(key for key in HIDDEN[1:] if key in hidden), *(key for key in TITLES if key in result.last.means)]
    return [(key, hidden if key in hidden else metrics) for key in keys[:6]]


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], left: int = 1, file: str = "result.json") -> str:
    """Aligned plain text, the first `left` columns to the left; a header may have several lines.

    On a terminal the last columns that do not fit its width are left out, and a line says that `file` has them.
    """
    lines = [[printable(each) for each in line] for line in lines]
    titles = [printable(title, lines=True).split("\n") for title in header]
    height = max(map(len, titles))
    head = list(zip(*(("",) * (height - len(t)) + tuple(t) for t in titles), strict=True))
    widths = [max(map(len, column)) for column in zip(*head, *lines, strict=True)]
    shown = len(widths)
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        while shown > left + 1 and sum(widths[:shown]) + 2 * (shown - 1) > room:
            shown -= 1
    table = [*head, ["-" * width for width in widths], *lines]
    aligned = (
        [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))][:shown]
        for line in table
    )
    missing = [" ".join(title) for title in titles[shown:]]
    note = [f"The terminal is too narrow for {', '.join(missing)}: see {file}."] if missing else []
    return "\n".join(["  ".join(line).rstrip() for line in aligned] + note)


def summary_table(result: RunResult) -> str:
    """Last, selected, oracle and baselines of a training, mean ± std over seeds."""
    rows = result_rows(result)
    keys = columns(rows, SHORT)
    lines = [[row.name + " *" * (row.kind == "oracle"), *(cell(row.metrics, key) for key in keys)] for row in rows]
    seeds = f"mean ± std over {len(result.seeds)} seeds" if len(result.seeds) > 1 else "1 seed"
    notes = [f"* oracle: {ORACLE_NOTE}"] if any(row.kind == "oracle" for row in rows) else []
    notes += [f"{row.name}: {row.note}" for row in rows if row.name == "consensus"]
    notes += [] if result.has_labels else ["No labels were given: no ACC, NMI, ARI or F1."]
    notes += [written(result)] if written(result) else []
    title = printable(f"{result.method} on {result.dataset.name}, {seeds}")
    return "\n".join([title, text_table(["", *(TITLES[k] for k in keys)], lines), *notes])


def result_text(result: RunResult) -> str:
    """What a terminal shows at the end of a training: summary, recall and links if there are any, verdict."""
    parts = [summary_table(result)]
    if result.recall:
        parts.append(recall_text(result.recall))
    if result.links:
        parts.append(links_line(result.links))
    return "\n".join(filter(None, [*parts, result.verdict]))


def recall_text(recall: RecallTable) -> str:
    """The recall table: means over queries, ± over seeds, and below it what the columns mean and who was asked."""
    lines = [[row.name, *(cell(row.metrics.metrics, key) for key in RECALL_TITLES)] for row in recall.rows]
    header, legends = ["", *RECALL_TITLES.values()], [RECALL_LEGEND]
    if recall.has_gains:
        lines = [[name, gain(row), *cells] for row, (name, *cells) in zip(recall.rows, lines, strict=True)]
        header, legends = ["", GAIN_TITLE, *header[1:]], [GAIN_LEGEND, RECALL_LEGEND]
    remarks = [f"{row.name}: {row.note}" for row in recall.rows if row.note]
    return "\n".join([text_table(header, lines), *legends, *remarks, f"asked: {asked(recall)}"])


def gain(row: RecallLine) -> str:
    """A row's recall@50 less that of the method's clusters, in points with its interval; a dash for these."""
    if row.gain is None or row.gain.low == row.gain.high:
        return NOTHING
    mean, low, high = (f"{100 * value:+.1f}" for value in (row.gain.mean, row.gain.low, row.gain.high))
    return f"{mean} ({low} to {high})"


def asked(recall: RecallTable) -> str:
    """Who was asked, and who could not be, in words."""
    who = f"all {recall.users:,}" if recall.queries == recall.users else f"{recall.queries:,} of {recall.users:,}"
    return f"{who} users with training and hidden notes; left out: {recall.left_out:,} without training notes"


def links_line(links: Scores) -> str:
    """Link prediction of the hidden edges in one line."""
    each = (f"{title} {cell(links.metrics, key)}" for key, title in LINK_TITLES.items() if key in links.metrics)
    return f"links: hidden edges against 100 drawn ones each: {', '.join(each)}"


def searched_names(search: SearchResult) -> list[str]:
    """The names of the searched settings, in the order the trials give them."""
    return list(dict.fromkeys(name for trial in search.trials for name in trial.settings))


def trial_cells(search: SearchResult) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a search's table; the ACC column stands last, marked, and only with labels."""
    names, trials = searched_names(search), search.trials
    header = ["trial", *names, "status", "epochs", search.objective, "panel rank"]
    with_acc = any(t.metrics.get("acc") is not None for t in trials)
    if with_acc:
        header.append(f"ACC % (uses labels,\n{'used' if search.uses_labels else 'not used'} to choose)")
    lines = [
        [f"{t.trial}{' (best)' if t.trial == search.best else ''}", *(as_typed(t.settings.get(n)) for n in names),
         t.status, as_typed(t.epochs), number("score", t.score), as_typed(t.rank),
         *([number("acc", t.metrics.get("acc"))] if with_acc else [])]
        for t in trials
    ]  # fmt: skip
    return header, lines


def trials_table(search: SearchResult) -> str:
    """A search's table for the terminal, best first, with the agreement of score and panel below it."""
    notes = ["Tuned with labels: not a label-free result."] if search.uses_labels else []
    return "\n".join([text_table(*trial_cells(search), file="trials.json"), *notes, *filter(None, [search.agreement])])
