"""`--n-clusters auto`: a sweep over K on the filtered features, judged without labels.

For every K, k-means on X filtered with t = 2 (wide features: on the 50 columns that `auto` judges in); the panel's
indices and a stability (how alike the clusters of two random starts are) rank the candidates. How sure the choice is:
the share of all panels of three indices that choose the same K, times Kendall's W of the whole panel (panels of three
share indices: on noise they may all follow one of them).
"""

import math
from itertools import combinations

import numpy as np
import torch

from ops.api import Sweep
from ops.clustering.kmeans import kmeans
from ops.data.types.graph import AttributedGraph
from ops.errors import DataError
from ops.evaluation.model_selection import PANEL, panel
from ops.evaluation.quick import QuickClusterings
from ops.evaluation.unlabelled import GraphJudge, fixed_space

LARGEST = 20
WIDE = 256  # features from which on clusters are looked for in fewer columns, in a thirtieth of the time
INDICES = PANEL | {"stability": True}
RESTARTS = 3


def sweep(data: AttributedGraph, largest: int = LARGEST) -> Sweep:
    """K among 2 .. min(largest, sqrt(N)), with all that speaks for it.

    Modularity and conductance alone favour few large clusters, silhouette and Davies-Bouldin the shape of the
    features, stability what another start finds again; no one of them decides. Raises DataError below 9 nodes.
    """
    if data.n_nodes < 9:
        raise DataError(f"{data.name} has {data.n_nodes} nodes, too few for --n-clusters auto: give K")
    wide = data.n_features > WIDE
    space = QuickClusterings(data, 1, judged=False).space() if wide else fixed_space(data)
    x = torch.from_numpy(space)
    ks = list(range(2, min(largest, math.isqrt(data.n_nodes)) + 1))
    candidates = [_candidate(data, x, k) for k in ks]
    verdict = panel(candidates, INDICES)
    share, rivals = _votes(candidates, ks, verdict.chosen)
    confidence = share * verdict.agreement
    also = f"; also plausible: {', '.join(map(str, rivals))}" if rivals else ""
    sure = "sure" if confidence >= 0.55 else "fairly sure" if confidence >= 0.4 else "NOT sure"
    votes = f"{'all' if share == 1 else f'{share:.0%}'} of the panels of 3 indices choose it"
    but = "but" if share > 0.5 and verdict.agreement <= 0.4 else "and"
    return {
        "k": ks,
        "indices": {name: [c[name] for c in candidates] for name in INDICES},
        "rank": verdict.ranks.tolist(),
        "chosen": ks[verdict.chosen],
        "confidence": confidence,
        "reason": f"{sure} ({confidence:.2f}): {votes}, {but} {verdict.sentence()}{also}",
    }


def _candidate(data: AttributedGraph, x: torch.Tensor, k: int) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score

    runs = [kmeans(x, k, (seed, k), starts=5) for seed in range(RESTARTS)]
    best = min(runs, key=lambda r: r.inertia)
    pairs = [adjusted_rand_score(a.labels.numpy(), b.labels.numpy()) for a, b in combinations(runs, 2)]
    return GraphJudge(data, k, x.numpy())(best.labels.numpy()) | {"stability": float(np.mean(pairs))}


def _votes(candidates: list[dict[str, float]], ks: list[int], chosen: int) -> tuple[float, list[int]]:
    """The share of all panels of three indices that choose the same K, and the other Ks that some panel chooses."""
    votes = [panel(candidates, {name: INDICES[name] for name in names}).chosen for names in combinations(INDICES, 3)]
    return votes.count(chosen) / len(votes), sorted({ks[v] for v in votes} - {ks[chosen]})
