"""Statistics of a run: from the history of a seed to its figures, and from the seeds to means, spread and verdict."""

import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from ops.api import Record
from ops.clustering.soundness import has_fallen, is_collapsed
from ops.evaluation.model_selection import PANEL, panel
from ops.results.schema import Interval, Number, Numbers, RecallLine, Scores, SeedResult, Spread

SCORE = ("cluster/", "eval/", "tune/")
ALIKE = "all rows have the same features"
COLLAPSED_SHARE = 0.95  # of the rows in one cluster
History = Sequence[Record]


class Figures(TypedDict):
    """What a `SeedResult` says of a seed's history."""

    last: Numbers
    selected: Numbers
    selected_by: str
    oracle: Numbers | None


def numbers(record: Mapping[str, Number]) -> Record:
    """A record as it was before JSON made None of what is not finite."""
    return {key: math.nan if value is None else value for key, value in record.items()}


def evaluated(history: History) -> list[Record]:
    """The records at which clusters were scored, without the untrained start (epoch -1)."""
    return [r for r in history if "cluster/size_max" in r and r["epoch"] >= 0]


def worsened(history: History, rows: int, k: int, taken: int | None = None) -> str:
    """A sentence where the last clusters are worse than earlier ones by `ops.clustering.soundness`; "" elsewhere.

    `taken`: the epoch that the result is of, where a method has taken one from before that. The modularity counts where
    the history has `cluster/modularity`.
    """
    epoch, highest = -1, -1.0  # of the sound evaluations the last epoch and the highest modularity
    collapsed = fallen = False
    last: Record = {}
    for last in evaluated(history):
        modularity = last.get("cluster/modularity", 0.0)
        collapsed = is_collapsed(last["cluster/size_min"], rows, k)
        fallen = has_fallen(modularity, highest)
        if not collapsed and not fallen:
            epoch, highest = int(last["epoch"]), max(highest, modularity)
    if epoch < 0 or epoch == last["epoch"]:
        return ""
    size = f"a cluster has shrunk to {last['cluster/size_min']:.0f} rows (the mean is {rows / k:,.0f})"
    edges = f"the modularity has fallen to {last.get('cluster/modularity', 0.0):.3f} (the highest was {highest:.3f})"
    reasons = " and ".join([size] * collapsed + [edges] * fallen)
    if taken is None:
        return f"since epoch {epoch} {reasons}: --epochs {epoch + 1} ends before that"
    return f"since epoch {taken} {reasons}: the result is that of epoch {taken}"


def short(record: Mapping[str, float]) -> Record:
    """A record's scores without their group: `eval/acc` -> `acc`; with the epoch."""
    return {k.split("/")[1]: v for k, v in record.items() if k.startswith(SCORE)} | {"epoch": int(record["epoch"])}


def figures_of(history: History, taken: int | None = None) -> Figures:
    """last, selected (by the label-free panel) and oracle (by ACC, or None without labels), with their epochs.

    `taken`: the epoch that stands for the last one, where a method has taken another.
    """
    records = evaluated(history)
    choice = panel([short(r) for r in records])
    labelled = [r for r in history if "eval/acc" in r]  # the released code counts the untrained start too
    best = max(labelled, key=lambda r: r["eval/acc"]) if labelled else None
    return {
        "last": dict(short(next(r for r in reversed(records) if taken is None or r["epoch"] == taken))),
        "selected": dict(short(records[choice.chosen])),
        "selected_by": choice.sentence(),
        "oracle": dict(short(best)) if best else None,
    }


def spread(values: Sequence[Number]) -> Spread:
    """Mean and deviation over seeds (ddof = 1) of the values that are there; the deviation of a single one is None."""
    clean = [float(v) for v in values if v is not None and math.isfinite(v)]
    mean = float(np.mean(clean)) if clean else None
    return Spread(values=list(values), mean=mean, std=float(np.std(clean, ddof=1)) if len(clean) > 1 else None)


def over_seeds(each: Sequence[Mapping[str, Number] | None], *, chosen: bool = False) -> Scores | None:
    """Per metric the spread over seeds; `epoch` becomes `epochs`. None where no seed has any.

    `chosen`: the epochs were chosen by the indices of the panel, which are named.
    """
    present = [e for e in each if e]
    if not present:
        return None
    table: dict[str, object] = {k: spread([e.get(k) for e in present]) for k in present[0] if k != "epoch"}
    if epochs := [int(e["epoch"] or 0) for e in present if "epoch" in e]:
        table["epochs"] = epochs
    if chosen:
        table["indices"] = [name for name in PANEL if name in table]
    return Scores.model_validate(table)


def faults(seeds: Sequence[SeedResult], k: int) -> list[str]:
    """What makes the result of `seeds` with `k` clusters worthless, a sentence each; empty where nothing does."""
    sentences = [f"{ALIKE}: no method can tell them apart by them"] if any(seed.alike for seed in seeds) else []
    largest = {seed.seed: max(seed.sizes) / sum(seed.sizes) for seed in seeds if sum(seed.sizes)}
    one = [seed for seed, share in largest.items() if share == 1]
    most = {seed: share for seed, share in largest.items() if COLLAPSED_SHARE < share < 1}
    for numbers, words in ((one, "all rows"), (list(most), f"{max(most.values(), default=0):.1%} of the rows")):
        if numbers:
            of = "" if len(seeds) == 1 else f" (seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))})"
            sentences.append(f"{words} are in one cluster of {k}{of}: this is no clustering")
    return sentences


def verdict(last: Scores, baselines: Mapping[str, Scores | None]) -> str:
    """One sentence: `last` against the strongest baseline, in ACC where there are labels, else in the label-free score.

    Users of a graph of which nothing is hidden have no baseline: there is no score.
    """
    if not baselines:
        return "no baseline and no recall: nothing is hidden (--holdout none)"
    key, name, scale = ("acc", "ACC", 100) if "acc" in last.metrics else ("score", "tune/score", 1)
    rivals = {b: scores.metrics[key] for b, scores in baselines.items() if scores and key in scores.means}
    if not rivals or key not in last.means:
        return "without labels nothing compares last to k-means on the input: tune/score is of the method's own space"
    best = max(rivals, key=lambda b: rivals[b].mean or 0.0)
    ours, theirs = last.metrics[key], rivals[best]
    gap = scale * ((ours.mean or 0.0) - (theirs.mean or 0.0))
    noise = scale * max(ours.std or 0.0, theirs.std or 0.0)
    digits = 1 if scale == 100 else 3
    if not round(gap, digits):
        return f"last is as good as the strongest baseline ({best}) in {name}"
    word = "above" if gap > noise else "below" if gap < -noise else "within a standard deviation of"
    return f"last is {word} the strongest baseline ({best}) in {name}: {gap:+.{digits}f}"


def paired(theirs: Float[np.ndarray, "T Q"], ours: Float[np.ndarray, "S Q"]) -> Interval:
    """Mean over Q users and S seeds of `theirs - ours` with its 95 % interval; T is S or 1, what no seed changes.

    The variance is that of users (a seed's, the mean over seeds: averaging over seeds earns nothing) and, of several
    seeds, that of their means, each over its count; the normal quantile.
    """
    each = theirs.astype(np.float64) - ours
    seeds, users = each.shape
    variance = np.mean(np.var(each, axis=1, ddof=1)) / users if users > 1 else 0.0
    variance += np.var(each.mean(axis=1), ddof=1) / seeds if seeds > 1 else 0.0
    mean, reach = float(np.mean(each)), 1.959964 * math.sqrt(variance)
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


def recall_verdict(ours: RecallLine | None, strongest: RecallLine | None) -> str:
    """One sentence: the method's clusters against the strongest line that needs no training, "" where one is lacking.

    Neither is called better where the interval of the difference has 0 in it.
    """
    if ours is None or strongest is None or strongest.gain is None:
        return ""
    gain = strongest.gain
    word = "below" if gain.low > 0 else "above" if gain.high < 0 else "not told apart from"
    low, high = sorted((-100 * gain.low, -100 * gain.high))
    return (
        f"{ours.name} is {word} the strongest row without its training ({strongest.name}) in Recall@50: "
        f"{-100 * gain.mean:+.1f} points, 95 % interval by user {low:+.1f} to {high:+.1f}"
    )
