"""The report of a run or a search: figures/*.png and one self-contained report.html, from stored files only."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ops.config.console import plain
from ops.errors import DataError
from ops.reporting import tables
from ops.reporting.tables import summary_table, trials_table
from ops.results.schema import Sample, StoredRun, is_study, read_json, read_run, write_arrays, write_file
from ops.results.stored_users import StoredMap, hidden_scores, method_row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["render", "summary_table", "trials_table", "write_report"]

Drawn = dict[str, dict[str, Any]]  # file stem -> {"title", "caption", "light": png, "dark": png}
SETTLED = 750  # t-SNE iterations: 1,800 rows are within 2 % of the loss that 1,000 reach, in two thirds of the time


def write_report(run: Path) -> Path:
    """Draw a finished run's or search's figures and report.html from its folder; returns the report's path.

    A search's folder also renews best/ (its figures and report), each figure drawn once. Raises DataError for a
    folder that is no finished run or is damaged, SettingsError where it cannot be written.
    """
    if not is_study(run):
        stored = read_run(run)
        return _write(run, _run_page(stored), run_figures(stored))
    study = read_json(run / "trials.json")
    _check_study(run, study)
    drawn, page = study_figures(study), _study_page(study)
    if (run / "best" / "result.json").is_file():
        best = read_run(run / "best")
        own = run_figures(best)
        _write(best.path, _run_page(best), own)
        page |= {"run": _run_page(best)["run"], "n_search": len(drawn)}
        drawn |= own
    return _write(run, page, drawn)


def render(template: str, **values: Any) -> str:
    """A template of this package as HTML; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    # S701 is about templates without escaping; here it is always on
    env = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    env.filters["embed"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    env.globals.update(
        number=tables.number, mean=tables.mean_of, spread=tables.spread, plain=plain, titles=tables.TITLES,
        strongest=tables.strongest,
    )  # fmt: skip
    return env.get_template(template).render(values)


def draw(make: Callable[..., Figure | None], title: str, caption: str, photos: bool = False) -> dict[str, Any] | None:
    """A figure in both modes as PNG bytes (`photos`: in all colours); None where there is nothing to draw."""
    from ops.reporting.theme import DARK, LIGHT, png

    light, dark = make(theme=LIGHT), make(theme=DARK)
    if light is None or dark is None:
        return None
    return {"title": title, "caption": caption, "light": png(light, photos=photos), "dark": png(dark, photos=photos)}


def _write(folder: Path, page: Mapping[str, Any], drawn: Drawn) -> Path:
    for name, figure in drawn.items():
        write_file(folder / "figures" / f"{name}.png", figure["light"])
    html = render("report.html.j2", figures=list(drawn.values()), **page)
    write_file(folder / "report.html", html.encode())
    return folder / "report.html"


def run_figures(run: StoredRun) -> Drawn:
    """All figures of one run that its stored files allow, in the report's order."""
    from ops.reporting import figures as plots

    selected = {
        s: int(r["selected"]["epoch"])
        for s, r in run.seeds.items()
        if (r.get("selected") or {}).get("epoch") is not None
    }
    over_epochs = partial(plots.curves, run.histories, selected=selected)
    thin = " Thin lines are the other seeds." if len(run.histories) > 1 else ""
    figures = _map_figure(run.map) if run.map is not None else {}
    if run.pictures is not None:
        from ops.reporting.image_figures import picture_figures

        figures |= {name: draw(*each) for name, each in picture_figures(run.pictures).items()}
    figures |= _sample_figures(run.sample) if run.sample is not None else {}
    figures["curves"] = draw(
        partial(over_epochs, curve_titles(run)),
        "Training without labels",
        "Over epochs; the dashed line is the epoch that the label-free indices chose, the dot the last." + thin,
    )
    figures["scores"] = draw(
        partial(over_epochs, plots.SCORES),
        "Scores by labels",
        "For the reader only: neither training nor the choice of an epoch sees them." + thin,
    )
    sizes = next((s["sizes"] for s in run.seeds.values() if s.get("sizes")), None)
    if sizes:
        figures["sizes"] = draw(partial(plots.sizes, sizes), "Cluster sizes", "Last epoch of the first seed.")
    first = next(iter(run.histories.values()), [])
    caption = "First seed, every epoch: a head that collapses shows as one colour."
    figures["head"] = draw(partial(plots.sizes_over_time, first), "Cluster sizes over time", caption)
    caption = "Share of the sample pairs that the loss treats as hard." + thin
    figures["hard"] = draw(partial(over_epochs, plots.HARD), "Hard pairs", caption)
    if run.auto is not None:
        reason = f"{run.auto.get('reason', '')} Confidence {tables.number('', run.auto.get('confidence'))}."
        figures["auto"] = draw(partial(plots.auto_sweep, run.auto), "Choice of the number of clusters", reason.strip())
    return {name: figure for name, figure in figures.items() if figure is not None}


def curve_titles(run: StoredRun) -> dict[str, str]:
    """The metrics of the figure on training without labels, with their titles."""
    from ops.reporting.figures import CURVES

    names = {m for h in run.histories.values() for e in h[-1:] for m in e if m.startswith("train/loss_")}
    parts = {m: f"Loss: {m.removeprefix('train/loss_')}" for m in sorted(names)}
    recalled = any("cluster/recall_at_50" in e for h in run.histories.values() for e in h)
    shown = {m: t for m, t in CURVES.items() if not (recalled and m == "tune/score")}  # of users the two are one
    return {"train/loss": "Loss", **parts, **shown}


def _map_figure(found: StoredMap) -> dict[str, dict[str, Any] | None]:
    from ops.reporting.som_figure import som_picture

    caption = (
        f"Seed {found.seed}, last epoch. Each cell is a unit; the darker (in dark mode: the lighter), the farther from "
        "its neighbours. Circles: users whose nearest unit it is, in the colour and with the number of their cluster; "
        f"lines: borders of clusters. Quantisation error {found.quantisation:.3f} (mean distance of a user to its "
        f"unit), topographic error {found.topographic:.3f} (share of users whose two nearest units are not neighbours)."
    )
    make = partial(som_picture, found.umatrix, found.hits, found.clusters)
    return {"som": draw(make, "Self-organising map of the users", caption)}


def _sample_figures(sample: Sample) -> dict[str, dict[str, Any] | None]:
    from ops.reporting import figures as plots

    figures: dict[str, dict[str, Any] | None] = {}
    n = len(sample.cluster)
    by_label = " and, below, by label in the colour of the cluster that fits it best"
    if (points := tsne(sample)) is not None:
        make = partial(plots.embedding, *points, sample.cluster, sample.label)
        caption = f"{n:,} rows. Coloured by cluster{'' if sample.label is None else by_label}. "
        figures["tsne"] = draw(
            make, "t-SNE before and after training", caption + "Distances between groups mean little."
        )
    make = partial(plots.similarity, sample.after, sample.cluster)
    caption = (
        f"{n:,} rows. Bright squares on the diagonal: the rows of a cluster are alike; dark elsewhere: clusters differ."
    )
    figures["similarity"] = draw(make, "Similarity of the embedding", caption)
    return figures


def tsne(sample: Sample) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """t-SNE coordinates [n, 2] of `before` and `after`, kept in tsne.npz beside plots.npz; None for under 10 rows."""
    if len(sample.cluster) < 10:
        return None
    digest = hashlib.sha256(f"tsne {SETTLED}".encode())
    for array in (sample.before, sample.after):
        digest.update(f"{array.shape}".encode() + array.tobytes())
    key, path = digest.hexdigest(), sample.folder / "tsne.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return kept["before"], kept["after"]
    except Exception:  # noqa: S110  # missing, of other rows or damaged: it is only a cache, computed anew
        pass
    before, after = _tsne(sample.before), _tsne(sample.after)
    write_arrays(path, key=np.array(key), before=before, after=after)
    return before, after


def _tsne(x: NDArray[np.float32]) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    centred = x.astype(np.float64) - x.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    start = np.zeros((len(x), 2))
    # the first two principal components, scaled as sklearn does, but defined for constant and one-column data too
    start[:, : min(2, len(values))] = (left * values)[:, :2] / max(float(left[:, 0].std() * values[0]), 1e-12) * 1e-4
    with threadpool_limits(1):  # more threads only wait for each other at this size, and would change the figures
        fit = TSNE(
            perplexity=min(30.0, (len(x) - 1) / 3), init=start.astype(np.float32), max_iter=SETTLED, random_state=0
        )
        return np.asarray(fit.fit_transform(x), dtype=np.float32)


def study_figures(study: Mapping[str, Any]) -> Drawn:
    """The search's own figure: every searched setting against the objective."""
    from ops.reporting import figures as plots

    unscored = sum(trial.get("score") is None for trial in study["trials"])
    caption = f"Each trial's {study.get('objective', 'tune/score')} against each searched setting."
    caption += f" Without a score and not shown: {unscored}." if unscored else ""
    figure = draw(partial(plots.search, study, tables.searched(study)), "Settings against the score", caption)
    return {} if figure is None else {"trials": figure}


def _check_study(folder: Path, study: Mapping[str, Any]) -> None:
    trials = study.get("trials")
    if not isinstance(trials, list) or not all(isinstance(t, dict) and "trial" in t for t in trials):
        raise DataError(f"{folder / 'trials.json'}: lacks a list of trials, each with its name; the file is damaged")


def _study_page(study: Mapping[str, Any]) -> dict[str, Any]:
    header, lines = tables.trial_cells(study)
    ordered = tables.sorted_trials(study)
    best = next((i for i, t in enumerate(ordered) if t["trial"] == study.get("best")), None)
    table = {"header": header, "lines": lines, "best": best, "labels": tables.uses_labels(study),
             "recalled": tables.by_recall(study), "views": tables.by_views(study)}  # fmt: skip
    return {"study": dict(study), "trials": table, "run": None, "n_search": 0}


def _run_page(run: StoredRun) -> dict[str, Any]:
    result = run.result
    rows = tables.result_rows(result)
    k, source = run.n_clusters
    shown = tables.columns(rows)
    hidden = {key: m for key, m in hidden_scores(result).items() if key in tables.HIDDEN[1:]}
    values = {
        "result": result, "headline": [*hidden, *(c for c in shown if c not in hidden)][:6],
        "scores": result["last"] | hidden, "hidden": _hidden(result), "rows": rows, "columns": shown, "k": k,
        "k_source": source,
        "labels": tables.has_labels(result), "seeds": run.seeds, "facts": _facts(result),
        "explained": run.explained, "model_seed": result.get("model_seed"),
        "chosen_by": [(s, own["selected_by"]) for s, own in run.seeds.items() if own.get("selected_by")],
    }  # fmt: skip
    return {"study": None, "trials": None, "run": values, "n_search": 0}


def _hidden(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section on hidden notes shows; None where none were hidden."""
    found = result.get("recall")
    if not found:
        return None
    from ops.reporting import recall_table

    own = method_row(result)
    rows = [(row["name"], row["note"], row is own, recall_table.stored_cells(row["metrics"])) for row in found["rows"]]
    links = recall_table.links_line(result["links"]) if result.get("links") else None
    titles = list(recall_table.TITLES.values())
    return {"rows": rows, "titles": titles, "legend": recall_table.SPREAD, "links": links,
            "asked": recall_table.asked(found)}  # fmt: skip


def _users_facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if errors := result.get("map"):
        both = (f"{name} {tables.cell(errors, name)}" for name in ("quantisation", "topographic"))
        facts.append(("Errors of the map", ", ".join(both)))
    if result.get("embeddings"):
        facts.append(("Embeddings", f"{result['embeddings']}: id, vector, cluster, confidence of every row"))
    return facts


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what the run cost."""
    facts = []
    for key, name in (("seconds", "Training time, all seeds"), ("cpu_seconds", "CPU time of it")):
        if result.get(key) is not None:
            facts.append((name, f"{result[key]:,.1f} s"))
    peak, planned = result.get("peak_memory_gib"), result.get("planned_memory_gib")
    if peak is not None:
        facts.append(("Peak memory", f"{peak:.2f} GiB" + (f" (planned {planned:.2f} GiB)" if planned else "")))
    if result.get("stability") is not None:
        facts.append(("Stability", f"{result['stability']:.3f} (mean ARI between the seeds' clusters)"))
    facts += _users_facts(result)
    for key, name in (("finished", "Finished"), ("made_by", "Made by")):
        if result.get(key):
            facts.append((name, str(result[key])))
    if warm := result.get("warm"):
        kept = ", ".join(f"{share:.1%}" for share in warm["kept"])
        counts = f"{warm['known']:,} known nodes, {warm['new']:,} new"
        facts.append(("Warm start", f"from {warm['run']}: {counts}; {kept} of the known kept their cluster"))
    for seed, epochs in (result.get("resumed_from") or {}).items():
        if epochs:
            facts.append((f"Seed {seed} resumed", "at epoch " + ", ".join(str(e) for e in epochs)))
    return facts
