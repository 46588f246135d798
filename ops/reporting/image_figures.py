"""The figures of a run on images: each cluster's nearest images, the hardest pairs, classes against clusters.

Axes: K clusters, M images of a cluster, P pairs, S x T pixels, L classes.
"""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ops.reporting.theme import DARK, INK, NARROW, PALE, blank, heatmap

GAP = 0.08  # between images, by their side
ACROSS = 3  # pairs in a row
Integers = NDArray[np.int64]


def mosaic(images: NDArray[np.uint8], shown: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Images [R C 3 H W] beside and below each other: [.., .., 4]; gaps, and what is not `shown` [R C], are clear."""
    height, width = images.shape[3:]
    gap = max(1, round(GAP * width))
    opaque = np.broadcast_to(np.where(shown, 255, 0)[:, :, None, None, None], (*shown.shape, 1, height, width))
    tiles = np.concatenate([images, opaque.astype(np.uint8)], axis=2)
    tiles = np.pad(tiles, [(0, 0), (0, 0), (0, 0), (0, gap), (0, gap)])
    return tiles.transpose(0, 3, 1, 4, 2).reshape(len(images) * (height + gap), -1, 4)


def nearest(images: NDArray[np.uint8], count: Integers, cluster: Integers, size: Integers) -> Figure:
    """One row a cluster [K]: those of its images [K M 3 S T] that are real (`count`), its name and size."""
    clusters, across = images.shape[:2]
    sheet = mosaic(images, np.arange(across) < count[:, None])
    figure = blank(0.5 * clusters + 0.2, NARROW)
    ax, _ = heatmap(figure, sheet, interpolation="nearest")
    middles = (np.arange(clusters) + 0.5 - GAP / 2) * len(sheet) / clusters
    ax.set_xticks([])
    ax.set_yticks(middles, [f"{c}\n{n:,} image{'s' * int(n != 1)}" for c, n in zip(cluster, size, strict=True)])
    ax.tick_params(axis="y", length=0)
    return figure


def pairs(images: NDArray[np.uint8], cluster: Integers, distance: NDArray[np.float32]) -> Figure:
    """Pairs [P 2 3 S T], two images beside each other, their clusters [P 2] and distance [P] below."""
    rows = -(-len(images) // ACROSS)
    figure = blank(1.2 * rows + 0.2, NARROW)
    for number, ax in enumerate(figure.subplots(rows, ACROSS, squeeze=False).flat):
        ax.set_axis_off()
        if number < len(images):
            image = np.concatenate(list(images[number].transpose(0, 2, 3, 1)), axis=1)
            ax.imshow(image, interpolation="nearest")
            text = f"{cluster[number, 0]} | {cluster[number, 1]}    {distance[number]:.3f}"
            ax.text(image.shape[1] / 2, 1.08 * len(image), text, color=INK, fontsize=12, ha="center", va="top")
    return figure


def confusion(counts: Integers, order: Integers, classes: list[str]) -> Figure:
    """Shares of each class in % from counts [L K]; those of 1 % and more are written out where there is room.

    `order` [K] names the clusters of the columns.
    """
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.4 if max(share.shape) <= 12 else 0.25
    figure = blank(side * len(classes) + 1.1, NARROW)
    ax, _ = heatmap(figure, share, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    for row, column in zip(*np.nonzero(share >= 1), strict=True) if side == 0.4 else ():
        ink = DARK if share[row, column] > 55 else PALE
        ax.text(column, row, f"{share[row, column]:.0f}", color=ink, fontsize=12, ha="center", va="center")
    ax.set_yticks(range(len(classes)), classes)
    ax.set_xticks(range(len(order)), [str(c) for c in order])
    ax.set(xlabel="cluster", ylabel="class")
    ax.tick_params(length=0)
    return figure
