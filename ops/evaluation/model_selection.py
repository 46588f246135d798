"""Choosing among candidates (epochs, trials, numbers of clusters) without labels: an average rank over indices.

No single index is a safe selector (it can choose worse than the last epoch), so several vote and the panel says how
far they agree.

Axes: C candidates, J indices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# index -> whether more is better
PANEL: dict[str, bool] = {
    "silhouette": True,
    "davies_bouldin": False,
    "modularity": True,
    "conductance": False,
}


@dataclass(frozen=True)
class Verdict:
    """The chosen candidate, every candidate's mean rank (1 = best), the indices that put it first, and agreement.

    `agreement` is Kendall's W over the indices: 1 where all rank alike, 0 where they rank independently.
    """

    chosen: int
    ranks: NDArray[np.float64]
    voters: tuple[str, ...]
    agreement: float

    def sentence(self) -> str:
        """What the panel says of itself, for tables and reports."""
        if len(self.ranks) < 2:
            return "only one candidate"
        order = "alike" if self.agreement > 0.7 else "alike in part" if self.agreement > 0.4 else "differently"
        first = ", ".join(self.voters) or "none"
        return (
            f"the indices order the candidates {order} (Kendall's W {self.agreement:.2f}), "
            f"the chosen one first by {first}"
        )


def panel(candidates: Sequence[Mapping[str, float]], indices: Mapping[str, bool] = PANEL) -> Verdict:
    """The candidate with the lowest mean rank over the `indices` that all candidates carry; ties: the later one.

    Of equal candidates the later wins because more training is the safer guess. Values that are not finite rank last.
    Raises ValueError without candidates or without a common index.
    """
    from scipy.stats import rankdata

    used = [name for name in indices if all(name in c for c in candidates)]
    if not candidates or not used:
        raise ValueError(f"nothing to choose from: {len(candidates)} candidates, common indices {used}")
    table = np.array([[c[name] * (-1.0 if indices[name] else 1.0) for name in used] for c in candidates])
    table[~np.isfinite(table)] = np.inf
    each = np.stack([rankdata(column, method="average") for column in table.T], axis=1)
    mean = each.mean(1)
    chosen = int(np.flatnonzero(mean == mean.min())[-1])
    n, j = each.shape
    spread = float(np.sum((each.sum(1) - j * (n + 1) / 2) ** 2))
    agreement = 12 * spread / (j**2 * (n**3 - n)) if n > 1 and j > 1 else 1.0
    voters = tuple(name for name, column in zip(used, each.T, strict=True) if column[chosen] == column.min())
    return Verdict(chosen, mean, voters, min(agreement, 1.0))
