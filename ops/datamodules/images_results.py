"""What a finished run on images leaves besides clusters: pictures for its report, projections as Parquet.

Pictures are stored as pixels of the model's seed, so that a report is drawn again without the data.
Axes: N images, K clusters, M images of a cluster, P pairs, S the side, D projection width, L classes.
"""

import numpy as np
from numpy.typing import NDArray

from ops.api import AnyExperiment
from ops.atomic_io import Arrays, save_arrays
from ops.datamodules.base import Extras, unit_rows
from ops.datamodules.users_results import EMBEDDINGS, write_embeddings
from ops.results.arrays import PICTURES, seed_arrays
from ops.results.seed_rows import SeedRows

NEAREST, CLUSTERS, PAIRS = 10, 30, 12  # images of a cluster, clusters, and pairs that are shown
SHOWN_SIDE = 96  # larger images are thinned to this side


def finish(experiment: AnyExperiment, rows: SeedRows, chosen: int) -> Extras:
    """Write pictures.npz and embeddings.parquet of seed `chosen`; returns what `result.json` says of them."""
    arrays = seed_arrays(rows.seed(chosen))
    stored = {} if experiment.data.pixels is None else pictures(experiment.data.pixels, arrays)
    if experiment.labels is not None:
        stored |= class_counts(arrays["last"], experiment.labels, experiment.k)
        if experiment.hidden is not None and experiment.hidden.classes is not None:
            stored["classes"] = np.array(experiment.hidden.classes, dtype=np.str_)
    if stored:
        save_arrays(rows.folder / PICTURES, seed=np.array(chosen), **stored)
    if "embedding" not in arrays:
        return {}
    ids = np.arange(experiment.data.n_rows) if experiment.data.ids is None else experiment.data.ids
    write_embeddings(rows, 0, chosen, ids)
    return {"embeddings": rows.table(EMBEDDINGS)}


def pictures(pixels: NDArray[np.uint8], arrays: Arrays) -> Arrays:
    """The images nearest to each of the largest clusters' centres [K M 3 S S], and the hardest pairs [P 2 3 S S].

    Clusters smaller than M have black images at their end; `near_count` [K] says how many are real.
    """
    clusters = arrays["last"]
    sizes = np.bincount(clusters)
    shown = np.sort(np.argsort(-sizes, kind="stable")[: min(CLUSTERS, int((sizes > 0).sum()))])
    near = np.zeros((len(shown), NEAREST, *_thin(pixels[:1]).shape[1:]), np.uint8)
    counts = np.zeros(len(shown), np.int64)
    for row, cluster in enumerate(shown):
        rows = nearest_images(int(cluster), clusters, arrays)
        counts[row] = len(rows)
        near[row, : len(rows)] = _thin(pixels[rows])
    shows = {"near": near, "near_count": counts, "near_cluster": shown, "near_size": sizes[shown]}
    if len(arrays.get("hard_pairs", ())):
        pairs = arrays["hard_pairs"][:PAIRS]
        shape = (*pairs.shape, *near.shape[2:])
        shows |= {"pair": _thin(pixels[pairs.ravel()]).reshape(shape), "pair_cluster": clusters[pairs],
                  "pair_value": arrays["hard_values"][:PAIRS]}  # fmt: skip
    return shows


def nearest_images(cluster: int, clusters: NDArray[np.int64], arrays: Arrays) -> NDArray[np.int64]:
    """Rows of the M images of a cluster that are most alike its mean (cosine), or without projections the surest."""
    rows = np.flatnonzero(clusters == cluster)
    if "embedding" in arrays:
        z = unit_rows(arrays["embedding"][rows])
        close = z @ z.mean(0)
    else:
        close = arrays["confidence"][rows]
    return np.asarray(rows[np.argsort(-close, kind="stable")[:NEAREST]])


def _thin(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images no larger than SHOWN_SIDE: every n-th pixel."""
    step = -(-max(images.shape[2:]) // SHOWN_SIDE)
    return images[:, :, ::step, ::step]


def class_counts(clusters: NDArray[np.int64], labels: NDArray[np.int64], k: int) -> Arrays:
    """How many images of each class are in each cluster: int64 [L, K]; clusters in the order of the class that fits.

    `confusion_order` [K] has the clusters of the columns.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((int(labels.max()) + 1, max(k, int(clusters.max()) + 1)), np.int64)
    np.add.at(table, (labels[labels >= 0], clusters[labels >= 0]), 1)
    rows, columns = linear_sum_assignment(-table)
    order = [*columns[np.argsort(rows)], *np.setdiff1d(np.arange(table.shape[1]), columns)]
    return {"confusion": table[:, order], "confusion_order": np.array(order, np.int64)}
