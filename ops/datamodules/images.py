"""Runs on images (`ops.datamodules.base`): judged in the trial's own target projections, as images have no fixed space.

Axes: N images, C = 3 channels, S the side, D projection width, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ops.api import Arrays
from ops.clustering.kmeans import START_ROWS, kmeans
from ops.config.settings import LaunchSettings, MethodSettings
from ops.data.images.load import read_images
from ops.data.types.images import ImageSet
from ops.errors import SettingsError
from ops.evaluation.unlabelled import feature_indices, size_indices

if TYPE_CHECKING:
    from ops.datamodules.base import Judge
    from ops.training.experiment import Job

OWN_SPACE = "indices are taken in the trial's own projections: they compare epochs and trials of one backbone only"


@dataclass(frozen=True)
class Held:
    """What only the reader of a report sees besides the labels: the classes' names [C], where they have any."""

    classes: tuple[str, ...] | None


def load(launch: LaunchSettings, settings: MethodSettings) -> tuple[ImageSet, NDArray[np.int64] | None, Held]:
    """The images, at the method's `image_size` and with the features of its frozen `backbone`; labels apart."""
    if launch.knn:
        raise SettingsError(f"--knn {launch.knn}: is for attributed graphs; images have no edges")
    s = cast(Any, settings)  # of a method of this kind: `trainers.hadis.settings.Settings`
    found = read_images(
        launch.dataset, size=s.image_size, backbone=s.backbone, skip_damaged=launch.skip_damaged
    )  # fmt: skip
    return found.data.with_notes(OWN_SPACE), found.labels, Held(found.classes)


def describe(data: ImageSet) -> str:
    """How many, and of which size; the width of given features."""
    words = [f"{data.n_rows:,} images"]
    words += [f"{data.size[0]} x {data.size[1]} pixels"] if data.pixels is not None else []
    words += [f"{data.n_features:,} features of a frozen backbone"] if data.features is not None else []
    return ", ".join(words)


def sweep(data: ImageSet) -> dict[str, Any]:
    """K has to be given: raises SettingsError."""
    raise SettingsError(f"--n-clusters auto: is for attributed graphs; give --n-clusters K for {data.name}")


def judge(job: Job) -> Judge:
    """Indices in the method's projections; `agreement`: ARI between the clusterings of two augmented copies.

    `score` is the mean of the cosine silhouette and that agreement. Embeddings: `embedding` [N, D], and where they
    are known the clusters `copy_a`, `copy_b` of the same augmented images.
    """
    from sklearn.metrics import adjusted_rand_score

    k = job.resolved.settings.k

    def scored(clusters: NDArray[np.int64], embeddings: Arrays) -> dict[str, float]:
        found = size_indices(clusters, k)
        if "embedding" in embeddings:
            z = embeddings["embedding"]
            unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
            found |= feature_indices(unit, clusters, metric="cosine")
        if "copy_a" in embeddings and "silhouette" in found:
            found["agreement"] = float(adjusted_rand_score(embeddings["copy_a"], embeddings["copy_b"]))
            found["score"] = (found["silhouette"] + found["agreement"]) / 2
        return found

    return scored


def features(data: ImageSet) -> NDArray[Any]:
    """The features [N, F], or the pixels as they are, uint8 [N, 3 S S] without a copy."""
    if data.features is not None:
        return data.features
    assert data.pixels is not None
    return data.pixels.reshape(data.n_rows, -1)


def baselines(job: Job) -> Iterator[tuple[str, dict[str, float]]]:
    """k-means on pixels, and on the features where the backbone is frozen: sizes and scores by labels.

    Their indices would be of other spaces than the method's.
    """
    data: ImageSet = job.data
    spaces: dict[str, NDArray[Any]] = {}
    if data.pixels is not None:
        spaces["k-means on pixels"] = data.pixels.reshape(data.n_rows, -1)
    if data.features is not None:
        spaces["k-means on features"] = data.features
    judges, k = job.judges, job.resolved.settings.k
    for name, space in spaces.items():
        for seed in job.seeds:
            found = kmeans(space, k, (seed, 0), start_rows=START_ROWS).labels.numpy()
            yield name, size_indices(found, k) | judges.evaluator(found)


def explain(job: Job, clusters: NDArray[np.int64]) -> list[dict[str, Any]] | None:
    """None: a pixel explains nothing; the report shows the images that are nearest to each centre."""
    return None


def serve(job: Job) -> AbstractContextManager[ImageSet]:
    """The images themselves: they travel through Ray's object store, once for all workers of a node."""
    return nullcontext(job.data)


def finish(job: Job, folder: Path, folders: Mapping[int, Path], chosen: int) -> dict[str, Any]:
    """The pictures of the report and the embeddings as Parquet (`ops.datamodules.images_results`)."""
    from ops.datamodules.images_results import finish as results

    return results(job, folder, folders, chosen)
