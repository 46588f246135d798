"""The quick methods over feature treatments and filter orders: one is chosen without labels, with how sure that is.

1. Every candidate clusters the graph once. The panel (the mean rank over modularity, conductance, silhouette and
   Davies-Bouldin in one fixed space) orders them.
2. The first candidates cluster again with another seed and on a random part of the nodes. The first one that finds its
   clusters again is chosen, or the first of all where none does.
3. Where no candidate reaches a modularity of 0.3, the edges show no communities (Newman & Girvan 2004). The nodes are
   then clustered by their degree, as roles.

Axes: N nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ops.clustering.linear import KINDS, Kind, LinearMethod
from ops.clustering.soundness import COMMUNITIES
from ops.data.io.validate import make_graph
from ops.data.types.graph import AttributedGraph
from ops.evaluation.model_selection import panel
from ops.evaluation.quick import DEGREE, Candidate, QuickClusterings, methods
from ops.graph.features import SPARSE_BELOW, Treatment
from ops.rng import generator

STABLE, FAIRLY = 0.8, 0.5  # from this adjusted Rand index on, clusters are the same, and are alike
SHORT_LIST, SUBSET = 3, 0.8  # candidates that are tried again; share of the nodes in a random part
LARGE = 20_000  # above this many nodes fewer candidates are tried
ORDERS: dict[Kind, tuple[int, ...]] = {
    "ssgc": (2, 5, 10), "sagsc": (2, 5, 10), "s2cag": (5, 10), "m-s2cag": (5, 10, 20),
}  # fmt: skip
LARGE_ORDERS = (5, 10)


@dataclass(frozen=True)
class Choice:
    """All candidates, the best rank first, the chosen one with its stability, and the reasons in sentences.

    `over_seeds` and `over_parts` are adjusted Rand indices of the chosen clusters: with those of another seed, and with
    those of a random 80 % of the nodes.
    """

    candidates: list[Candidate]
    ranks: list[float]
    chosen: Candidate
    over_seeds: float
    over_parts: float
    reasons: list[str]

    def plain(self) -> dict[str, Any]:
        """The choice as JSON."""
        rows = [
            {"name": c.name, "rank": rank, "cpu_seconds": c.cpu_seconds, **c.indices}
            for c, rank in zip(self.candidates, self.ranks, strict=True)
        ]
        return {"chosen": self.chosen.name, "over_seeds": self.over_seeds, "over_parts": self.over_parts,
                "reasons": self.reasons, "candidates": rows}  # fmt: skip

    def table(self, rows: int = 5) -> list[str]:
        """The best candidates in lines of text."""
        head = f"{'candidate':<28}{'rank':>6}{'modularity':>12}{'conductance':>13}{'silhouette':>12}{'CPU-s':>7}"
        return [head, *(
            f"{c.name:<28}{rank:>6.1f}{c.indices['modularity']:>12.3f}{c.indices['conductance']:>13.3f}"
            f"{c.indices['silhouette']:>12.3f}{c.cpu_seconds:>7.2f}"
            for c, rank in list(zip(self.candidates, self.ranks, strict=True))[:rows]
        )]  # fmt: skip


def candidates(data: AttributedGraph) -> list[LinearMethod]:
    """The candidates: all kinds, treatments and orders; on large graphs the treatments and orders that win most."""
    if data.n_nodes > LARGE:
        return methods(data, KINDS, orders=LARGE_ORDERS)
    sparse = np.count_nonzero(data.x) < SPARSE_BELOW * data.x.size
    third: Treatment = "raw" if sparse else "standard"
    return [m for kind in KINDS for m in methods(data, (kind,), ("tfidf", "l2", third), ORDERS[kind])]


def choose(data: AttributedGraph, n_clusters: int, seed: int = 0) -> Choice:
    """The best clustering without labels."""
    quick = QuickClusterings(data, n_clusters)
    tried = [quick.candidate(method, seed) for method in candidates(data)]
    verdict = panel([c.indices for c in tried])
    order = np.argsort(verdict.ranks, kind="stable")
    tried, ranks = [tried[i] for i in order], verdict.ranks[order].tolist()
    highest = max(c.indices["modularity"] for c in tried)
    if highest < COMMUNITIES:
        chosen = quick.candidate(DEGREE, seed)
        stability = _stability(quick, chosen, seed)
        reasons = [
            f"no candidate's modularity reaches {COMMUNITIES} (the highest is {highest:.2f}): the edges show no "
            "communities, so nodes are clustered by their degree, as roles; features do not count; NOT sure"
        ]
        return Choice([chosen, *tried], [0.0, *ranks], chosen, *stability, reasons)
    stable = [_stability(quick, c, seed) for c in tried[:SHORT_LIST]]
    best = next((i for i, each in enumerate(stable) if min(each) >= FAIRLY), 0)
    return Choice(tried, ranks, tried[best], *stable[best], [_doubt(tried, best, stable, verdict.sentence(), seed)])


def _stability(quick: QuickClusterings, candidate: Candidate, seed: int) -> tuple[float, float]:
    """Adjusted Rand indices of a candidate's clusters with another seed's, and with those of a part of the nodes."""
    from sklearn.metrics import adjusted_rand_score

    data, clusters, method = quick.data, candidate.clusters[seed], candidate.method
    keep = generator(seed, "auto/part").random(data.n_nodes) < SUBSET
    number = np.cumsum(keep) - 1
    inside = keep[data.edge_index].all(axis=0)
    if keep.sum() < quick.n_clusters:
        return 0.0, 0.0
    weight = None if data.weight is None else data.weight[inside]
    part = make_graph(data.name, data.x[keep], number[data.edge_index[:, inside]], weight=weight)
    there = QuickClusterings(part, quick.n_clusters, judged=False).cluster(method, seed)
    again = quick.cluster(method, seed + 1)
    return float(adjusted_rand_score(clusters, again)), float(adjusted_rand_score(clusters[keep], there))


def _doubt(tried: Sequence[Candidate], best: int, stable: list[tuple[float, float]], sentence: str, seed: int) -> str:
    """A sentence on how sure the choice is: from the panel, the stability, and how far the next candidates agree."""
    from sklearn.metrics import adjusted_rand_score

    chosen = tried[best].clusters[seed]
    others = [adjusted_rand_score(chosen, c.clusters[seed]) for i, c in enumerate(tried[:5]) if i != best]
    alike = float(np.mean(others)) if others else 1.0
    lowest = min(stable[best])
    weakest = min(lowest, alike)
    sure = "sure" if weakest >= STABLE else "fairly sure" if weakest >= FAIRLY else "NOT sure"
    skipped = f"{best} of a better rank did not find its clusters again; " if best else ""
    return (
        f"{sure}; {skipped}{sentence}; adjusted Rand index {stable[best][0]:.2f} with another seed, "
        f"{stable[best][1]:.2f} with 80 % of the nodes, {alike:.2f} with the next candidates"
    )
