"""Bringing the columns of a feature table to one scale, the same for rows that come later (`--scale`).

Axes: n rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["none", "standard", "robust", "minmax"]


@dataclass(frozen=True)
class Scaling:
    """`(x - centre) / width` for each column; `centre`, `width` float64 [F]."""

    kind: str
    centre: NDArray[np.float64]
    width: NDArray[np.float64]

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The rows `x` [n, F] on the training's scale."""
        return ((x - self.centre) / self.width).astype(np.float32)

    def undo(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scaled rows `x` [n, F] as they were; what is a whole number up to rounding (0 and 1 of words) is one."""
        before = x * self.width + self.centre
        whole = np.rint(before)
        return np.where(np.abs(before - whole) <= 1e-6 * (self.width + np.abs(self.centre)), whole, before)

    def plain(self) -> dict[str, Any]:
        """As JSON, to the last bit."""
        return {"kind": self.kind, "centre": self.centre.tolist(), "width": self.width.tolist()}


def fit_scaling(x: NDArray[np.float32], kind: Scale, categories: Sequence[Sequence[int]] = ()) -> Scaling | None:
    """The scaling of the training's features `x` [N, F]; a column that does not vary is only moved.

    `standard`: mean and deviation; `robust`: median and the distance of the quartiles; `minmax`: to 0 ... 1.
    `categories` has the columns of each column of words. Together these get the variance of one number (`minmax`
    leaves them 0 and 1), else words would outweigh numbers (as in factor analysis of mixed data; Pages 2004).
    """
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    if kind == "none":
        return None
    if kind == "minmax":
        scaler = MinMaxScaler().fit(x)
        return Scaling(kind, scaler.data_min_.astype(np.float64), 1 / scaler.scale_.astype(np.float64))
    scaler = (StandardScaler if kind == "standard" else RobustScaler)().fit(x)
    centre = scaler.mean_ if kind == "standard" else scaler.center_
    width = scaler.scale_.astype(np.float64)
    for columns in categories:
        width[columns] = np.sqrt(x[:, columns].var(axis=0, dtype=np.float64).sum()) or 1.0
    return Scaling(kind, centre.astype(np.float64), width)
