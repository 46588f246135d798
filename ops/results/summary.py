"""From the history of a seed to its figures, and from the seeds of a run to `result.json` and `assignments.parquet`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ops.api import Record, Result
from ops.atomic_io import now, replacing, save_arrays, write_json
from ops.data.types.graph import Data
from ops.evaluation.model_selection import panel
from ops.results.model_store import save_model
from ops.rng import generator
from ops.training.seed_run import SeedRun

FIGURE_ROWS = 2000
MORE = "more.npz"  # of a seed: embeddings and other arrays that its kind of data scores and draws
SCORE = ("cluster/", "eval/", "tune/")


def evaluated(history: Sequence[Record]) -> list[Record]:
    """The records at which clusters were scored, without the untrained start (epoch -1)."""
    return [r for r in history if "cluster/size_max" in r and r["epoch"] >= 0]


def short(record: Record) -> dict[str, float]:
    """A record's scores without their group: `eval/acc` -> `acc`; with the epoch."""
    return {k.split("/")[1]: v for k, v in record.items() if k.startswith(SCORE)} | {"epoch": record["epoch"]}


def figures_of(history: Sequence[Record]) -> dict[str, Any]:
    """last, selected (by the label-free panel) and oracle (by ACC, or None without labels), with their epochs."""
    records = evaluated(history)
    verdict = panel([short(r) for r in records])
    labelled = [r for r in history if "eval/acc" in r]  # the released code counts the untrained start too
    best = max(labelled, key=lambda r: r["eval/acc"]) if labelled else None
    return {
        "last": short(records[-1]),
        "selected": short(records[verdict.chosen]),
        "selected_by": verdict.sentence(),
        "oracle": short(best) if best else None,
    }


def finish_seed(
    run: SeedRun, result: Result, x: NDArray[Any], labels: NDArray[np.int64] | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Write all that a finished seed leaves in its folder, `result.json` last: it alone marks the seed as done.

    `x` [N F] is the input that figures set beside the embedding.
    """
    found = figures_of(run.history)
    chosen = run.assignments[int(found["selected"]["epoch"])]
    save_arrays(run.folder / "assignments.npz", last=result.assignment, confidence=result.confidence, selected=chosen)
    save_model(run.folder / "model", result.model, settings)
    save_arrays(run.folder / "figures.npz", **figure_arrays(x, result, labels))
    if result.more:
        save_arrays(run.folder / MORE, embedding=result.embedding, **result.more)
    summary = {
        "seed": run.seed,
        "epochs": len(run.history),
        "finished": now(),
        "resumed_from": run.resumed_from,
        **found,
        "sizes": np.bincount(result.assignment).tolist(),
        **run.spent(),
        "warnings": run.warnings,
    }
    if run.warm is not None:
        summary["kept"] = run.warm.kept(result.assignment)
    write_json(run.folder / "result.json", summary)
    run.drop_checkpoints()
    return summary


def figure_arrays(x: NDArray[Any], result: Result, labels: NDArray[np.int64] | None) -> dict[str, NDArray[Any]]:
    """At most 2,000 rows of the input (50 principal columns) and the embedding, for figures drawn without the data."""
    n = len(x)
    rows = np.arange(n) if n <= FIGURE_ROWS else np.sort(generator(0, "figures").choice(n, FIGURE_ROWS, replace=False))
    centred = x[rows] - x[rows].mean(0, dtype=np.float32)
    _, vectors = np.linalg.eigh((centred.T @ centred) if centred.shape[1] <= len(rows) else (centred @ centred.T))
    top = vectors[:, ::-1][:, :50]
    before = centred @ top if centred.shape[1] <= len(rows) else top * np.linalg.norm(centred.T @ top, axis=0)
    arrays = {"rows": rows, "before": before.astype(np.float32), "after": result.embedding[rows]}
    arrays["cluster"] = result.assignment[rows]
    return arrays if labels is None else arrays | {"label": labels[rows]}


def seed_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """What a finished seed's arrays hold: last clusters, confidence and, where there are any, embeddings and more."""
    arrays: dict[str, NDArray[Any]] = {}
    for path in (folder / MORE, folder / "assignments.npz"):
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                arrays |= {key: stored[key] for key in stored.files}
    return arrays


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """{"values", "mean", "std"} over seeds, ddof = 1; the deviation of a single value is None."""
    clean = [float(v) for v in values if v is not None and math.isfinite(v)]
    mean = float(np.mean(clean)) if clean else None
    return {"values": list(values), "mean": mean, "std": float(np.std(clean, ddof=1)) if len(clean) > 1 else None}


def over_seeds(each: Sequence[Mapping[str, float] | None]) -> dict[str, Any] | None:
    """Per metric the spread over seeds; `epoch` becomes `epochs`. None where no seed has any."""
    present = [e for e in each if e]
    if not present:
        return None
    keys = [k for k in present[0] if k != "epoch"]
    table: dict[str, Any] = {k: spread([e.get(k) for e in present]) for k in keys}
    epochs = [int(e["epoch"]) for e in present if "epoch" in e]
    return table | ({"epochs": epochs} if epochs else {})


def verdict(result: Mapping[str, Any]) -> str:
    """One sentence: `last` against the better baseline, in ACC where there are labels, else in the label-free score.

    Users of a graph that was partitioned before have no baseline: nothing is hidden, so there is no score.
    """
    if not result["baselines"]:
        return "no baseline and no recall: nothing is hidden from a graph that was partitioned before"
    key, name, scale = ("acc", "ACC", 100) if "acc" in result["last"] else ("score", "tune/score", 1)
    if not any(key in baseline for baseline in result["baselines"].values()):
        return "without labels nothing compares last to k-means on the input: tune/score is of the method's own space"
    ours = result["last"][key]
    best = max(result["baselines"], key=lambda b: result["baselines"][b][key]["mean"])
    theirs = result["baselines"][best][key]
    gap = scale * (ours["mean"] - theirs["mean"])
    noise = scale * max(ours["std"] or 0.0, theirs["std"] or 0.0)
    word = "above" if gap > noise else "below" if gap < -noise else "within a standard deviation of"
    return f"last is {word} the better baseline ({best}) in {name}: {gap:+.{1 if scale == 100 else 3}f}"


def stability(assignments: Sequence[NDArray[np.int64]]) -> float | None:
    """Mean adjusted Rand index between the seeds' last assignments; None for a single seed."""
    from sklearn.metrics import adjusted_rand_score

    pairs = [(a, b) for i, a in enumerate(assignments) for b in assignments[:i]]
    return float(np.mean([adjusted_rand_score(a, b) for a, b in pairs])) if pairs else None


def write_assignments(path: Path, data: Data, folders: Mapping[int, Path]) -> list[NDArray[np.int64]]:
    """`assignments.parquet`: seed, id (the user's own), cluster, confidence of the last epoch; returns the clusters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, clusters = [], []
    ids = np.arange(data.n_rows) if data.ids is None else data.ids
    for seed, folder in folders.items():
        with np.load(folder / "assignments.npz", allow_pickle=False) as stored:
            last, confidence = stored["last"], stored["confidence"]
        clusters.append(last)
        columns = {"seed": np.full(len(last), seed), "id": ids, "cluster": last, "confidence": confidence}
        tables.append(pa.table(columns))
    with replacing(path) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary)
    return clusters
