"""The rows that a seed's figures and map draw, without the data: a part of the input and of the embedding."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ops.atomic_io import Arrays
from ops.rng import generator

FIGURE_ROWS = 2000  # of which t-SNE is computed
MAP_ROWS = 50_000  # that the map shows, the further ones near the drawn rows that are most like them
NEAR, PRINCIPAL = 3, 50
FEATURES, VALUES = 24, 400_000  # that points can be coloured by, at most: columns, and values of all of them
BATCH = 512
THUMBNAILS, SHEET = 300_000, 50  # bytes of all thumbnails, and how many stand beside each other


T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Rows(Generic[T]):
    """Some rows of a table of `total` rows, read by their numbers: what an array gives, without the array."""

    total: int
    read: Callable[[NDArray[np.int64]], NDArray[T]]

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[T]:
        return self.read(rows)


def figure_rows(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the at most 2,000 of n rows that are drawn, and of up to 48,000 others that the map shows."""
    rows = np.arange(n) if n <= FIGURE_ROWS else np.sort(generator(0, "figures").choice(n, FIGURE_ROWS, replace=False))
    others = generator(0, "map").choice(n, min(n, MAP_ROWS), replace=False)
    return rows, np.sort(others[~np.isin(others, rows)][: MAP_ROWS - len(rows)])


def figure_arrays(
    x: NDArray[np.number] | Rows[np.number],
    embedding: NDArray[np.float32] | Rows[np.float32],
    assignment: NDArray[np.int64] | Rows[np.int64],
    labels: NDArray[np.int64] | None,
    pixels: NDArray[np.uint8] | None = None,
) -> Arrays:
    """At most 2,000 rows of the input [N, F] (50 principal columns) and the embedding [N, D], with their clusters.

    `feature_columns` [c] are at most 24 features, those that vary most, and `features` [n, c] their values. Of larger
    data `more_...` are up to 48,000 further rows: their numbers, clusters, labels and features, and which three of the
    drawn rows are nearest to each in the input and in the embedding. Images (`pixels` [N, 3, S, T]) have `thumbnails`.
    """
    rows, more = figure_rows(len(assignment))
    from sklearn.utils.extmath import randomized_svd

    drawn = x[rows]
    middle = drawn.mean(0, dtype=np.float32)
    count = min(PRINCIPAL, *drawn.shape)
    axes = randomized_svd(drawn - middle, count, random_state=0)[2].T
    before, after = ((drawn - middle) @ axes).astype(np.float32), embedding[rows]
    sample = {"rows": rows, "before": before, "after": after, "cluster": assignment[rows]}
    if len(more):
        batches = [more[i : i + BATCH] for i in range(0, len(more), BATCH)]
        sample |= {"more_rows": more, "more_cluster": assignment[more],
                   "more_before": np.concatenate([_nearest((x[each] - middle) @ axes, before) for each in batches]),
                   "more_after": np.concatenate([_nearest(embedding[each], after) for each in batches])}  # fmt: skip
    if drawn.dtype != np.uint8:  # of images a single pixel says nothing
        count = min(FEATURES, VALUES // max(1, len(rows) + len(more)))
        columns = np.sort(np.argsort(-drawn.var(axis=0), kind="stable")[:count])
        sample |= {"feature_columns": columns, "features": drawn[:, columns].astype(np.float32)}
        if len(more):
            blocks = [x[more[i : i + BATCH]][:, columns] for i in range(0, len(more), BATCH)]
            sample["more_features"] = np.concatenate(blocks).astype(np.float32)
    if pixels is not None:
        sample["thumbnails"] = _thumbnails(pixels[rows])
    if labels is None:
        return sample
    return sample | {"label": labels[rows]} | ({"more_label": labels[more]} if len(more) else {})


def _nearest(x: NDArray[np.number], drawn: NDArray[np.floating]) -> NDArray[np.int64]:
    """The places [b, 3] among `drawn` [n, D] of the rows nearest to each of x [b, D]."""
    return np.argpartition(np.square(drawn).sum(1) - 2 * x @ drawn.T, NEAR, axis=1)[:, :NEAR].astype(np.int64)


def _thumbnails(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images [n, 3, S, T] on one sheet, 50 beside each other, as the bytes of a WebP of at most 300 kB."""
    from PIL import Image

    images = [Image.fromarray(np.ascontiguousarray(each.transpose(1, 2, 0))) for each in pixels]
    for side, quality in ((32, 75), (32, 50), (24, 50), (24, 30), (16, 50)):
        sheet = Image.new("RGB", (SHEET * side, -(-len(images) // SHEET) * side))
        for i, image in enumerate(images):
            sheet.paste(image.resize((side, side)), (i % SHEET * side, i // SHEET * side))
        content = io.BytesIO()
        sheet.save(content, "WEBP", quality=quality)
        if content.tell() <= THUMBNAILS:
            break
    return np.frombuffer(content.getvalue(), np.uint8)
