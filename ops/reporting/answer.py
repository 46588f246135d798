"""The first sentences of a report: what a run comes to, and what to do."""

from ops.reporting.tables import BASELINES, number
from ops.results.schema import RunResult
from ops.results.search_schema import SearchResult

CHANCE = {"auc": 0.55, "agreement": 0.05}
TITLES = {"acc": "ACC", "score": "tune/score"}
UNSTABLE = 0.5
SLIGHT = 0.005  # a difference that decides nothing between methods that cost seconds


def answer(result: RunResult, search: SearchResult | None = None) -> list[str]:
    """Sentences that a decision can be made on, the most important first."""
    faults = [part for part in result.verdict.split("; ") if "no clustering" in part or "no method" in part]
    sentences = [f"{part[:1].upper()}{part[1:]}: do not use it." for part in faults] or _against_simpler(result)
    auc = result.links.means.get("auc") if result.links else None
    if auc is not None and auc < CHANCE["auc"]:
        sentences.append(
            f"Hidden edges are told from drawn ones no better than by chance (AUC {auc:.2f}): do not recommend by "
            "these vectors; train for more --epochs, or look whether the edges say anything of the users."
        )
    agreement = result.last.means.get("agreement")
    if agreement is not None and agreement < CHANCE["agreement"]:
        sentences.append(
            f"The clusters of two views of the same rows agree no better than by chance (ARI {agreement:.2f}): these "
            "are no clusters; train for more --epochs, or give another --n-clusters."
        )
    if result.stability is not None and result.stability < UNSTABLE:
        sentences.append(
            f"The seeds disagree (mean ARI {result.stability:.2f}): rely on clusters whose stability below is high, "
            "or try another --n-clusters."
        )
    if search is not None and _best_is_default(search):
        sentences.append("The best trial is the one with the default settings: the search has brought nothing.")
    return [sentence for sentence in sentences if sentence]


def _against_simpler(result: RunResult) -> list[str]:
    """By labels against baselines, and of users by the hidden notes that each finds; without either by the score."""
    ours, best = result.recall_line, result.strongest
    if ours is None or best is None or best.gain is None:
        return [_against_baselines(result)]
    here, there = (number("recall@50", line.metrics.means.get("recall@50")) for line in (ours, best))
    figures, gain = f"Recall@50 {here} against {there} %", best.gain
    if gain.low > 0:
        by_recall = (f"{best.name} finds more hidden notes than {ours.name} without its training ({figures}): use that "
                     "for recall, and this for clusters.")  # fmt: skip
    elif gain.high < 0:
        by_recall = f"{ours.name} finds more hidden notes than {best.name} ({figures}): use these vectors and clusters."
    else:
        by_recall = (f"{ours.name} and {best.name} find as many hidden notes ({figures}; the difference is within its "
                     f"95 % interval): for recall use {best.name}, which costs less.")  # fmt: skip
    return [_against_baselines(result), by_recall] if result.has_labels else [by_recall]


def _against_baselines(result: RunResult) -> str:
    """Whether the training beat the better baseline, by ACC or else by the label-free score; "" with neither."""
    key = "acc" if "acc" in result.last.metrics else "score"
    rivals = {name: scores.metrics[key] for name, scores in result.baselines.items() if scores and key in scores.means}
    ours = result.last.metrics.get(key)
    if ours is None or ours.mean is None:
        return ""
    if not rivals:
        return "Nothing compares this training to a simpler one: look at the clusters below before you rely on them."
    best = max(rivals, key=lambda name: rivals[name].mean or 0.0)
    theirs, name = rivals[best], BASELINES.get(best, best)
    figures = f"{TITLES[key]} {number(key, ours.mean)} against {number(key, theirs.mean)}"
    noise = max(ours.std or 0.0, theirs.std or 0.0)
    gap = ours.mean - (theirs.mean or 0.0)
    if number(key, ours.mean) == number(key, theirs.mean):
        return f"The result equals that of {name} ({figures}): use the one that costs less."
    epochs = result.settings.get("epochs")
    if epochs is not None and epochs.value == 1:  # nothing was trained
        return _of_quick_method(result.method, name, figures, gap, noise)
    return _of_training(result, best, figures, gap, noise)


def _of_quick_method(method: str, rival: str, figures: str, gap: float, noise: float) -> str:
    if abs(gap) <= max(noise, SLIGHT):
        return f"{method} and {rival} are as good as each other ({figures}): either will do."
    if gap > 0:
        return f"{method} beat {rival} here ({figures}): use these clusters."
    return (f"{rival} scores higher than {method} here ({figures}): look at both, or try another --order or "
            "--features.")  # fmt: skip


def _of_training(result: RunResult, best: str, figures: str, gap: float, noise: float) -> str:
    name = BASELINES.get(best, best)
    if gap > noise:
        return f"Training beat {name} here ({figures}): use these clusters."
    if gap > 0:
        return (f"Training is above {name} by less than a standard deviation of seeds ({figures}): train more --seeds, "
                f"or use {name}, which costs less.")  # fmt: skip
    if best == "untrained":
        return f"Training did not improve on its own untrained network ({figures}): use a quick method (tessera auto)."
    more = "--knn, --epochs" if result.dataset.knn else "--epochs"
    return f"Training did not beat {name} here ({figures}): use {name}, or try {more} or another method."


def _best_is_default(search: SearchResult) -> bool:
    best = next((trial for trial in search.trials if trial.trial == search.best), None)
    return best is not None and len(search.trials) > 1 and bool(search.start) and best.settings == search.start
