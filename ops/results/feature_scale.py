"""Where a model's features lie, so that a prediction can say when its rows are of another scale than the training's.

Axes: n rows, F features.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # rows that are looked at together
PIECE = 16 * BLOCK  # that are read together
FAR = 1.0  # how many deviations of training a column's mean may lie outside the training's values
SPREAD = 10.0  # how many times the training's variance, or which part of it, rows may have
FEW = 10  # rows whose variance says nothing yet


class ColumnStatistics:
    """Each column's mean, variance and range over rows that come in pieces, by scikit-learn's running sums."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, x: NDArray[np.number]) -> None:
        """Count in the rows `x` [n, F]; no array of the size of `x` is made."""
        from sklearn.preprocessing import MinMaxScaler, StandardScaler

        if not len(x):
            return
        if not self.count:
            self._range, self._moments = MinMaxScaler(), StandardScaler()
        for first in range(0, len(x), BLOCK):
            block = x[first : first + BLOCK].astype(np.float64)
            self._range.partial_fit(block)
            self._moments.partial_fit(block)
        self.count += len(x)
        self.low, self.high, self.mean = self._range.data_min_, self._range.data_max_, self._moments.mean_
        self.variance = np.where(self.low < self.high, self._moments.var_, 0.0)  # not what rounding leaves

    def plain(self) -> dict[str, list[float]]:
        """What a model keeps of its training's features, in six digits."""
        columns = {"mean": self.mean, "deviation": np.sqrt(self.variance), "low": self.low, "high": self.high}
        return {name: [float(f"{value:.6g}") for value in values] for name, values in columns.items()}


def statistics_of(x: NDArray[np.floating]) -> ColumnStatistics:
    """Those of the rows `x` [n, F]."""
    statistics = ColumnStatistics()
    statistics.add(x)
    return statistics


def looked_at(read: Callable[[slice], NDArray[np.number]], total: int) -> tuple[ColumnStatistics, bool]:
    """(statistics of the columns, whether all rows are the same) of `total` rows that `read` gives piece by piece.

    Of pixels (bytes) there are no statistics.
    """
    statistics, first, alike = ColumnStatistics(), read(slice(0, 1)), total > 1
    for start in range(0, total, PIECE):
        x = read(slice(start, min(start + PIECE, total)))
        alike = alike and bool((x == first).all())
        if x.dtype.kind == "f":
            statistics.add(x)
    return statistics, alike


def rows_alike(x: NDArray[np.generic]) -> bool:
    """Whether all rows [n, F] are the same, so that nothing in them tells one from another."""
    return len(x) > 1 and all(bool((x[i : i + BLOCK] == x[0]).all()) for i in range(0, len(x), BLOCK))


def unlike(
    training: Mapping[str, Sequence[float]], rows: ColumnStatistics, names: Sequence[str] | None = None
) -> str | None:
    """What sets the features of `rows` apart from those of `training` (`ColumnStatistics.plain`), None if nothing does.

    A column is far when its mean over the rows lies outside the training's values by more than a deviation. The spread
    differs when the rows' variances are, in the mean over columns, ten times the training's or a tenth of them.
    """
    mean, deviation, low, high = (np.asarray(training.get(key, ())) for key in ("mean", "deviation", "low", "high"))
    if not rows.count or any(len(each) != len(rows.low) for each in (mean, deviation, low, high)):
        return None
    varies = deviation > 0
    usual = float(np.sqrt(np.square(deviation).mean())) or 1.0  # for columns that were constant
    unit = np.where(varies, deviation, usual)
    outside = np.maximum(low - rows.mean, rows.mean - high) / unit
    far = int(outside.argmax())
    if outside[far] > FAR:
        return _sentence(far, names, rows, mean, deviation, int((outside > FAR).sum()))
    if rows.count < FEW or not varies.any():
        return None
    ratio = rows.variance[varies] / np.square(deviation[varies])
    if 1 / SPREAD <= ratio.mean() <= SPREAD:
        return None
    column = int(np.flatnonzero(varies)[ratio.argmax() if ratio.mean() > SPREAD else ratio.argmin()])
    return _sentence(column, names, rows, mean, deviation, int(((ratio > SPREAD) | (ratio < 1 / SPREAD)).sum()))


def _sentence(
    column: int, names: Sequence[str] | None, rows: ColumnStatistics, mean: NDArray[np.float64],
    deviation: NDArray[np.float64], number: int,
) -> str:  # fmt: skip
    name = f"column {column}" + (f" ({names[column]!r})" if names else "")
    here, before = (
        f"mean {middle if abs(middle) > 1e-6 * width else 0:.4g}, deviation {width:.4g}"
        for middle, width in ((rows.mean[column], np.sqrt(rows.variance[column])), (mean[column], deviation[column]))
    )
    others = f" ({number:,} of {len(mean):,} columns differ so)" if number > 1 else ""
    return (f"the features are of another scale than in training: {name} has {here}, in training {before}{others}; "
            "scale them as the training's, the clusters mean nothing otherwise")  # fmt: skip
